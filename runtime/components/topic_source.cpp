// from: topic - a flow's live reading of a topic, from its cursor on, for ever.
//
// Waits on the topic's commit notifications; an idle one costs no thread and no timer. An event's position is
// its offset.
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/named_topic.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime::components::topic_source {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "topic",
      .doc = "Events of a topic in order, as they arrive. Goes on where it was after a restart.",
      .settings =
          {.name = "topic",
           .type = field_type::object,
           .doc = "",
           .children = {{.name = "topic",
                         .type = field_type::name,
                         .doc = "The topic's name. Any pipeline may have declared it.",
                         .required = true,
                         .example = "orders"},
                        {.name = "start",
                         .type = field_type::choice,
                         .doc =
                             "Where to begin when nothing has been read yet: with the oldest event kept, or "
                             "with what arrives after the start.",
                         .fallback = "beginning",
                         .choices = {"beginning", "end"}}},
           .shorthand = "topic"},
      .examples = {"topic: orders", "topic: {topic: orders, start: end}"},
      .bounded = false,
      .live = true,
  };
}

struct settings {
  std::string topic;
  bool start_at_end;
};

settings parse(const config::value& v) {
  return {v.at("topic").get<std::string>(), v.value("start", "beginning") == "end"};
}

class topic_source final : public source {
 public:
  topic_source(settings s, const component_context& context)
      : settings_(std::move(s)),
        topics_(context.services.topics),
        changed_(std::make_shared<wakeup>(context.executor)) {}

  asio::awaitable<void> open(std::int64_t position) override {
    topic_ = named_topic(topics_, settings_.topic);
    subscription_ = topic_->subscribe([changed = changed_](std::int64_t) { changed->notify(); });
    topic_->require_reached(position);
    position_ = position == 0 && settings_.start_at_end ? topic_->last_offset() : position;
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (!stopped_) {
      batch events = topic_->read(position_, most);
      if (!events.empty()) {
        position_ = events.events.back().position;
        co_return std::move(events);
      }
      co_await changed_->wait();
    }
    co_return std::nullopt;
  }

  void stop_input() override {
    stopped_ = true;
    changed_->notify();
  }

 private:
  const settings settings_;
  topics& topics_;
  std::shared_ptr<wakeup> changed_;
  std::shared_ptr<topic> topic_;
  std::shared_ptr<topic::subscription> subscription_;  // before topic_ goes
  std::int64_t position_ = 0;                          // read so far
  bool stopped_ = false;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<topic_source>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::topic_source
