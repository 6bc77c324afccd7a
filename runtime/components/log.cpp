// steps: log - writes events, or a text made of them, to the daemon's log and passes them on.
//
// At most so many lines a second; those beyond are counted, and the next line says how many there were. Stateless.
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/components/all.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::log_step {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::size_t most_text = 1024;  // bytes of a line

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "log",
      .doc = "Writes events to the daemon's log, at most 1 KiB of each, and passes them on unchanged.",
      .settings = {.name = "log",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "text",
                                 .type = field_type::expression,
                                 .doc = "What to write; without it the payload.",
                                 .example = "'order ' .. event.id"},
                                {.name = "level",
                                 .type = field_type::choice,
                                 .doc = "The line's level.",
                                 .fallback = "info",
                                 .choices = {"debug", "info", "warn", "error"}},
                                {.name = "most",
                                 .type = field_type::integer,
                                 .doc = "Lines in a second; those beyond are counted only.",
                                 .fallback = "10",
                                 .minimum = 1,
                                 .maximum = 1000}},
                   .shorthand = "text"},
      .examples = {"log: {}", "log: \"'order ' .. event.id\"", "log: {text: event.total, level: warn, most: 1}"},
  };
}

class log_step final : public step {
 public:
  log_step(const config::value& v, const component_context& context)
      : name_(context.label()),
        level_(spdlog::level::from_str(v.at("level").get<std::string>())),
        most_(v.at("most").get<std::int64_t>()) {
    if (v.contains("text")) text_.emplace(v.at("text").get<std::string>(), context.run_context.get());
  }

  void process(batch& events, step_output&) override {
    for (const event& e : events.events) {
      if (!spdlog::should_log(level_)) return;
      const auto now = clock::now();
      if (now - second_began_ >= std::chrono::seconds{1}) {
        tell_of_rest();
        second_began_ = now;
        lines_ = 0;
      }
      if (lines_ >= most_) {
        ++unwritten_;
        continue;
      }
      ++lines_;
      spdlog::log(level_, "{}: {}", name_, text_of(e));
    }
  }

  asio::awaitable<void> close() override {
    tell_of_rest();
    co_return;
  }

  bool stateless() const override { return true; }

 private:
  void tell_of_rest() {
    if (unwritten_ > 0) spdlog::log(level_, "{}: {} more were not written", name_, unwritten_);
    unwritten_ = 0;
  }

  // One line, whatever the event holds. An expression that fails is no reason to lose the event.
  std::string text_of(const event& e) const {
    std::string text;
    if (text_) {
      auto made = text_->text_or_json_of(e);
      text = made.failure.empty() ? made.value.value_or("nil") : "the text failed: " + made.failure;
    } else {
      append_ndjson(text, e);
      text.pop_back();
    }
    text = excerpt(text, most_text);
    for (char& c : text) c = static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    return text;
  }

  const std::string name_;
  const spdlog::level::level_enum level_;
  const std::int64_t most_;
  std::optional<lua_expression> text_;
  clock::time_point second_began_{};
  std::int64_t lines_ = 0, unwritten_ = 0;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<log_step>(settings, context);
        }));
}

}  // namespace penstock::runtime::components::log_step
