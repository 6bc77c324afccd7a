#include "scheduler/shared_names.hpp"

#include <algorithm>
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
const typename Index::mapped_type& values_of(const Index& index, const Key& key) {
  static const typename Index::mapped_type none;
  const auto found = index.find(key);
  return found == index.end() ? none : found->second;
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
  for (const auto& [name, topic] : definition.topics) index_topic(pipeline, topic, add);
  for (const auto& [name, slots] : definition.pools) {
    auto& all = pools_[name];
    if (add) {
      all.insert(slots);
    } else {
      all.erase(all.find(slots));
    }
    if (all.empty()) pools_.erase(name);
  }
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

void shared_names::index_topic(const std::string& pipeline, const config::topic& topic, bool add) {
  auto& all = topics_[topic.name];
  auto same = std::find_if(all.begin(), all.end(), [&](const declared& one) { return one.settings == topic; });
  if (add) {
    if (same == all.end()) same = all.insert(all.end(), {topic, {}});
    same->by.insert(pipeline);
  } else {
    same->by.erase(pipeline);
    if (same->by.empty()) all.erase(same);
  }
  if (all.empty()) topics_.erase(topic.name);
}

std::vector<problem> shared_names::conflicts(const config::pipeline& next) const {
  std::vector<problem> found;
  const auto add = [&](const std::string& pointer, std::string detail) { found.push_back({pointer, 0, 0, std::move(detail)}); };
  for (const auto& [name, topic] : next.topics) {
    for (const auto& [settings, by] : values_of(topics_, name)) {
      if (settings == topic) continue;
      for (const auto& other : by) {
        if (other == next.name) continue;
        add("/topics/" + name, "pipeline '" + other + "' declares topic '" + name + "' with other settings; write the same ones, or "
                               "leave it to '" + other + "'");
      }
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
  return found == pools_.end() ? 0 : *found->second.begin();
}

const std::set<job_path>& shared_names::followers(const job_path& followed) const { return values_of(followers_, followed); }

const std::set<job_path>& shared_names::triggered_by(const std::string& topic) const { return values_of(triggered_, topic); }

}  // namespace penstock::scheduler
