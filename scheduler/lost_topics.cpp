#include "scheduler/lost_topics.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <spdlog/spdlog.h>
#include <string>
#include <string_view>

#include "runtime/dataflow_run.hpp"
#include "runtime/topic.hpp"
#include "scheduler/flow_supervisor.hpp"

namespace penstock::scheduler {

namespace {

struct reader {
  std::string name;  // "flow PIPELINE/FLOW", "job PIPELINE/JOB"
  std::int64_t offset = 0;  // how far it has read
};
using readers = std::map<std::string, std::vector<reader>>;  // by topic, of those that have nothing

struct topic_trigger_name {
  std::string job, topic;  // "PIPELINE/JOB"
};

// PIPELINE/job/JOB/topic:TOPIC; nothing: it is another kind of trigger.
std::optional<topic_trigger_name> parse_trigger(const std::string& trigger) {
  constexpr std::string_view kind = "/job/", watches = "/topic:";
  const auto job = trigger.find(kind);
  const auto topic = trigger.rfind(watches);
  if (job == trigger.npos || topic == trigger.npos) return std::nullopt;
  const auto name = job + kind.size();
  return topic_trigger_name{trigger.substr(0, job) + "/" + trigger.substr(name, topic - name), trigger.substr(topic + watches.size())};
}

using positions = std::map<std::string, std::int64_t>;  // of triggers, by name; of flows, by consumer

// Only these can be lost, and only these are opened: a start does not touch thousands of topics that nobody reads.
std::set<std::string> topics_that_were_read(surroundings& around, const std::vector<std::shared_ptr<const pipeline_revision>>& revisions,
                                            const positions& triggers, const positions& flows) {
  std::set<std::string> read;
  for (const auto& [trigger, offset] : triggers) {
    if (const auto name = parse_trigger(trigger); name && offset > 0) read.insert(name->topic);
  }
  for (const auto& revision : revisions) {
    for (const auto& [name, flow] : revision->definition->flows) {
      for (const auto& topic : topics_read_by(flow)) {
        try {
          if (stored_offset(around.offered.flows, *revision, flow, topic, flows) > 0) read.insert(topic);
        } catch (const std::exception&) {
          read.insert(topic);  // add_flows() says why it is not known
        }
      }
    }
  }
  return read;
}

// Triggers, also those that are no longer defined.
void add_jobs(const positions& triggers, readers& all) {
  for (const auto& [trigger, offset] : triggers) {
    const auto name = parse_trigger(trigger);
    if (!name) continue;
    if (const auto lost = all.find(name->topic); lost != all.end()) lost->second.push_back({"job " + name->job, offset});
  }
}

void add_flows(surroundings& around, const pipeline_revision& revision, const positions& cursors, readers& all) {
  auto& flows = around.offered.flows;
  for (const auto& [name, flow] : revision.definition->flows) {
    for (const auto& topic : topics_read_by(flow)) {
      const auto lost = all.find(topic);
      if (lost == all.end()) continue;
      try {
        const auto offset = stored_offset(flows, revision, flow, topic, cursors);
        const bool counts = offset == 0 || has_read_its_input(flows, around.components.catalog(), revision, flow);
        lost->second.push_back({"flow " + revision.name + "/" + name, counts ? offset : 0});
      } catch (const std::exception& e) {
        spdlog::error("flow {}/{}: how far it has read topic '{}' is not known: {}", revision.name, name, topic, e.what());
      }
    }
  }
}

std::string who_was_behind(const std::vector<reader>& all, std::int64_t furthest) {
  std::string words;
  for (const reader& r : all) {
    if (r.offset < furthest) words += fmt::format("{}{} after {}", words.empty() ? "; not yet read by " : ", ", r.name, r.offset);
  }
  return words;
}

// It never had an event, or its file is lost, or one that is to replace that was not finished.
bool has_nothing(runtime::topic& topic) {
  try {
    return topic.last_offset() == 0;
  } catch (const std::exception& e) {
    spdlog::error("topic '{}' cannot be looked at: {}", topic.name(), e.what());  // its readers say so, too
    return false;
  }
}

// What a flow has handed to a sink that takes each position once is perhaps not yet counted as read: at most a batch.
std::int64_t perhaps_read(const reader& r) {
  return r.offset + (r.name.starts_with("flow ") ? static_cast<std::int64_t>(runtime::most_batch_events) : 0);
}

void look_after(runtime::topic& topic, const std::vector<reader>& all) {
  std::int64_t furthest = 0, next = 0;
  for (const reader& r : all) {
    furthest = std::max(furthest, r.offset);
    next = std::max(next, perhaps_read(r));
  }
  if (furthest == 0) return;
  spdlog::warn("topic '{}' was read up to offset {}, but its file is lost with the events in it{}; it goes on after {}", topic.name(),
               furthest, who_was_behind(all, furthest), next);
  topic.go_on_after(next);
}

}  // namespace

void go_on_in_lost_topics(surroundings& around, const std::vector<std::shared_ptr<const pipeline_revision>>& revisions) {
  readers all;
  const auto triggers = around.store.cursors(), cursors = around.offered.flows.cursors();
  const positions of_triggers(triggers.begin(), triggers.end()), of_flows(cursors.begin(), cursors.end());
  for (const auto& name : topics_that_were_read(around, revisions, of_triggers, of_flows)) {
    const auto topic = around.offered.topics.find(name);
    if (topic && has_nothing(*topic)) all.try_emplace(name);
  }
  if (all.empty()) return;
  add_jobs(of_triggers, all);
  for (const auto& revision : revisions) add_flows(around, *revision, of_flows, all);
  for (const auto& [name, of_topic] : all) {
    const auto topic = around.offered.topics.find(name);
    try {
      if (topic) look_after(*topic, of_topic);
    } catch (const std::exception& e) {
      spdlog::error("topic '{}' cannot be looked at: {}", name, e.what());  // its readers say so, too
    }
  }
}

}  // namespace penstock::scheduler
