// penstock token and penstock audit: who may use the daemon, and who did what. Main thread; each returns the exit code.
//
// With `data` a folder they work without a daemon, in its state.db: for the first token, and for when no admin token is left.
// The folder must not be in use.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "daemon/cli_commands.hpp"

namespace penstock::cli {

struct token_options {
  std::string name, expires_in;
  std::vector<std::string> roles{}, pipelines{};
  double rate = 0;  // requests per second; 0: no limit
  int burst = 0;    // 0: as the rate says
  std::string id{}, data{};
};
// Prints the token itself on `out`, and nothing else there.
int create_token(const surroundings& with, const token_options& options);
int list_tokens(const surroundings& with, const token_options& options);
int revoke_token(const surroundings& with, const token_options& options);
int show_caller(const surroundings& with);

struct audit_options {
  std::string token{}, pipeline{}, outcome{}, since{}, until{}, cursor{};
  int limit = 20;
};
int audit(const surroundings& with, const audit_options& options);

// The token that requests are sent with: what the file says, else what PENSTOCK_TOKEN says, else none. A token never stands on
// a command line, which everybody on the machine can read; a file that others can read is warned of. Throws usage_error.
std::string token_from(const std::string& file, const std::function<void(const std::string&)>& warn);

}  // namespace penstock::cli
