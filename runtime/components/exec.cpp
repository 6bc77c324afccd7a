// steps: exec - any program as a step: it reads one event a line on stdin and prints one answer a line on stdout.
//
// The program lives as long as the dataflow. An answer belongs to the event by its place in the order: a JSON value is
// the new payload, a list makes as many events as it has items, an empty line or null drops the event, and a line that
// begins with "!" makes it a dead letter with what follows as the reason. A program that dies or hangs is started again;
// the events that it may have seen then go to it one by one, and the one that it does not survive a second time is a
// dead letter. An answer that is not JSON makes a dead letter and a new start. What it prints to stderr is for the log. After close() no process of it is left.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/components/all.hpp"
#include "runtime/components/missing_program.hpp"
#include "runtime/components/program_settings.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/line_program.hpp"

namespace penstock::runtime::components::exec_step {

namespace {

using std::chrono::milliseconds;

// Between a program's end and its next start, doubled as long as it answers nothing.
constexpr milliseconds first_pause{20}, longest_pause{1000};

std::vector<config::field> fields() {
  using config::field_type;
  std::vector<config::field> all{
          program_run_field("It prints one line for each line that it reads, and flushes it; everything else goes to stderr.",
                            "[python3, score.py]"),
          {.name = "send",
           .type = field_type::choice,
           .doc = "What a line holds: data, the payload as JSON; cloudevent, the whole event as CloudEvents JSON with the "
                  "payload in `data`. The answer is a payload in both.",
           .fallback = "data",
           .choices = {"data", "cloudevent"}},
          {.name = "timeout",
           .type = field_type::duration,
           .doc = "How long one answer may take; then the program is ended and started again.",
           .fallback = "10s",
           .example = "2s"},
          {.name = "start_timeout",
           .type = field_type::duration,
           .doc = "How long the first answer after a start may take, when that is longer.",
           .fallback = "60s"},
          {.name = "in_flight",
           .type = field_type::integer,
           .doc = "Lines that are sent ahead, before their answers, at most.",
           .fallback = "100",
           .minimum = 1,
           .maximum = 10000},
          {.name = "max_answer",
           .type = field_type::size,
           .doc = "A longer answer ends the program.",
           .fallback = "1MiB",
           .minimum = 1},
          {.name = "max_failures",
           .type = field_type::integer,
           .doc = "When more events in a row than this are not survived by the program, or not answered in JSON, the "
                  "dataflow fails instead of making more dead letters: then it is the program.",
           .fallback = "10",
           .minimum = 1},
          {.name = "grace",
           .type = field_type::duration,
           .doc = "How long it may take to end: after the end of its input, and again after SIGTERM; then SIGKILL.",
           .fallback = "5s"},
          {.name = "stateless",
           .type = field_type::boolean,
           .doc = "The program remembers nothing from one event for the next: with `parallel` several of it may run.",
           .fallback = "false"}};
  for (config::field& f : program_place_fields()) all.push_back(std::move(f));
  return all;
}

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "exec",
      .doc = "A program in any language as a step: for each event it reads a line of JSON and prints one. A JSON value "
             "replaces the payload, a list makes several events, an empty line drops the event, `! reason` makes it a "
             "dead letter.",
      .settings = {.name = "exec", .type = field_type::object, .doc = "", .children = fields(), .shorthand = "run"},
      .examples = {"exec: [python3, score.py]", "exec: {run: [python3, score.py], timeout: 2s, workdir: \"${dir}\"}",
                   "exec: {run: [jq, --unbuffered, -c, '{id, total}'], stateless: true}"},
      .doubt = missing_program,
  };
}

line_program_options options_of(const config::value& v, const component_context& context) {
  const auto duration = [&v](const char* name) { return std::chrono::nanoseconds(v.at(name).get<std::int64_t>()); };
  line_program_options o = program_options(v, context, context.label());
  o.environment.try_emplace("PENSTOCK_STEP", context.step);
  o.timeout = duration("timeout");
  o.start_timeout = duration("start_timeout");
  o.in_flight = v.at("in_flight").get<std::size_t>();
  o.most_answer_bytes = v.at("max_answer").get<std::size_t>();
  return o;
}

class exec_step final : public step {
 public:
  exec_step(const config::value& v, const component_context& context)
      : name_(context.label()),
        whole_event_(v.at("send").get<std::string>() == "cloudevent"),
        stateless_(v.at("stateless").get<bool>()),
        in_flight_(v.at("in_flight").get<std::size_t>()),
        most_failures_(v.at("max_failures").get<int>()),
        program_(context.executor, options_of(v, context)),
        pause_timer_(context.executor) {}

  void process(batch&, step_output&) override { throw std::logic_error("exec waits"); }
  bool waits() const override { return true; }
  bool stateless() const override { return stateless_; }

