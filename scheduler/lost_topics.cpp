#include "scheduler/lost_topics.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <spdlog/spdlog.h>
#include <string>

#include "runtime/topic.hpp"
#include "scheduler/flow_supervisor.hpp"
#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {

namespace {

using offsets = std::map<std::string, std::int64_t>;

struct reader {
  std::int64_t offset = 0;  // how far it has read
  std::string pipeline;
  std::string name;  // of a flow or job
  std::string key;   // of the job's trigger; empty: a flow
};

// Of the topics that have no file, most of which never had an event.
class readers_of_lost {
 public:
  explicit readers_of_lost(surroundings& around) : around_(around) {
    for (const auto& topic : around.offered.topics.all()) {
      if (!topic->has_file()) by_topic_.try_emplace(topic->name());
    }
    if (by_topic_.empty()) return;
    for (auto& [consumer, offset] : around.offered.flows.cursors()) flow_cursors_.emplace(consumer, offset);
    for (auto& [trigger, offset] : around.store.cursors()) job_cursors_.emplace(trigger, offset);
  }

  void add(const pipeline_revision& revision) {
    for (const auto& [name, flow] : revision.definition->flows) {
      for (const auto& topic : topics_read_by(flow)) {
        const auto lost = by_topic_.find(topic);
        if (lost == by_topic_.end()) continue;
        const auto offset = stored_offset(around_.offered.flows, revision, flow, topic, flow_cursors_);
        lost->second.push_back({offset, revision.name, name, ""});
      }
    }
    for (const auto& [name, job] : revision.definition->jobs) {
      for (const auto& trigger : job.triggers) {
        const auto* by_topic = std::get_if<config::topic_trigger>(&trigger);
        const auto lost = by_topic ? by_topic_.find(by_topic->topic) : by_topic_.end();
        if (lost == by_topic_.end()) continue;
        const std::string key = trigger_key(trigger);
        const auto cursor = job_cursors_.find(revision.name + "/job/" + name + "/" + key);
        lost->second.push_back({cursor == job_cursors_.end() ? 0 : cursor->second, revision.name, name, key});
      }
    }
  }

  const std::map<std::string, std::vector<reader>>& by_topic() const { return by_topic_; }

 private:
  surroundings& around_;
  std::map<std::string, std::vector<reader>> by_topic_;
  offsets flow_cursors_, job_cursors_;
};

std::string who_was_behind(const std::vector<reader>& readers, std::int64_t furthest) {
  std::string words;
  for (const reader& r : readers) {
    if (r.offset == furthest) continue;
    words += fmt::format("{}{} {}/{} after {}", words.empty() ? "; not yet read by " : ", ", r.key.empty() ? "flow" : "job", r.pipeline,
                         r.name, r.offset);
  }
  return words;
}

asio::awaitable<void> go_on(surroundings& around, std::string topic, std::vector<reader> readers, std::int64_t furthest) {
  spdlog::warn("topic '{}' was read up to offset {}, but its file is lost with the events in it{}; it goes on after {}", topic,
               furthest, who_was_behind(readers, furthest), furthest);
  try {
    for (const reader& r : readers) {  // first, so that a crash between the two leaves no file, and all is done again
      if (!r.key.empty() && r.offset < furthest) co_await around.store.set_cursor(r.pipeline, r.name, r.key, furthest);
    }
    co_await around.offered.topics.find(topic)->go_on_after(furthest);
  } catch (const std::exception& e) {
    spdlog::error("topic '{}' cannot be made anew: {}", topic, e.what());  // its flows say so until the next start
  }
}

}  // namespace

asio::awaitable<void> go_on_in_lost_topics(surroundings& around, std::vector<std::shared_ptr<const pipeline_revision>> revisions) {
  readers_of_lost lost(around);
  if (lost.by_topic().empty()) co_return;
  for (const auto& revision : revisions) lost.add(*revision);
  for (const auto& [topic, readers] : lost.by_topic()) {
    std::int64_t furthest = 0;
    for (const reader& r : readers) furthest = std::max(furthest, r.offset);
    if (furthest > 0) co_await go_on(around, topic, readers, furthest);
  }
}

}  // namespace penstock::scheduler
