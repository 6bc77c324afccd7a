// As whom a program runs: a user and a group by name, found in the machine's databases (getpwnam(3)).
//
// Plain values; any thread. A look-up may read files or ask a name service, so it takes its time: it is for
// programs that name a user, not for every one.
#pragma once

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "config/error.hpp"

namespace penstock::runtime {

struct identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::optional<std::vector<gid_t>> groups{};  // the supplementary ones; absent: they stay
  std::string user{}, group{};                 // as they were asked for; either may be empty
  std::string login{}, home{};                 // of the user; empty: not known
  bool is_ours = false;                        // what this program is already: nothing is to be changed
};

// Names or numbers; not both empty. A user without a group gets its own group and its supplementary ones; a
// group without a user leaves all else as it is. errc::invalid: there is no such user or group, or a number
// without an entry has no group given; errc::unavailable: the database cannot be read.
result<identity> find_identity(const std::string& user, const std::string& group);

}  // namespace penstock::runtime
