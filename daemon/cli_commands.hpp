// The commands of the operator's client, one function each. Main thread; each returns the exit code.
#pragma once

#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "daemon/cli_client.hpp"

namespace penstock::cli {

enum exit_code : int {
  exit_ok = 0,
  exit_no = 1,           // it worked, and the answer is no: the run failed, the file is not valid
  exit_usage = 2,        // wrong arguments, or a file that cannot be read
  exit_unreachable = 3,  // no answer from the daemon
  exit_refused = 4,      // the daemon says why it will not
};

// A file of the command line that cannot be read, or an argument that makes no sense.
class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The whole text; - is stdin. Throws usage_error.
std::string read_file(const std::string& file);

struct surroundings {
  client& daemon;
  std::ostream& out;
  std::ostream& err;
  bool json = false;  // print the REST documents as they are
};

// Offline: every problem of every file, one line each; warnings go to `err` and leave the file valid.
int validate(const std::vector<std::string>& files, std::ostream& out, std::ostream& err, bool json);

int apply(const surroundings& with, const std::vector<std::string>& files, bool dry_run);

struct trigger_options {
  std::string pipeline, job;
  std::vector<std::string> params{};  // NAME=VALUE
  std::string events{};               // file, or - for stdin; empty: none
  std::string idempotency_key{};
  bool wait = false;
};
int trigger(const surroundings& with, const trigger_options& options);

struct runs_options {
  std::string pipeline{}, job{}, state{};
  int limit = 20;
};
int runs(const surroundings& with, const runs_options& options);
int show_one_run(const surroundings& with, const std::string& id);
int cancel(const surroundings& with, const std::string& id);
int retry(const surroundings& with, const std::string& id, bool from_start, bool wait);

struct backfill_options {
  std::string pipeline, job;
  std::string from, to;
  std::vector<std::string> params{};  // NAME=VALUE
  bool again = false;
  bool dry_run = false;
};
int backfill(const surroundings& with, const backfill_options& options);
int logs(const surroundings& with, const std::string& id, const std::string& task, bool follow);

int topics(const surroundings& with, const std::string& name);  // empty: all
int publish(const surroundings& with, const std::string& topic, const std::string& file);

int dead_letters(const surroundings& with, const std::string& pipeline, int limit);
enum class settle { replay, discard };
// `ids` empty: all (of `pipeline`, when that is not empty).
int settle_dead_letters(const surroundings& with, settle how, const std::vector<std::string>& ids,
                        const std::string& pipeline);

}  // namespace penstock::cli
