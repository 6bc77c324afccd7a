// from: generate - made-up events, for trying out a pipeline and for measuring one.
//
// The n-th event is {"n": n, …data}; n is also its position, so a restart goes on counting.
#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime::components::generate_source {

namespace {

using clock = asio::steady_timer::clock_type;

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "generate",
      .doc =
          "Made-up events `{\"n\": 1}`, `{\"n\": 2}`, … with the fields of `data` beside, to try out a "
          "pipeline.",
      .settings =
          {.name = "generate",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "count",
                 .type = field_type::integer,
                 .doc = "How many; without it they never end (then a job that reads them does not either).",
                 .example = "1000",
                 .minimum = 1},
                {.name = "every",
                 .type = field_type::duration,
                 .doc = "Time between two events; 0s: as fast as they are taken. Those that fell due while "
                        "the dataflow was busy follow at once.",
                 .fallback = "0s",
                 .example = "1s"},
                {.name = "data",
                 .type = field_type::map,
                 .doc = "Fields that every event has beside `n`.",
                 .example = "{station: north}",
                 .children = {{.name = "value", .type = field_type::any, .doc = "Any JSON value."}}}}},
      .examples = {"generate: {count: 1000}", "generate: {every: 1s, data: {station: north, value: 20.5}}"},
      .bounded = true,
      .live = true,
  };
}

struct settings {
  std::int64_t count;
  std::chrono::nanoseconds every;
  std::string tail;  // what follows the number in each payload: `,"station":"north"}`
};

settings parse(const config::value& v) {
  settings s{v.value("count", std::numeric_limits<std::int64_t>::max()),
             std::chrono::nanoseconds{v.value("every", std::int64_t{0})}, "}"};
  config::value data = v.value("data", config::value::object());
  data.erase("n");
  if (!data.empty()) s.tail = "," + data.dump().substr(1);
  return s;
}

class generate_source final : public source {
 public:
  generate_source(settings s, const component_context& context)
      : settings_(std::move(s)),
        name_("/" + context.consumer),
        stop_(std::make_shared<wakeup>(context.executor)),
        due_(clock::now()) {}

  asio::awaitable<void> open(std::int64_t position) override {
    made_ = position;
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    if (made_ >= settings_.count) co_return std::nullopt;
    while (!stopped_ && settings_.every.count() > 0 && clock::now() < due_) {
      co_await stop_->wait_until(due_);
    }
    if (stopped_) co_return std::nullopt;
    co_return make(std::min<std::int64_t>(due_by_now(most), settings_.count - made_));
  }

  void stop_input() override {
    stopped_ = true;
    stop_->notify();
  }

 private:
  // How many of at most `most` events are due; moves the due time past them.
  std::int64_t due_by_now(std::size_t most) {
    const auto limit = static_cast<std::int64_t>(most);
    if (settings_.every.count() == 0) return limit;
    const std::int64_t due = std::min<std::int64_t>(limit, 1 + (clock::now() - due_) / settings_.every);
    due_ += due * settings_.every;
    return due;
  }

  batch make(std::int64_t count) {
    batch events;
    events.events.reserve(static_cast<std::size_t>(count));
    const std::string_view name = events.keep(name_);
    const timestamp now = wall_now();
    for (std::int64_t i = 0; i < count; ++i) {
      const std::string n = std::to_string(++made_);
      event e;
      e.id = events.keep(n);
      e.source = name;
      e.type = "event";
      e.data = events.keep("{\"n\":" + n + settings_.tail);
      e.time = now;
      e.position = made_;
      events.events.push_back(e);
    }
    return events;
  }

  const settings settings_;
  const std::string name_;
  std::shared_ptr<wakeup> stop_;
  clock::time_point due_;  // of the next event
  std::int64_t made_ = 0;
  bool stopped_ = false;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<generate_source>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::generate_source
