#include "scheduler/live_pipeline.hpp"

#include <spdlog/spdlog.h>

#include "runtime/topic.hpp"
#include "scheduler/background.hpp"

namespace penstock::scheduler {

live_pipeline::live_pipeline(surroundings& around, std::string name)
    : around_(around), name_(std::move(name)) {}

void live_pipeline::declare_topics(const config::pipeline& next) {
  for (const auto& [name, topic] : next.topics) around_.offered.topics.declare(topic);
}

asio::awaitable<std::vector<problem>> live_pipeline::try_changed(std::shared_ptr<const pipeline_revision> next,
                                                                  std::chrono::nanoseconds limit) {
  std::vector<problem> failed;
  const auto changed = config::diff(current_->definition.get(), next->definition.get());
  if (record_.paused || !changed.flows.removed.empty() || changed.flows.changed.empty()) co_return failed;
  trial_.emplace();
  std::vector<std::string> were_at_work;
  flow_list leaving;
  for (const auto& name : changed.flows.changed) {
    const auto& flow = flows_.at(name);
    if (flow->at_work()) were_at_work.push_back(name);
    if (flow->alive()) trial_->alive.insert(name);
    trial_->replaced.emplace(name, flow);
    leaving.emplace(name_ + "/" + name, flow);
  }
  for (const auto& sentence : co_await stop_flows(around_, leaving, limit, flow_state::stopped)) spdlog::warn("{}", sentence);
  // Only what is missing: the settings of the others may not be taken back. It stays when the revision is refused, for it
  // may have taken events meanwhile; the next start of the daemon knows it no more.
  for (const auto& [name, topic] : next->definition->topics) {
    if (!around_.offered.topics.find(name)) around_.offered.topics.declare(topic);
  }
  for (const auto& [name, flow] : trial_->replaced) {
    flows_[name] = std::make_shared<flow_supervisor>(around_, next, name);
    flows_[name]->start(flow, true);
  }
  const auto begun = std::chrono::steady_clock::now();
  for (const auto& name : were_at_work) {
    const auto flow = flows_.at(name);
    const auto started = co_await flow->came_up(failed.empty() ? begun + start_patience : begun);
    if (started && !*started) failed.push_back({"/flows/" + name, 0, 0, "does not start: " + flow->reason()});
  }
  if (!failed.empty()) co_await put_back(limit);
  co_return failed;
}

asio::awaitable<void> live_pipeline::put_back(std::chrono::nanoseconds limit) {
  if (!trial_) co_return;
  const trial undone = std::move(*trial_);
  trial_.reset();
  flow_list leaving;
  for (const auto& [name, flow] : undone.replaced) leaving.emplace(name_ + "/" + name, flows_.at(name));
  for (const auto& sentence : co_await stop_flows(around_, leaving, limit, flow_state::stopped)) spdlog::warn("{}", sentence);
  for (const auto& [name, flow] : undone.replaced) {
    const auto tried = std::exchange(flows_[name], flow);
    if (undone.alive.contains(name)) flow->start(tried);
  }
}

asio::awaitable<std::vector<std::string>> live_pipeline::become(pipeline_record record,
                                                                std::shared_ptr<const pipeline_revision> next,
                                                                std::chrono::nanoseconds limit) {
  const config::pipeline* before = current_ ? current_->definition.get() : nullptr;
  const auto changed = config::diff(before, next->definition.get());

  flow_list removed, leaving;
  for (const auto& name : changed.flows.removed) removed.emplace(name_ + "/" + name, flows_.at(name));
  auto to_change = changed.flows.changed;
  if (trial_) std::erase_if(to_change, [this](const auto& name) { return trial_->replaced.contains(name); });
  const auto tried = std::exchange(trial_, std::nullopt);
  for (const auto& name : to_change) leaving.emplace(name_ + "/" + name, flows_.at(name));
  auto left_behind = co_await stop_flows(around_, removed, limit, flow_state::stopped, unfinished_work::emit);
  const auto others = co_await stop_flows(around_, leaving, limit, flow_state::stopped);
  left_behind.insert(left_behind.end(), others.begin(), others.end());
  for (const auto& name : changed.flows.removed) flows_.erase(name);
  for (const auto& name : to_change) flows_.erase(name);

  declare_topics(*next->definition);
  if (tried) {
    for (const auto& [name, replaced] : tried->replaced) flows_.at(name)->release();
  }
  std::vector<std::string> to_start = changed.flows.added;
  to_start.insert(to_start.end(), to_change.begin(), to_change.end());
  for (const auto& name : to_start) {
    flows_[name] = std::make_shared<flow_supervisor>(around_, next, name);
    if (record.paused) {
      co_await flows_[name]->stop(limit, flow_state::paused);
    } else {
      const auto replaced = leaving.find(name_ + "/" + name);
      flows_[name]->start(replaced == leaving.end() ? nullptr : replaced->second);
    }
  }

  record_ = std::move(record);
  current_ = next;
  around_.room.limit_pipeline(name_, next->definition->max_active);
  around_.room.hold_pipeline(name_, record_.paused);
  change_jobs(changed, next);
  co_return left_behind;
}

void live_pipeline::start_jobs() {
  for (auto& [name, job] : jobs_) job->start(record_.paused);
}

void live_pipeline::change_jobs(const config::pipeline_diff& changed,
                                const std::shared_ptr<const pipeline_revision>& next) {
  std::erase_if(retired_jobs_, [](const auto& job) { return job->idle(); });
  for (const auto& name : changed.jobs.removed) {
    jobs_.at(name)->retire();
    retired_jobs_.push_back(jobs_.at(name));
    jobs_.erase(name);
  }
  for (auto& [name, job] : jobs_) job->redefine(next);  // also unchanged ones: new runs belong to the new revision
  for (const auto& name : changed.jobs.added) {
    jobs_[name] = std::make_shared<job_supervisor>(around_, next, name);
  }
}

asio::awaitable<std::vector<std::string>> stop_flows(surroundings& around, flow_list flows,
                                                     std::chrono::nanoseconds limit, flow_state end_state,
                                                     unfinished_work what) {
  struct progress {
    std::size_t waiting = 0;
    std::vector<std::string> left_behind;
    std::shared_ptr<runtime::wakeup> one_ended;
  };
  const auto all = std::make_shared<progress>();
  all->one_ended = std::make_shared<runtime::wakeup>(around.where.control);
  const auto stop_one = [](std::shared_ptr<flow_supervisor> flow, std::string name, std::shared_ptr<progress> p,
                           std::chrono::nanoseconds most, flow_state end, unfinished_work open) -> asio::awaitable<void> {
    const bool ended = co_await flow->stop(most, end, open);
    if (!ended) p->left_behind.push_back(name + " did not end within " + format_duration(most));
    --p->waiting;
    p->one_ended->notify();
  };
  for (const auto& [name, flow] : flows) {
    ++all->waiting;
    in_background(around.where.control, "stop of flow " + name, stop_one(flow, "flow " + name, all, limit, end_state, what));
  }
  while (all->waiting > 0) co_await all->one_ended->wait();
  co_return all->left_behind;
}

flow_list live_pipeline::all_flows() const {
  flow_list all;
  for (const auto& [name, flow] : flows_) all.emplace(name_ + "/" + name, flow);
  return all;
}

asio::awaitable<void> live_pipeline::pause(std::chrono::nanoseconds limit) {
  record_.paused = true;
  around_.room.hold_pipeline(name_, true);
  for (auto& [name, job] : jobs_) job->pause(true);
  for (auto& job : retired_jobs_) job->pause(true);
  for (const auto& sentence : co_await stop_flows(around_, all_flows(), limit, flow_state::paused)) spdlog::warn("{}", sentence);
}

void live_pipeline::resume() {
  record_.paused = false;
  for (auto& [name, flow] : flows_) flow->start();
  around_.room.hold_pipeline(name_, false);
  for (auto& [name, job] : jobs_) job->pause(false);
  for (auto& job : retired_jobs_) job->pause(false);
}

void live_pipeline::retire_jobs() {
  around_.room.hold_pipeline(name_, false);  // nobody could resume it later, and its queued runs shall end
  for (auto& [name, job] : jobs_) {
    job->retire();
    job->pause(false);
    retired_jobs_.push_back(job);
  }
  jobs_.clear();
}

pipeline_view live_pipeline::view() const {
  pipeline_view v;
  v.record = record_;
  v.paused = record_.paused;
  if (current_) v.definition = current_->definition;
  for (const auto& [name, flow] : flows_) {
    v.flows.push_back(flow->view());
  }
  for (const auto& [name, job] : jobs_) v.jobs.push_back(job->view());
  return v;
}

}  // namespace penstock::scheduler
