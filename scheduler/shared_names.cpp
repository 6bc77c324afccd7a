#include "scheduler/shared_names.hpp"

#include <algorithm>
#include <limits>
#include <variant>

#include "scheduler/flow_supervisor.hpp"

namespace penstock::scheduler {

namespace {

// The paths under /hooks that a definition receives at, and where in it each is.
std::map<std::string, std::string> hooks_of(const config::pipeline& definition) {
  std::map<std::string, std::string> hooks;
  for (const auto& [name, flow] : definition.flows) {
    if (const auto path = hook_path(flow); !path.empty()) hooks.emplace(path, "/flows/" + name);
  }
  for (const auto& [name, job] : definition.jobs) {
    for (const auto& trigger : job.triggers) {
      if (const auto* hook = std::get_if<config::webhook_trigger>(&trigger)) hooks.emplace(hook->path, "/jobs/" + name);
    }
  }
  return hooks;
}

// One value of an index whose empty entries go.
template <class Index, class Key, class Value>
void put(Index& index, const Key& key, const Value& value, bool add) {
  auto& values = index[key];
  if (add) {
    values.insert(value);
  } else {
    values.erase(value);
  }
  if (values.empty()) index.erase(key);
}

template <class Index, class Key>
typename Index::mapped_type values_of(const Index& index, const Key& key) {
  const auto found = index.find(key);
  return found == index.end() ? typename Index::mapped_type() : found->second;
}

}  // namespace

job_path followed_job(const config::after_trigger& trigger, const std::string& pipeline) {
  return {trigger.pipeline.empty() ? pipeline : trigger.pipeline, trigger.job};
}

void shared_names::define(const std::string& pipeline, std::shared_ptr<const config::pipeline> definition) {
  const auto before = definitions_.find(pipeline);
  if (before != definitions_.end()) {
    index(pipeline, *before->second, false);
    definitions_.erase(before);
  }
  if (!definition) return;
  index(pipeline, *definition, true);
  definitions_.emplace(pipeline, std::move(definition));
}

void shared_names::index(const std::string& pipeline, const config::pipeline& definition, bool add) {
  for (const auto& [name, topic] : definition.topics) put(topics_, name, pipeline, add);
  for (const auto& [name, slots] : definition.pools) put(pools_, name, pipeline, add);
  for (const auto& [path, where] : hooks_of(definition)) {
    auto& users = hooks_[path];
    users.erase(pipeline);
    if (add) users.emplace(pipeline, where);
    if (users.empty()) hooks_.erase(path);
  }
  for (const auto& [name, job] : definition.jobs) {
    const job_path own{pipeline, name};
    for (const auto& trigger : job.triggers) {
      if (const auto* after = std::get_if<config::after_trigger>(&trigger)) put(followers_, followed_job(*after, pipeline), own, add);
      if (const auto* topic = std::get_if<config::topic_trigger>(&trigger)) put(triggered_, topic->topic, own, add);
    }
  }
}

std::vector<problem> shared_names::conflicts(const config::pipeline& next) const {
  std::vector<problem> found;
  const auto add = [&](const std::string& pointer, std::string detail) { found.push_back({pointer, 0, 0, std::move(detail)}); };
  for (const auto& [name, topic] : next.topics) {
    for (const auto& other : values_of(topics_, name)) {
      if (other == next.name || definitions_.at(other)->topics.at(name) == topic) continue;
      add("/topics/" + name, "pipeline '" + other + "' declares topic '" + name + "' with other settings; write the same ones, or "
                             "leave it to '" + other + "'");
    }
  }
  for (const auto& [path, user] : hooks_of(next)) {
    for (const auto& [other, where] : values_of(hooks_, path)) {
      if (other != next.name) add(user, other + where + " receives at /hooks" + path + " already");
    }
  }
  return found;
}

std::string shared_names::hook_owner(const std::string& path) const {
  const auto found = hooks_.find(path);
  return found == hooks_.end() ? std::string() : found->second.begin()->first;
}

std::int64_t shared_names::slots(const std::string& pool) const {
  const auto found = pools_.find(pool);
  if (found == pools_.end()) return 0;
  auto fewest = std::numeric_limits<std::int64_t>::max();
  for (const auto& pipeline : found->second) fewest = std::min(fewest, definitions_.at(pipeline)->pools.at(pool));
  return fewest;
}

std::set<job_path> shared_names::followers(const job_path& followed) const { return values_of(followers_, followed); }

std::set<job_path> shared_names::triggered_by(const std::string& topic) const { return values_of(triggered_, topic); }

}  // namespace penstock::scheduler
