// to: topic - appends to a topic.
//
// Exactly-once for events that have positions: the topic keeps this producer's highest position in the
// transaction that appends, and skips what comes again after a crash. Events without positions (webhooks) are
// at-least-once; the topic's own dedupe rule helps there.
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/named_topic.hpp"
#include "runtime/components/payload_check.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::topic_sink {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::sink,
      .name = "topic",
      .doc = "Appends events to a topic, durably and exactly once where the source has positions.",
      .settings = {.name = "topic",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "topic",
                                 .type = field_type::name,
                                 .doc = "The topic's name. Any pipeline may have declared it.",
                                 .required = true,
                                 .example = "orders"},
                                {.name = "key",
                                 .type = field_type::expression,
                                 .doc = "What each event's key becomes; without it events keep theirs.",
                                 .example = "event.customer.id"}},
                   .shorthand = "topic"},
      .examples = {"topic: orders", "topic: {topic: orders, key: event.customer.id}"},
  };
}

struct settings {
  std::string topic;
  std::string key;  // empty: none
};

settings parse(const config::value& v) { return {v.at("topic").get<std::string>(), v.value("key", "")}; }

class topic_sink final : public sink {
 public:
  topic_sink(settings s, const component_context& context)
      : settings_(std::move(s)), topics_(context.services.topics), producer_(context.consumer) {}

  asio::awaitable<void> open(const std::string&) override {
    topic_ = named_topic(topics_, settings_.topic);
    co_return;
  }

  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    write_result written;
    written.refused = malformed_events(*events);
    if (!settings_.key.empty() || !written.refused.empty()) events = prepared(*events, written.refused);
    if (events->empty()) co_return written;

    append_options options;
    if (events->events.back().position > 0) options.producer = producer_;
    const result<append_result> appended = co_await topic_->append(events, std::move(options));
    if (!appended) throw std::runtime_error("topic '" + settings_.topic + "': " + appended.error().detail);
    written.duplicates = appended->duplicates + appended->skipped;
    co_return written;
  }

  asio::awaitable<void> close() override { co_return; }

 private:
  // A copy without what was refused, and with new keys where they are asked for.
  std::shared_ptr<const batch> prepared(const batch& events,
                                        const std::vector<refused_event>& refused) const {
    auto copies = std::make_shared<batch>();
    for_each_accepted(events, refused, [&](const event& e) { copies->events.push_back(copies->copy(e)); });
    if (settings_.key.empty()) return copies;
    const std::vector<std::string> keys = evaluate_keys(settings_.key, *copies);
    for (std::size_t i = 0; i < keys.size(); ++i) copies->events[i].key = copies->keep(keys[i]);
    return copies;
  }

  const settings settings_;
  topics& topics_;
  const std::string producer_;
  std::shared_ptr<topic> topic_;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<topic_sink>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::topic_sink
