// What is there: finding it, what follows from a run's end, pauses, runs of an earlier start. Changes of a definition stand in
// pipeline_set_changes.cpp, the files that they come from in pipeline_set_files.cpp.
#include "scheduler/pipeline_set.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "runtime/flow_store.hpp"
#include "scheduler/alert_text.hpp"
#include "scheduler/lost_topics.hpp"

namespace penstock::scheduler {

namespace {

namespace fs = std::filesystem;

bool matches(config::after_outcome wanted, run_state ended) {
  switch (wanted) {
    case config::after_outcome::succeeded: return ended == run_state::succeeded;
    case config::after_outcome::failed: return ended == run_state::failed || ended == run_state::timed_out;
    case config::after_outcome::any: return ended != run_state::skipped;
  }
  return false;
}

// As a broken one is called that no file can be named for.
std::string stored_name(const pipeline_record& record) {
  return record.name + " (stored revision " + std::to_string(record.revision) + ")";
}

}  // namespace

error stopping_error() { return {errc::unavailable, "the daemon is stopping", {}, 5}; }

error not_found(const std::string& what, const std::string& name, const std::vector<std::string>& known) {
  const auto near = config::nearest(name, known);
  return {errc::not_found, "no " + what + " '" + name + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?")};
}

bool is_definition_file(const fs::path& file) {
  const auto ending = file.extension();
  return !file.filename().native().starts_with('.') && (ending == ".yaml" || ending == ".yml" || ending == ".json");
}

std::string shown_consumer(const std::string& consumer) { return consumer.substr(0, consumer.find('@')); }

pipeline_set::pipeline_set(surroundings& around, std::shared_ptr<runtime::wakeup> activity)
    : around_(around), activity_(std::move(activity)), loading_(around.where.control) {}

runtime::gate& pipeline_set::gate_of(const std::string& name) {
  auto& gate = gates_[name];
  if (!gate) gate = std::make_unique<runtime::gate>(around_.where.control);
  return *gate;
}

asio::awaitable<void> pipeline_set::close() {
  closed_ = true;
  std::vector<runtime::gate*> gates;
  for (const auto& [name, gate] : gates_) gates.push_back(gate.get());
  for (auto* gate : gates) held_.push_back(co_await gate->enter());
}

// ---- finding ----

result<std::shared_ptr<live_pipeline>> pipeline_set::find(const std::string& name) const {
  const auto found = live_.find(name);
  if (found != live_.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [other, pipeline] : live_) known.push_back(other);
  return not_found("pipeline", name, known);
}

result<std::shared_ptr<job_supervisor>> pipeline_set::find_job(const std::string& pipeline, const std::string& job) const {
  const auto live = find(pipeline);
  if (!live) return live.error();
  const auto found = (*live)->jobs().find(job);
  if (found != (*live)->jobs().end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, j] : (*live)->jobs()) known.push_back(name);
  return not_found("job", job, known);
}

result<std::shared_ptr<flow_supervisor>> pipeline_set::find_flow(const std::string& pipeline,
                                                                 const std::string& flow) const {
  const auto live = find(pipeline);
  if (!live) return live.error();
  const auto found = (*live)->flows().find(flow);
  if (found != (*live)->flows().end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, f] : (*live)->flows()) known.push_back(name);
  return not_found("flow", flow, known);
}

std::vector<std::shared_ptr<job_supervisor>> pipeline_set::all_jobs() const {
  auto jobs = retired_jobs_;
  for (const auto& [name, live] : live_) {
    for (const auto& [job_name, job] : live->jobs()) jobs.push_back(job);
    jobs.insert(jobs.end(), live->retired_jobs().begin(), live->retired_jobs().end());
  }
  return jobs;
}

std::vector<consumer_view> pipeline_set::consumers(const std::string& topic) const {
  std::vector<consumer_view> found;
  const auto log = around_.offered.topics.find(topic);
  if (!log) return found;
  const auto cursors = around_.offered.flows.cursors();
  const std::map<std::string, std::int64_t> positions(cursors.begin(), cursors.end());
  const auto add = [&](const std::string& consumer, std::int64_t cursor) {
    found.push_back({consumer, cursor, std::max<std::int64_t>(0, log->last_offset() - cursor)});
  };
  for (const auto& [name, live] : live_) {
    for (const auto& [flow_name, flow] : live->flows()) {
      if (!flow->reads_topic(topic)) continue;
      const auto at = positions.find(flow->consumer());
      add(shown_consumer(flow->consumer()), at == positions.end() ? 0 : flow->read_up_to(topic, at->second));
    }
    for (const auto& [job_name, job] : live->jobs()) {
      if (const auto cursor = job->cursor(topic)) add(name + "/job/" + job_name, *cursor);
    }
  }
  return found;
}

