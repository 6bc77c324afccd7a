// Tokens as somebody asks for them.
#pragma once

#include <string>
#include <vector>

#include "scheduler/token.hpp"

namespace penstock::testing {

inline scheduler::role_set roles_of(const std::vector<std::string>& words) { return scheduler::parse_roles(words).value(); }

inline scheduler::token_record a_wish(const std::string& name, const std::vector<std::string>& roles) {
  scheduler::token_record wish;
  wish.name = name;
  wish.roles = roles_of(roles);
  return wish;
}

}  // namespace penstock::testing
