// from: topics - a flow's live reading of several topics as one stream, from its cursors on, for ever.
//
// Of the events at hand the one whose time is the earliest comes next, as long as each topic's own order allows; no topic
// is waited for. So old events of several topics come about in the order in which they happened, which is what windows
// and joins by event time need. An event's position counts the events of all topics (see topics_read.hpp); its topic is
// meta.topic. Where the list of topics has changed, those that stay go on where they were, and positions go on growing.
//
// Waits on the topics' commit notifications; an idle one costs no thread and no timer.
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/components/all.hpp"
#include "runtime/components/named_topic.hpp"
#include "runtime/topics_read.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime::components::topics_source {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "topics",
      .doc = "Events of several topics, as they arrive; where several wait, the one with the earliest time comes first. "
             "Each topic keeps its own order; meta.topic says which it was. Goes on where it was after a restart.",
      .settings =
          {.name = "topics",
           .type = field_type::object,
           .doc = "",
           .children = {{.name = "topics",
                         .type = field_type::list,
                         .doc = "The topics' names. Any pipeline may have declared them.",
                         .required = true,
                         .example = "[orders, payments]",
                         .children = {{.name = "topic", .type = field_type::name, .doc = "A topic.", .example = "orders"}},
                         .minimum = 1},
                        {.name = "start",
                         .type = field_type::choice,
                         .doc = "Where to begin in a topic of which nothing has been read yet: with the oldest event kept, "
                                "or with what arrives after the start.",
                         .fallback = "beginning",
                         .choices = {"beginning", "end"}}},
           .shorthand = "topics"},
      .examples = {"topics: [orders, payments]", "topics: {topics: [orders, payments], start: end}"},
      .bounded = false,
      .live = true,
  };
}

constexpr std::size_t most_bytes = 4 << 20;  // of payload in a batch, about

struct settings {
  std::vector<std::string> topics;
  bool start_at_end;
};

settings parse(const config::value& v) {
  settings s{v.at("topics").get<std::vector<std::string>>(), v.value("start", "beginning") == "end"};
  for (std::size_t i = 0; i < s.topics.size(); ++i) {
    for (std::size_t before = 0; before < i; ++before) {
      if (s.topics[before] == s.topics[i]) throw std::runtime_error("topic '" + s.topics[i] + "' is there twice");
    }
  }
  return s;
}

class topics_source final : public source {
 public:
  topics_source(settings s, const component_context& context)
      : settings_(std::move(s)),
        consumer_(context.consumer),
        topics_(context.services.topics),
        changed_(std::make_shared<wakeup>(context.executor)) {}

  void recall(const std::string& record, std::optional<std::int64_t> committed) override {
    recalled_ = topics_read::of(record);
    again_ = !committed || !recalled_->reached_by(*committed);
    exactly_ = committed.has_value();
    for (const auto& [name, read] : recalled_->topics) before_[name] = again_ ? read.before : read.after;
  }

  asio::awaitable<void> open(std::int64_t position) override {
    position_ = recalled_ ? recalled_->position + (again_ ? 0 : recalled_->events) : position;
    for (const std::string& name : settings_.topics) parts_.push_back(open_part(name));
    if (!again_) co_return;
    if (exactly_ && recalled_->topics.size() == parts_.size() && known_ == parts_.size()) {
      repeated_ = repeat();
    } else {
      read_as_new();
    }
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    if (repeated_) {
      record_.clear();  // it is stored already
      auto events = std::exchange(repeated_, std::nullopt);
      co_return std::move(*events);
    }
    while (!stopped_) {
      batch events = merge(most);
      if (!events.empty()) co_return std::move(events);
      co_await changed_->wait();
    }
    co_return std::nullopt;
  }

  std::string record() const override { return record_; }

  void stop_input() override {
    stopped_ = true;
    changed_->notify();
  }

 private:
  struct part {
    std::string name;
    std::shared_ptr<runtime::topic> topic;
    std::shared_ptr<topic::subscription> subscription;  // before topic goes
    std::int64_t taken = 0;                             // the last offset that has gone on
    std::int64_t until = 0;                             // what is there; fixed while a batch is made
    batch ahead{};                                      // read, from ahead.events[next] on still to go on
    std::size_t next = 0;