// ---- what follows from a run's end ----

std::vector<prepared_run> pipeline_set::dependents_of(const run_record& ended) {
  activity_->notify();
  std::vector<prepared_run> made;
  const job_path followed{ended.pipeline, ended.job};
  for (const auto& [pipeline, name] : names_.followers(followed)) {
    const auto job = find_job(pipeline, name);
    if (!job) continue;
    const auto& triggers = (*job)->definition().triggers;
    const bool follows = std::any_of(triggers.begin(), triggers.end(), [&](const auto& trigger) {
      const auto* t = std::get_if<config::after_trigger>(&trigger);
      return t && followed_job(*t, pipeline) == followed && matches(t->outcome, ended.state);
    });
    if (!follows) continue;
    auto run = (*job)->runs().draft(trigger_kind::after);
    run.upstream_run = ended.id;
    run.trace = child_context(ended);
    auto prepared = (*job)->runs().prepare(run);
    if (!prepared) prepared = prepared_run{{.run = skipped(std::move(run), prepared.error().detail)}, [](bool) {}};
    made.push_back(std::move(*prepared));
  }
  return made;
}

asio::awaitable<void> pipeline_set::follow(run_record ended) {
  auto dependents = dependents_of(ended);
  std::vector<new_run> rows;
  for (const auto& d : dependents) rows.push_back(d.made);
  try {
    if (!rows.empty()) co_await around_.store.create_runs(std::move(rows));
  } catch (...) {
    for (auto& d : dependents) d.settle(false);
    throw;
  }
  for (auto& d : dependents) d.settle(true);

  const auto revision = revision_of(ended);
  if (!revision) co_return;
  ended.revision = revision->revision;
  auto alerts = failure_alerts(ended, revision->definition->jobs.at(ended.job), around_.options.data);
  for (auto& alert : alerts) co_await around_.store.add_alert(std::move(alert));
  around_.alerts_wait->notify();
}

// The revision that has its job: its own, or the current one when that cannot be read any more. Null: neither has.
std::shared_ptr<const pipeline_revision> pipeline_set::revision_of(const run_record& run) const {
  if (const auto stored = around_.store.revision(run.pipeline, run.revision)) {
    const auto own = make_revision(*stored, around_.components.catalog(), around_.options.data);
    if (own && (*own)->definition->jobs.contains(run.job)) return *own;
  }
  const auto job = find_job(run.pipeline, run.job);
  return job ? (*job)->runs().revision() : nullptr;
}

// ---- what is stored, and what goes on ----

asio::awaitable<void> pipeline_set::load_stored() {
  std::vector<std::pair<pipeline_record, std::shared_ptr<const pipeline_revision>>> stored;
  for (auto& record : around_.store.pipelines()) {
    auto revision = make_revision(record, around_.components.catalog(), around_.options.data);
    if (revision) {
      stored.emplace_back(std::move(record), *revision);
      continue;
    }
    const error why = revision.error();
    spdlog::error("pipeline {} cannot be loaded: {}", record.name, why.detail);
    broken_[stored_name(record)] = why.problems;
    unreadable_.emplace(record.name, std::move(record));
  }
  for (const auto& [record, revision] : stored) {  // all topics first, whoever reads them
    for (const auto& [name, topic] : revision->definition->topics) around_.offered.topics.declare(topic);
  }
  std::vector<std::shared_ptr<const pipeline_revision>> revisions;
  for (const auto& [record, revision] : stored) revisions.push_back(revision);
  go_on_in_lost_topics(around_, revisions);
  for (auto& [record, revision] : stored) co_await bring_to_life(std::move(record), revision);
}

void pipeline_set::start_jobs() {
  for (const auto& [name, live] : live_) live->start_jobs();
}

asio::awaitable<result<void>> pipeline_set::pause(std::string name) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(name).enter();
  if (closed_) co_return stopping_error();
  const auto live = find(name);
  if (!live) co_return live.error();
  co_await around_.store.set_paused(name, true);
  co_await (*live)->pause(around_.options.drain_timeout);
  tell(name, "paused");
  co_return result<void>{};
}

asio::awaitable<result<void>> pipeline_set::resume(std::string name) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(name).enter();
  if (closed_) co_return stopping_error();
  const auto live = find(name);
  if (!live) co_return live.error();
  co_await around_.store.set_paused(name, false);
  (*live)->resume();
  tell(name, "resumed");
  co_return result<void>{};
}