  asio::awaitable<void> open() override {
    program_.start();
    co_return;
  }

  asio::awaitable<void> close() override {
    try {
      co_await program_.end();
    } catch (const std::exception& e) {
      spdlog::error("{}: ending the program failed: {}", name_, e.what());
    }
  }

  asio::awaitable<void> process_waiting(batch& events, step_output& out) override {
    const std::vector<std::string> lines = lines_of(events);
    std::vector<event> made;
    made.reserve(events.size());
    std::size_t next = 0;          // the first event without an answer
    std::size_t careful_until = 0; // events that a program which died may have seen: one at a time
    while (next < lines.size()) {
      if (!program_.running()) co_await restart();
      const bool careful = next < careful_until;
      const std::span<const std::string> rest(lines.data() + next, careful ? 1 : lines.size() - next);
      const line_program::answers got = co_await program_.ask(rest, in_flight_);
      std::size_t taken = 0;
      while (taken < got.lines.size() && take(events.events[next], got.lines[taken], events, made, out)) ++taken, ++next;
      if (taken > 0) {
        pause_ = milliseconds{0};
        failures_in_row_ = 0;
      }
      if (taken < got.lines.size()) {
        // It may be no answer at all, and then those behind it are not what they seem.
        bury(events.events[next++], not_json(got.lines[taken]), out);
        co_await program_.end();
        continue;
      }
      if (got.failure.empty()) continue;
      if (!got.at_hand) {
        // It cannot be this event's fault. One that had answered others before is just started again.
        if (!got.ever_answered) throw std::runtime_error(got.failure);
      } else if (careful) {
        bury(events.events[next++], got.failure, out);
      } else {
        spdlog::warn("{}: {}; it is started again", name_, got.failure);
        careful_until = next + std::max<std::size_t>(got.sent - std::min(got.sent, got.lines.size()), 1);
      }
    }
    events.events = std::move(made);
    co_return;
  }

 private:
  std::vector<std::string> lines_of(const batch& events) const {
    std::vector<std::string> lines(events.size());
    for (std::size_t i = 0; i < events.size(); ++i) {
      if (!whole_event_) {
        append_ndjson(lines[i], events.events[i]);
        continue;
      }
      append_cloudevent(lines[i], events.events[i]);
      lines[i] += '\n';
    }
    return lines;
  }

  asio::awaitable<void> restart() {
    co_await program_.end();
    if (pause_.count() > 0) {
      pause_timer_.expires_after(pause_);
      co_await pause_timer_.async_wait(asio::use_awaitable);
    }
    pause_ = std::clamp(pause_ * 2, first_pause, longest_pause);
    program_.start();
    co_return;
  }

  void bury(const event& e, const std::string& reason, step_output& out) {
    if (++failures_in_row_ > most_failures_)
      throw std::runtime_error("so many events in a row failed that it must be the program: " + reason);
    out.dead(e, reason);
  }

  // False when the answer is not to be understood.
  static bool take(const event& e, std::string_view answer, batch& memory, std::vector<event>& made, step_output& out) {
    while (!answer.empty() && (answer.back() == '\r' || answer.back() == ' ')) answer.remove_suffix(1);
    if (answer.empty() || answer == "null") return true;  // dropped
    if (answer.front() == '!') {
      answer.remove_prefix(std::min(answer.find_first_not_of(" ", 1), answer.size()));
      out.dead(e, answer.empty() ? "the program gave no reason" : excerpt(answer, most_reason));
      return true;
    }
    const std::string_view payload = memory.keep(answer);
    if (!check_json(payload).empty()) return false;
    const auto items = json_items(payload);
    if (!items) add(e, e.id, payload, made);
    for (std::size_t i = 0; items && i < items->size(); ++i)
      add(e, memory.keep(std::string(e.id) + "/" + std::to_string(i)), (*items)[i], made);
    return true;
  }

  static std::string not_json(const std::string& answer) {
    return "the program's answer is not JSON: " + excerpt(answer) + " (print one line for each event, and everything else to stderr)";
  }

  static void add(const event& from, std::string_view id, std::string_view payload, std::vector<event>& made) {
    event& e = made.emplace_back(from);
    e.id = id;
    e.data = payload;
    e.datacontenttype = {};
  }

  static constexpr std::size_t most_reason = 500;

  const std::string name_;
  const bool whole_event_;
  const bool stateless_;
  const std::size_t in_flight_;
  const int most_failures_;
  line_program program_;
  asio::steady_timer pause_timer_;
  milliseconds pause_{0};
  int failures_in_row_ = 0;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), require_program), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<exec_step>(settings, context);
        }));
}

}  // namespace penstock::runtime::components::exec_step
