// to: command - a long-lived program that gets each event as a line on its stdin.
//
// With `ack: line` (the default) it prints one line for each that it has taken care of, in their order: `ok`, or a
// refusal, which makes a dead letter of that event. The batch is safe once all are answered. With `ack: none` it is
// safe once the lines are in the program's pipe: what it has not read when it ends is lost. A program that ends, hangs
// or answers something else makes the write fail; the delivery policy tries the events that have no answer again with a
// new program, where only the one that it was at has had an attempt, and after the flow's failure the whole batch comes
// again, so it may see events twice (`send: cloudevent` gives it their ids). Closed, or when the flow has failed, it gets the end of its input and may finish what it has
// read; then SIGTERM, then SIGKILL. After a failure that takes a few seconds at most, whatever the grace. No process of
// its group is left when the sink is destroyed.
#include <algorithm>
#include <chrono>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/missing_program.hpp"
#include "runtime/components/payload_check.hpp"
#include "runtime/components/program_settings.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/line_program.hpp"

namespace penstock::runtime::components::command_sink {

namespace {

constexpr std::size_t most_reason = 500;  // bytes

std::vector<config::field> fields() {
  using config::field_type;
  std::vector<config::field> all{
      program_run_field("It reads one event a line on stdin, until that ends.", "[python3, store.py]"),
      {.name = "ack",
       .type = field_type::choice,
       .doc = "line: for each line it prints one, in the same order and flushed, once the event is safe: `ok`, or "
              "`{\"error\": \"why\"}` or `! why`, which makes a dead letter; everything else goes to stderr. none: it prints "
              "nothing that counts, and events are taken as safe once they are in its pipe, so its crash may lose some.",
       .fallback = "line",
       .choices = {"line", "none"}},
      {.name = "send",
       .type = field_type::choice,
       .doc = "What a line holds: data, the payload as JSON; cloudevent, the whole event as CloudEvents JSON with the "
              "payload in `data`.",
       .fallback = "data",
       .choices = {"data", "cloudevent"}},
      {.name = "timeout",
       .type = field_type::duration,
       .doc = "How long one answer may take, or with `ack: none` the reading of what is in the pipe.",
       .fallback = "30s",
       .minimum = 0.001},
      {.name = "start_timeout",
       .type = field_type::duration,
       .doc = "How long the first answer after a start may take, when that is longer.",
       .fallback = "60s"},
      {.name = "in_flight",
       .type = field_type::integer,
       .doc = "ack: line: lines that are sent ahead, before their answers, at most.",
       .fallback = "100",
       .minimum = 1,
       .maximum = 10000},
      {.name = "grace",
       .type = field_type::duration,
       .doc = "How long it may take to end: after the end of its input, and again after SIGTERM; then SIGKILL.",
       .fallback = "5s"}};
  for (config::field& f : program_place_fields()) all.push_back(std::move(f));
  return all;
}

config::component_spec spec() {
  return {
      .kind = config::component_kind::sink,
      .name = "command",
      .doc = "Gives each event as a line of JSON to a long-lived program in any language, which says of each whether it "
             "has it. At least once.",
      .settings = {.name = "command",
                   .type = config::field_type::object,
                   .doc = "",
                   .children = fields(),
                   .shorthand = "run"},
      .examples = {"command: [python3, store.py]",
                   "command: {run: [python3, store.py], send: cloudevent, timeout: 5s, workdir: \"${dir}\"}",
                   "command: {run: [logger, --tag, orders], ack: none}"},
      .doubt = missing_program,
  };
}

line_program_options options_of(const config::value& v, const component_context& context) {
  const auto duration = [&v](const char* name) { return std::chrono::nanoseconds(v.at(name).get<std::int64_t>()); };
  line_program_options o = program_options(v, context, context.label() + " to command");
  o.timeout = duration("timeout");
  o.start_timeout = duration("start_timeout");
  o.in_flight = v.at("in_flight").get<std::size_t>();
  o.most_answer_bytes = 64 << 10;
  o.output_to_log = v.at("ack").get<std::string>() == "none";
  return o;
}

// Nothing: it has taken the event. Otherwise why it never will. Throws when that is no answer.
std::optional<std::string> refusal_in(std::string_view answer) {
  while (!answer.empty() && (answer.back() == '\r' || answer.back() == ' ')) answer.remove_suffix(1);
  if (answer == "ok") return std::nullopt;
  std::string reason;
  bool refused = answer.starts_with('!');
  if (refused) {
    answer.remove_prefix(std::min(answer.find_first_not_of(' ', 1), answer.size()));
    reason = answer;
  } else if (const auto object = nlohmann::json::parse(answer, nullptr, false); object.is_object() && object.contains("error")) {
    refused = true;
    const nlohmann::json& error = object.at("error");
    reason = error.is_string() ? error.get<std::string>() : error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  if (!refused) {
    throw std::runtime_error("the program's answer is neither ok nor an error: " + excerpt(answer) +
                             " (print one line for each event, and everything else to stderr)");
  }
  return reason.empty() ? "the program gave no reason" : excerpt(reason, most_reason);
}

class command_sink final : public sink {
 public:
  command_sink(const config::value& v, const component_context& context)
      : whole_event_(v.at("send").get<std::string>() == "cloudevent"),
        options_(options_of(v, context)),
        program_(context.executor, options_) {}

  asio::awaitable<void> open(const std::string&) override {
    program_.start();
    co_return;
  }

  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    if (!program_.running()) {
      const line_program::ending how = co_await program_.end_soon();
      throw std::runtime_error("the program has ended: " + how.words);
    }
    write_result written;
    written.refused = malformed_events(*events);
    if (options_.output_to_log) {
      std::string text = text_of(*events, written.refused);
      const std::string failure = co_await program_.tell(std::move(text));
      if (!failure.empty()) throw std::runtime_error(failure);
      co_return written;
    }
    std::vector<std::size_t> which;  // events that the lines are of
    const std::vector<std::string> lines = lines_of(*events, written.refused, which);
    const line_program::answers got = co_await program_.ask(lines, options_.in_flight);
    const std::size_t sent = which.size();
    const std::string failure = settle(got, which, written);
    const bool answered_nonsense = sent - which.size() < got.lines.size();
    if (!which.empty()) throw partly_written(failure, std::move(written), std::move(which), answered_nonsense || got.at_hand);
    const auto earlier = [](const refused_event& a, const refused_event& b) { return a.index < b.index; };
    std::sort(written.refused.begin(), written.refused.end(), earlier);
    co_return written;
  }

  asio::awaitable<void> abandon() override { co_await program_.end_after_failure(); }

  asio::awaitable<void> close() override {
    const line_program::ending how = co_await program_.end();
    // Without answers its end is all that tells whether it has done its work.
    if (options_.output_to_log && !how.success) throw std::runtime_error("the program has ended: " + how.words);
    co_return;
  }

 private:
  // Takes those that were answered out of `which`; returns why there are others.
  static std::string settle(const line_program::answers& got, std::vector<std::size_t>& which, write_result& written) {
    std::string failure = got.failure;
    std::size_t answered = 0;
    try {
      for (const std::string& answer : got.lines) {
        if (auto refusal = refusal_in(answer)) written.refused.push_back({which[answered], std::move(*refusal)});
        ++answered;
      }
    } catch (const std::runtime_error& no_answer) {
      failure = no_answer.what();  // what it has printed after that may be anything
    }
    which.erase(which.begin(), std::next(which.begin(), static_cast<std::ptrdiff_t>(answered)));
    return failure;
  }

  void append_line(std::string& out, const event& e) const {
    if (!whole_event_) return append_ndjson(out, e);
    append_cloudevent(out, e);
    out += '\n';
  }

  std::string text_of(const batch& events, const std::vector<refused_event>& refused) const {
    std::string text;
    for_each_accepted(events, refused, [&](const event& e) { append_line(text, e); });
    return text;
  }

  std::vector<std::string> lines_of(const batch& events, const std::vector<refused_event>& refused,
                                    std::vector<std::size_t>& which) const {
    std::vector<std::string> lines;
    for_each_accepted(events, refused, [&](const event& e) {
      which.push_back(static_cast<std::size_t>(&e - events.events.data()));
      append_line(lines.emplace_back(), e);
    });
    return lines;
  }

  const bool whole_event_;
  const line_program_options options_;
  line_program program_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), require_program), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<command_sink>(v, context);
        }));
}

}  // namespace penstock::runtime::components::command_sink
