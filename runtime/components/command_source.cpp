// from: command - a long-lived program whose printed lines are events.
//
// Lives on its flow's strand. The program's pipe is read only while events are asked for, so a program that prints
// faster than the flow works stands still at its next write. Events have no positions: what the program has printed and
// the flow has not made safe is lost when the flow fails or the daemon is killed. A program that ends makes the flow
// fail, after everything that it printed is safe; so it is started again with the flow's backoff, and its exit code is
// the flow's reason. Stopped, it gets SIGTERM, and what it prints until it ends still counts, however late the flow
// comes to read it; after `grace`, counted from the first look at it after the stop, it is killed. No process of its
// group is left when the source is destroyed.
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/components/all.hpp"
#include "runtime/components/missing_program.hpp"
#include "runtime/components/program_settings.hpp"
#include "runtime/line_input.hpp"
#include "runtime/line_program.hpp"
#include "runtime/pipe_io.hpp"

namespace penstock::runtime::components::command_source {

namespace {

using clock = std::chrono::steady_clock;


std::vector<config::field> fields() {
  using config::field_type;
  std::vector<config::field> all{
      program_run_field("What it prints on stdout, line by line and flushed, are the events; everything else goes to stderr.",
                        "[python3, feed.py]"),
      {.name = "format",
       .type = field_type::choice,
       .doc = "ndjson: a JSON value a line. lines: plain text.",
       .fallback = "ndjson",
       .choices = {"ndjson", "lines"}},
      {.name = "at_end",
       .type = field_type::choice,
       .doc = "When it ends with exit code 0: restart, the flow fails and starts it again with backoff; end, that was all "
              "(a job needs this). Any other end makes the flow, or the job's attempt, fail.",
       .fallback = "restart",
       .choices = {"restart", "end"}},
      {.name = "max_line",
       .type = field_type::size,
       .doc = "A longer line becomes a dead letter with its beginning.",
       .fallback = "1MiB",
       .minimum = 1},
      {.name = "grace",
       .type = field_type::duration,
       .doc = "How long it may take to end after SIGTERM; then SIGKILL.",
       .fallback = "5s"}};
  for (config::field& f : program_place_fields()) all.push_back(std::move(f));
  return all;
}

config::component_spec spec() {
  return {
      .kind = config::component_kind::source,
      .name = "command",
      .doc = "The lines that a long-lived program prints. Nothing is read while the flow is busy. A crash loses what was "
             "printed and not yet safe, unless the program prints it again.",
      .settings = {.name = "command",
                   .type = config::field_type::object,
                   .doc = "",
                   .children = fields(),
                   .shorthand = "run"},
      .examples = {"command: [python3, feed.py]",
                   "command: {run: [journalctl, --follow, --output=json, --lines=0], grace: 2s}",
                   "command: {run: [python3, export.py], at_end: end, workdir: \"${dir}\"}"},
      .bounded = true,
      .live = true,
      .doubt = missing_program,
      .endless = [](const config::value& settings) {
        const bool ends = settings.is_object() && settings.contains("at_end") && settings.at("at_end") == "end";
        return std::string(ends ? "" : "at_end: restart");
      },
  };
}

class command_source final : public source {
 public:
  command_source(const config::value& v, const component_context& context)
      : ends_(v.at("at_end").get<std::string>() == "end"),
        options_(program_options(v, context, context.label() + " from command")),
        program_(context.executor, options_),
        rules_(std::make_shared<const line_rules>(
            line_rules{v.at("format").get<std::string>() == "ndjson", v.at("max_line").get<std::size_t>(),
                       "/" + context.consumer})),
        lines_(rules_) {}

  asio::awaitable<void> open(std::int64_t) override {
    if (!stopped_) program_.start();
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (true) {
      batch events;
      lines_.cut(events, most);
      append_lost(events, *rules_, lines_.take_lost());
      if (!events.empty()) co_return std::move(events);
      if (ended_) break;
      co_await read_on();
    }
    if (stopped_ || (ends_ && how_.success)) co_return std::nullopt;
    throw std::runtime_error("the program ended: " + how_.words);
  }

  void stop_input() override {
    if (std::exchange(stopped_, true)) return;
    program_.ask_to_end();
    program_.interrupt();  // so that hear() goes by a deadline
  }

 private:
  clock::time_point after_grace() const { return later(clock::now(), options_.grace); }

  // One that prints on and on would otherwise be heard for ever.
  void force_end() {
    spdlog::warn("{}: killed, for it had not ended {} after SIGTERM", options_.name, format_duration(options_.grace));
    program_.force_end();
    deadline_ = never;
  }

  asio::awaitable<void> read_on() {
    if (stopped_ && !deadline_) deadline_ = after_grace();
    const line_program::output heard = co_await program_.hear(deadline_.value_or(never));
    if (deadline_ && clock::now() >= *deadline_ && program_.running()) force_end();
    if (!heard.bytes.empty()) lines_.add(heard.bytes);
    if (!heard.ended) co_return;
    how_ = co_await program_.end_soon();
    ended_ = true;  // and no whole line is there: read() has cut them all
    if (how_.success) {
      lines_.finish();
    } else {
      lines_.break_off("the program ended before it had printed the whole line: " + how_.words);
    }
    co_return;
  }

  const bool ends_;
  const line_program_options options_;
  line_program program_;
  const std::shared_ptr<const line_rules> rules_;
  line_input lines_;
  std::optional<clock::time_point> deadline_{};  // once stopped: then it is killed
  bool stopped_ = false;
  bool ended_ = false;             // and `how_`
  line_program::ending how_{};
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), require_program), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<command_source>(v, context);
        }));
}

}  // namespace penstock::runtime::components::command_source
