// to: subscribers - shows events to everyone who is connected to GET /v1/streams/NAME.
//
// Waits for no reader (see subscribers.hpp). Nothing here is durable: an event that comes again after a crash is shown
// again, and one that nobody saw is gone. Several flows may feed one stream. Events that say they are JSON and are not
// become dead letters.
#include <memory>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/payload_check.hpp"
#include "runtime/subscribers.hpp"

namespace penstock::runtime::components::subscribers_sink {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::sink,
      .name = "subscribers",
      .doc = "Shows events to everyone who is connected to GET /v1/streams/NAME, as server-sent events or over a WebSocket. "
             "Not durable.",
      .settings = {.name = "subscribers",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "name",
                                 .type = field_type::name,
                                 .doc = "The stream's name. Several flows may feed one stream.",
                                 .required = true,
                                 .example = "prices"},
                                {.name = "keep",
                                 .type = field_type::integer,
                                 .doc = "Events kept in memory for subscribers who come back.",
                                 .fallback = "1000",
                                 .minimum = 1},
                                {.name = "size",
                                 .type = field_type::size,
                                 .doc = "Bytes kept at most, for those who come back and those who are slow; a subscriber who "
                                        "falls further behind is closed.",
                                 .fallback = "4MiB",
                                 .minimum = 1}},
                   .shorthand = "name"},
      .examples = {"subscribers: prices", "subscribers: {name: prices, keep: 10000, size: 16MiB}"},
  };
}

class subscribers_sink final : public sink {
 public:
  subscribers_sink(const config::value& v, const component_context& context)
      : door_(context.services.subscribers),
        name_(v.at("name").get<std::string>()),
        limits_{v.value("keep", std::size_t{1000}), v.value("size", std::size_t{4} << 20)} {}

  asio::awaitable<void> open(const std::string&) override {
    stream_ = door_.hold(name_, limits_);
    co_return;
  }

  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    write_result written;
    written.refused = malformed_events(*events);
    if (written.refused.empty()) {
      stream_->publish(*events);
    } else {
      batch good;
      for_each_accepted(*events, written.refused, [&good](const event& e) { good.events.push_back(e); });
      stream_->publish(good);
    }
    co_return written;
  }

  asio::awaitable<void> close() override { co_return; }

 private:
  subscribers& door_;
  const std::string name_;
  const stream_limits limits_;
  std::shared_ptr<live_stream> stream_;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<subscribers_sink>(v, context);
        }));
}

}  // namespace penstock::runtime::components::subscribers_sink