    // The next one, after reading ahead where that is wanted and nothing is left.
    const event* head(std::size_t read_ahead) {
      if (next == ahead.size() && read_ahead > 0 && taken < until) {
        ahead = topic->read(taken, read_ahead, until);
        next = 0;
        if (ahead.empty()) taken = until;  // all of them are past their time
      }
      return next < ahead.size() ? &ahead.events[next] : nullptr;
    }
  };

  part open_part(const std::string& name) {
    part p{name, named_topic(topics_, name), nullptr};
    p.subscription = p.topic->subscribe([changed = changed_](std::int64_t) { changed->notify(); });
    const auto known = before_.find(name);
    if (known != before_.end()) {
      p.taken = known->second;
      ++known_;
    } else if (settings_.start_at_end) {
      p.taken = p.topic->last_offset();
    }
    p.topic->require_reached(p.taken);
    return p;
  }

  // At most `most` events of all topics, the earliest first, with their positions and record. What arrives meanwhile waits,
  // so that the same events come in the same order again when they are repeated.
  batch merge(std::size_t most) {
    topics_read now{position_, 0, {}};
    for (part& p : parts_) {
      now.topics[p.name].before = p.taken;
      p.until = p.topic->last_offset();
    }
    batch merged;
    std::size_t bytes = 0;
    while (merged.size() < most && bytes < most_bytes && take_earliest(most, merged)) {
      bytes += merged.events.back().data.size();
    }
    for (const part& p : parts_) now.topics[p.name].after = p.taken;
    now.events = static_cast<std::int64_t>(merged.size());
    record_ = now.text();
    return merged;
  }

  // False: none is there.
  bool take_earliest(std::size_t read_ahead, batch& merged) {
    part* first = nullptr;
    const event* earliest = nullptr;
    for (part& p : parts_) {
      const event* const head = p.head(read_ahead);
      if (!head || (earliest && earliest->time <= head->time)) continue;
      first = &p;
      earliest = head;
    }
    if (!earliest) return false;
    event copy = merged.copy(*earliest);
    first->taken = earliest->position;
    ++first->next;
    copy.position = ++position_;
    merged.events.push_back(copy);
    return true;
  }

  // What was under way, after a change or with some of its events removed meanwhile: nothing is lost, though a sink may
  // get an event a second time, for the positions that it may have had go to nobody else.
  void read_as_new() { position_ += recalled_->events; }

  // The batch that was under way, event for event.
  std::optional<batch> repeat() {
    const auto wanted = static_cast<std::size_t>(recalled_->events);
    std::size_t found = 0;
    for (part& p : parts_) {
      const std::int64_t until = recalled_->topics.at(p.name).after;
      for (std::int64_t at = p.taken; at < until;) {
        batch more = p.topic->read(at, wanted, until);
        if (more.empty()) break;
        at = more.events.back().position;
        p.ahead.append(std::move(more));
      }
      found += p.ahead.size();
    }
    if (found != wanted) {
      spdlog::warn("{}: of {} events that were being read when it ended, {} are still kept; they may be repeated",
                   consumer_, wanted, found);
      for (part& p : parts_) p.ahead = {};
      read_as_new();
      return std::nullopt;
    }
    batch again;
    while (take_earliest(0, again)) continue;
    return again;
  }

  const settings settings_;
  const std::string consumer_;
  topics& topics_;
  std::shared_ptr<wakeup> changed_;
  std::vector<part> parts_;
  std::optional<topics_read> recalled_;  // the newest record before this start
  bool again_ = false;                   // its batch was perhaps not committed
  bool exactly_ = false;                 // certainly not, and nothing else was read since
  std::map<std::string, std::int64_t> before_;  // where to go on in the topics that were read before
  std::size_t known_ = 0;                // how many of our topics it has
  std::optional<batch> repeated_;        // that batch
  std::string record_;                   // of the batch that was read last
  std::int64_t position_ = 0;            // read so far
  bool stopped_ = false;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), parse), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<topics_source>(parse(v), context);
        }));
}

}  // namespace penstock::runtime::components::topics_source
