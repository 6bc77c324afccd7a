#include "runtime/command_reason.hpp"

#include "config/time.hpp"

namespace penstock::runtime {

namespace {

std::string manner(const command_facts& facts) {
  if (!facts.last) return "its exit status was lost";
  if (!facts.limit_cause.empty()) return facts.limit_cause;
  if (facts.last->by_signal)
    return (facts.why == ending::by_itself ? "killed by " : "ended by ") + signal_name(facts.last->number);
  if (facts.last->number != 0 || facts.why != ending::by_itself)
    return "exit code " + std::to_string(facts.last->number);
  return {};
}

bool failed_by_itself(const command_facts& facts) {
  return facts.why == ending::by_itself && facts.last && (facts.last->by_signal || facts.last->number != 0);
}

}  // namespace

std::string processes(int count) { return std::to_string(count) + (count == 1 ? " process" : " processes"); }

std::string cause(const command_facts& facts) {
  if (facts.why == ending::cancelled) return "cancelled";
  if (facts.why == ending::timed_out) return "timed out after " + format_duration(*facts.timeout);
  if (!facts.input_failure.empty()) return "its input failed: " + facts.input_failure;
  if (!facts.output_failure.empty()) return "its output could not be stored: " + facts.output_failure;
  return {};
}

std::string reason(const command_facts& facts) {
  std::string all;
  const auto add = [&all](const std::string& words) {
    if (!words.empty()) all += (all.empty() ? "" : "; ") + words;
  };
  const std::string had_to = " had to be killed after " + format_duration(facts.grace) + " grace";
  add(cause(facts));
  add(manner(facts));
  if (failed_by_itself(facts) && facts.limit_cause.empty()) add(facts.limit_remark);
  if (!facts.result_failure.empty()) add("what it wrote to $PENSTOCK_OUTPUT " + facts.result_failure);
  if (facts.killed > 0) add(processes(facts.killed) + " of its group" + had_to);
  if (facts.killed_outside > 0) add(processes(facts.killed_outside) + " that had left its group" + had_to);
  return all;
}

}  // namespace penstock::runtime
