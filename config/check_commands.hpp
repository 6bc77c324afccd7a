// The rules of commands that no record can say: what may name a program, a variable, a user or a folder, and how a
// supervised command tells that it is ready. Pure, any thread.
#pragma once

#include <optional>
#include <string_view>

#include "config/place.hpp"

namespace penstock::config {

// Of the flow, job or task at `p`, if it has one.
void check_command(const place& p, problem_list& problems);

// `ready` of a flow.
void check_readiness(const place& ready, problem_list& problems);

// "027", "22": octal digits up to 0777.
std::optional<int> parse_umask(std::string_view text);

}  // namespace penstock::config
