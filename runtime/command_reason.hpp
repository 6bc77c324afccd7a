// Why a program's run ended as it did, in words for the run's record. Pure; any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "runtime/process.hpp"

namespace penstock::runtime {

// Why a program that still ran was told to end.
enum class ending { by_itself, cancelled, timed_out, input_failed, output_failed };

struct command_facts {
  ending why = ending::by_itself;
  std::optional<process_end> last{};  // how the leader ended; absent: not known
  std::optional<std::chrono::nanoseconds> timeout{};
  std::chrono::nanoseconds grace{};
  std::string limit_cause{}, limit_remark{};                           // see run_limits
  std::string input_failure{}, output_failure{}, result_failure{};     // see command_outcome
  int killed = 0;          // processes of its group that SIGKILL was sent to
  int killed_outside = 0;  // and of those that had left it
};

// Why it was told to end, or what made its work worthless although it ended by itself. May be empty.
std::string cause(const command_facts& facts);
// The whole: cause, how it ended, what was needed for that. Empty for exit code 0 and nothing else to tell.
std::string reason(const command_facts& facts);

// "1 process", "3 processes"
std::string processes(int count);

}  // namespace penstock::runtime
