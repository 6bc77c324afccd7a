// The audit log's entries: who changed something, or tried to and was refused. Plain values.
//
// Never in it: bodies, headers, secrets, and the query of a request that was refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "config/time.hpp"

namespace penstock::scheduler {

struct audit_record {
  std::string id{};        // ULID, of the time `at`
  timestamp at{};          // when it was asked
  std::string who{};       // "token", "socket" (let in by the permissions of a socket's file), "anyone" (no token was asked
                           // for, or none was shown), "offline" (in the data folder), "file" (a definition file), "signal"
  std::string token{};     // its id; also of one that was refused
  std::string name{};      // the token's
  std::string address{};   // from where the connection came: of a proxy, where one is in front; empty: no network was involved
  std::string method{};    // "PUT"; empty: was not a request
  std::string endpoint{};  // the pattern of the path: "/v1/pipelines/{name}"
  std::string target{};    // the path as it was asked for, or the file
  std::string pipeline{};
  std::string outcome{};   // "done", "failed" or "refused"
  int status = 0;          // HTTP; 0: was not a request
  std::string request{};   // X-Request-Id
  std::string detail{};    // in words
};

struct audit_filter {
  std::string token{}, pipeline{}, outcome{};  // empty: all
  std::optional<timestamp> since{}, until{};   // [since, until)
  std::string before_id{};                     // page: entries older than this one
  std::size_t limit = 100;
};

}  // namespace penstock::scheduler