asio::awaitable<result<void>> pipeline_set::start_flow(std::string pipeline, std::string flow) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(pipeline).enter();
  if (closed_) co_return stopping_error();
  const auto found = find_flow(pipeline, flow);
  if (!found) co_return found.error();
  if (live_.at(pipeline)->record().paused) co_return error{errc::conflict, "pipeline '" + pipeline + "' is paused"};
  (*found)->start();
  co_return result<void>{};
}

asio::awaitable<result<void>> pipeline_set::stop_flow(std::string pipeline, std::string flow, unfinished_work what) {
  if (closed_) co_return stopping_error();  // close() keeps the gates
  const auto pass = co_await gate_of(pipeline).enter();
  if (closed_) co_return stopping_error();
  const auto found = find_flow(pipeline, flow);
  if (!found) co_return found.error();
  const auto limit = around_.options.drain_timeout;
  const bool paused = live_.at(pipeline)->record().paused;
  const bool ended = co_await (*found)->stop(limit, paused ? flow_state::paused : flow_state::stopped, what);
  if (ended) co_return result<void>{};
  co_return error{errc::unavailable, "flow " + flow + " did not end within " + format_duration(limit) + "; it ends by itself", {}, 5};
}

std::string pipeline_set::hook_owner(const std::string& path) const { return names_.hook_owner(path); }

std::vector<broken_file> pipeline_set::broken_files() const {
  std::vector<broken_file> all;
  for (const auto& [file, problems] : broken_) all.push_back({file, problems});
  return all;
}

void pipeline_set::tell(const std::string& name, const char* what) {
  around_.changes.add({.kind = "pipeline", .pipeline = name, .state = what});
}

void pipeline_set::forget_unreadable(const std::string& name) {
  const auto found = unreadable_.find(name);
  if (found == unreadable_.end()) return;
  broken_.erase(stored_name(found->second));
  unreadable_.erase(found);
}

// ---- runs of an earlier start ----

std::shared_ptr<job_supervisor> pipeline_set::retired_job(std::shared_ptr<const pipeline_revision> revision,
                                                          const std::string& job) {
  auto made = std::make_shared<job_supervisor>(around_, std::move(revision), job);
  retired_jobs_.push_back(made);
  return made;
}

asio::awaitable<void> pipeline_set::take_over(run_record record) {
  const auto stored = around_.store.revision(record.pipeline, record.revision);
  std::string reason = "its definition is gone";
  if (stored) {
    const auto revision = make_revision(*stored, around_.components.catalog(), around_.options.data);
    if (!revision) reason = "its definition can no longer be read: " + revision.error().detail;
    if (revision && (*revision)->definition->jobs.contains(record.job)) {
      if (record.tasks.empty()) record.tasks = around_.store.run(record.id)->tasks;
      const auto known = find_job(record.pipeline, record.job);
      const auto job = known ? *known : retired_job(*revision, record.job);
      if (!known) {
        for (const auto& [pool, slots] : (*revision)->definition->pools) around_.room.limit_pool(pool, slots);
        share_pools(*(*revision)->definition);  // those that a live pipeline declares have their own size
      }
      for (const auto& [name, topic] : (*revision)->definition->topics) {
        if (!around_.offered.topics.find(name)) around_.offered.topics.declare(topic);  // its input may be there
      }
      job->runs().take_over(std::move(record), *revision);
      if (!known) {
        job->retire();  // before it starts, so that its triggers make nothing
        job->start(false);
      }
      co_return;
    }
  }
  run_end end{.run = record.id, .state = run_state::failed, .reason = reason, .at = wall_now(), .tasks = record.tasks};
  record.state = end.state;
  record.reason = end.reason;
  record.ended_at = end.at;
  co_await around_.store.finish_run(std::move(end));
  co_await follow(std::move(record));
}

void pipeline_set::forget_idle_jobs() {
  const auto idle = std::partition(retired_jobs_.begin(), retired_jobs_.end(), [](const auto& job) { return !job->idle(); });
  std::set<std::string> left;
  for (auto at = idle; at != retired_jobs_.end(); ++at) left.insert((*at)->runs().pipeline());
  retired_jobs_.erase(idle, retired_jobs_.end());
  for (const auto& job : retired_jobs_) left.erase(job->runs().pipeline());
  for (const auto& name : left) {
    if (!live_.contains(name)) around_.room.forget_pipeline(name);
  }
}

}  // namespace penstock::scheduler
