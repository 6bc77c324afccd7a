// One program, from spawn to the last process of its group gone.
//
// Lives on one strand of the batch pool (tasks) or the flow pool (supervised commands); spawns (spawn.hpp) into
// its own process group, waits by pidfd. stdin carries the input events as NDJSON and is
// closed at their end; stdout and stderr go to the log and, where the definition says `to:`, stdout's NDJSON
// lines go to that sink as events. End: input end, then (cancel, timeout, a failure of input or output)
// SIGTERM, `grace`, SIGCONT, SIGKILL, always to the whole group; SIGTERM is followed by a SIGCONT, so that a
// stopped process can take it. When the leader has exited, what is left of its group gets the same, and then what
// had left the group (setsid): all in its control group if it has one, else those whose environment still tells
// whose they are and whose parents have ended, which makes them our children. When run() returns no process of the
// group exists, nor one of those, unless it may not be signalled by us or does not end within 10 s of SIGKILL.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "runtime/cgroup.hpp"
#include "runtime/component.hpp"
#include "runtime/process.hpp"  // kill_orphans, adopt_orphans
#include "runtime/registry.hpp"
#include "runtime/start_permit.hpp"

namespace penstock::runtime {

enum class command_end { exited, signalled, not_started, timed_out, cancelled };

struct command_outcome {
  command_end end = command_end::exited;
  int exit_code = 0;  // exited
  int signal = 0;     // signalled, or what finally ended it after a cancel or timeout
  // In words, for every end but exit code 0, and whenever SIGKILL was needed: "exit code 3", "timed out after
  // 2s; killed by SIGKILL; 3 processes of its group had to be killed after 10s grace".
  std::string reason{};
  bool forced = false;           // SIGKILL was needed, for it or for another process that it left
  std::string input_failure{};   // the source of its input failed: what it said
  std::string output_failure{};  // the sink of its output failed: what it said
  std::string result_failure{};  // what it wrote to $PENSTOCK_OUTPUT cannot be used: why
  std::string output{};          // what it wrote there, also when it failed: a JSON object. Empty: nothing

  bool ok() const {
    return end == command_end::exited && exit_code == 0 && input_failure.empty() && output_failure.empty() &&
           result_failure.empty();
  }
};

struct command_options {
  config::command definition;  // environment values may hold secrets as references; `process.workdir`: below `workdir`
  std::string pipeline;
  std::string consumer;
  std::filesystem::path workdir;
  std::map<std::string, std::string>
      environment;            // of the program; the definition's is laid over it, and no other is. HOME, USER and
                              // LOGNAME follow the definition's user
  std::filesystem::path log;  // made at the first line of output
  std::int64_t log_limit_bytes = 16 << 20;
  std::unique_ptr<source> input{};  // null: stdin is empty
  bool continuous = false;  // a supervised command: see command_output.hpp for what that means for `to:`
  std::chrono::nanoseconds log_pause{std::chrono::seconds{10}};  // continuous: least time between two rotations
  cgroup_tree* cgroups = nullptr;    // null: the daemon may make none
  bool collects_output = false;      // the program gets $PENSTOCK_OUTPUT
  std::filesystem::path scratch{};   // the folder for that file; whoever the program runs as must get to it
  std::optional<std::chrono::nanoseconds> timeout{};  // from the spawn
  std::chrono::nanoseconds grace{std::chrono::seconds{10}};
  std::function<void()> on_start{};  // called once, on the strand: the process is there
  // Made for the strand. Until it is granted nothing of the program begins, and what was made ready (the process that is to become
  // it, where it can wait) goes when it is withdrawn (`cancelled`, without a word in the log). Null: it may start at once.
  std::shared_ptr<start_permit> permit{};
};

class command_run {
 public:
  command_run(asio::any_io_executor strand, const registry& components, services& offered,
              command_options options);
  ~command_run();

  // Call once, awaited from any executor; runs on the strand. Never throws.
  asio::awaitable<command_outcome> run();
  // From any thread: the process, while it is being supervised; nothing before and afterwards.
  std::optional<int> pid() const;
  // From any thread: end it gracefully (end of input, TERM, grace, CONT, KILL).
  void cancel();

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::runtime
