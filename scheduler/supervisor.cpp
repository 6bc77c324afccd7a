#include "scheduler/supervisor.hpp"

#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "runtime/command_run.hpp"
#include "runtime/clock_watch.hpp"
#include "runtime/output_file.hpp"
#include "scheduler/alert_desk.hpp"
#include "scheduler/background.hpp"
#include "scheduler/backup_desk.hpp"
#include "scheduler/dead_letter_desk.hpp"
#include "scheduler/definition_watch.hpp"
#include "scheduler/maintenance.hpp"
#include "scheduler/pipeline_set.hpp"
#include "scheduler/run_maker.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;

// How long a stop waits for alerts that are on their way.
constexpr std::chrono::seconds alert_patience{5};
constexpr std::chrono::seconds backup_patience{5};  // a slice of it and a sync

steady::time_point in(std::chrono::nanoseconds time) {
  return steady::now() + std::chrono::duration_cast<steady::duration>(time);
}

}  // namespace

struct supervisor::impl {
  impl(executors where, scheduler::store& state, runtime::services& offered, const runtime::registry& components,
       supervisor_options options)
      : around{where, state, offered, components, options,
               dispatcher(where.control, options.max_active_runs, options.priority_ageing),
               std::make_shared<runtime::wakeup>(where.control)},
        activity(std::make_shared<runtime::wakeup>(around.where.control)),
        pipelines(around, activity),
        runs(around, pipelines),
        dead_letters(around, pipelines, runs),
        alerts(around, pipelines),
        upkeep(around, pipelines, activity),
        tokens(state, around.options.tokens, around.options.data / token_book::mark_name),
        backups(around),
        clock(std::in_place, where.control, [this] { clock_was_set(); }) {
    around.dependents = [this](const run_record& ended) { return pipelines.dependents_of(ended); };
  }

  surroundings around;
  std::shared_ptr<runtime::wakeup> activity;
  pipeline_set pipelines;
  run_maker runs;
  dead_letter_desk dead_letters;
  alert_desk alerts;
  maintenance upkeep;
  token_book tokens;
  backup_desk backups;
  std::optional<definition_watch> definitions;
  std::optional<runtime::clock_watch> clock;
  bool stopping = false;

  void clock_was_set();
  run_record shown(run_record run) const;
  asio::awaitable<void> let_runs_end(steady::time_point deadline);
  asio::awaitable<void> cut_off_runs(std::vector<std::string>& forced);
};

supervisor::supervisor(executors where, store& state, runtime::services& offered, const runtime::registry& components,
                       supervisor_options options)
    : impl_(std::make_unique<impl>(std::move(where), state, offered, components, std::move(options))) {}

supervisor::~supervisor() = default;

// ---- start and stop ----

asio::awaitable<void> supervisor::start(std::filesystem::path definitions) {
  auto& s = *impl_;
  if (const int killed = runtime::kill_orphans(s.around.options.instance); killed > 0) {
    spdlog::warn("ended {} processes that an earlier daemon left behind", killed);
  }
  runtime::remove_left_output_files(s.around.options.scratch());
  const auto found = co_await s.around.store.recover(wall_now());
  const auto& unfinished = found.unfinished;
  if (!definitions.empty()) co_await s.pipelines.take_up_files(std::move(definitions));
  co_await s.pipelines.load_stored();
  for (const auto& run : unfinished) co_await s.pipelines.take_over(run);
  for (const auto& run : found.failed) co_await s.pipelines.follow(run);
  s.pipelines.start_jobs();
  if (!unfinished.empty()) spdlog::info("{} unfinished runs taken up again", unfinished.size());
  in_background(s.around.where.control, "maintenance", s.upkeep.run());
  in_background(s.around.where.control, "alerts", s.alerts.run());
  in_background(s.around.where.control, "starts", s.around.starts.run());
}

asio::awaitable<stop_report> supervisor::stop() {
  auto& s = *impl_;
  s.stopping = true;
  const auto deadline = in(s.around.options.drain_timeout);
  stop_report report;

  if (s.definitions) s.definitions->stop();
  s.backups.stop();
  co_await s.pipelines.close();
  s.upkeep.stop();
  s.alerts.stop();
  s.clock.reset();
  s.around.room.stop();
  for (const auto& job : s.pipelines.all_jobs()) job->stop();
  for (const auto& job : s.pipelines.all_jobs()) {
    while (job->runs().has_arriving()) co_await asio::post(s.around.where.control, asio::use_awaitable);
  }
  flow_list flows;
  for (const auto& [name, pipeline] : s.pipelines.live()) flows.merge(pipeline->all_flows());
  report.forced = co_await stop_flows(s.around, std::move(flows), s.around.options.drain_timeout, flow_state::stopped);
  report.hangs = !report.forced.empty();

  co_await s.let_runs_end(deadline);
  co_await s.cut_off_runs(report.forced);
  s.around.starts.stop();
  co_await s.alerts.finish(alert_patience);
  if (const int left = s.alerts.on_their_way(); left > 0) {
    report.forced.push_back(std::to_string(left) + " alerts were not taken in time and will be delivered after the next start");
    report.hangs = true;
  }
  if (std::string left = co_await s.backups.finish(in(backup_patience)); !left.empty()) {
    report.forced.push_back(std::move(left));
    report.hangs = true;
  }
  s.around.audit.stop();
  for (const auto& job : s.pipelines.all_jobs()) job->let_go();
  report.hangs = report.hangs || s.around.hanging_tasks > 0;
  co_return report;
}

// A run that pauses before its next attempt, now or later, has nothing to finish; one that still takes events in is told
// that they end.
asio::awaitable<void> supervisor::impl::let_runs_end(steady::time_point deadline) {
  const auto unfinished = around.unfinished;
  for (const auto& [id, run] : unfinished) {
    if (!run->executing()) continue;
    run->let_end();
    if (run->record().input.open) {
      try {
        co_await around.store.close_input(id);
      } catch (const std::exception& e) {
        spdlog::error("run {}: that its input has ended cannot be stored: {}", id, e.what());
      }
      run->close_input();
    }
  }
  for (const auto& [id, run] : unfinished) {
    if (run->executing()) co_await run->wait_for_end(deadline);
  }
}

asio::awaitable<void> supervisor::impl::cut_off_runs(std::vector<std::string>& forced) {
  const auto left = around.unfinished;
  for (const auto& [id, run] : left) {
    if (run->executing()) run->interrupt();
  }
  for (const auto& [id, run] : left) {
    if (!run->executing()) continue;
    forced.push_back("run " + id + " of " + run->record().pipeline + "/" + run->record().job +
                     " was interrupted and will be taken up again");
    co_await run->wait_for_end(in(run->job().grace + std::chrono::seconds(6)));
  }
}

// What a queued run waits for changes all the time, so it is looked up when somebody asks.
run_record supervisor::impl::shown(run_record run) const {
  if (run.state != run_state::queued) return run;
  if (auto why = around.room.why_waiting(run.id); !why.empty()) run.waiting_reason = std::move(why);
  return run;
}

// Schedules, deadlines and pauses wait by the steady clock; when the other one is set, they have to look again.
void supervisor::impl::clock_was_set() {
  spdlog::warn("the clock was set; schedules go by what it shows now");
  for (const auto& job : pipelines.all_jobs()) job->clock_was_set();
  activity->notify();  // what is kept for a time may be due
  around.alerts_wait->notify();
}

bool supervisor::stopping() const { return impl_->stopping; }

// ---- pipelines ----

asio::awaitable<result<apply_answer>> supervisor::apply(apply_request request) {
  return impl_->pipelines.apply(std::move(request));
}

asio::awaitable<result<apply_answer>> supervisor::rollback(rollback_request request) {
  return impl_->pipelines.rollback(std::move(request));
}

result<std::vector<pipeline_record>> supervisor::revisions(const std::string& name) {
  const auto live = impl_->pipelines.find(name);
  if (!live) return live.error();
  return impl_->around.store.revisions(name);
}

result<pipeline_record> supervisor::revision(const std::string& name, std::int64_t revision) {
  return impl_->pipelines.revision(name, revision);
}

asio::awaitable<result<void>> supervisor::remove(std::string name, std::string if_match) {
  return impl_->pipelines.remove(std::move(name), std::move(if_match));
}

asio::awaitable<result<void>> supervisor::pause(std::string name) { return impl_->pipelines.pause(std::move(name)); }

asio::awaitable<result<void>> supervisor::resume(std::string name) { return impl_->pipelines.resume(std::move(name)); }

std::vector<pipeline_view> supervisor::pipelines() {
  std::vector<pipeline_view> views;
  for (const auto& [name, live] : impl_->pipelines.live()) views.push_back(live->view());
  return views;
}

result<pipeline_view> supervisor::pipeline(const std::string& name) {
  const auto live = impl_->pipelines.find(name);
  if (!live) return live.error();
  auto view = (*live)->view();
  for (auto& job : view.jobs) job.runs = impl_->around.store.count_by_state(name, job.name);
  return view;
}

asio::awaitable<void> supervisor::load_folder(std::filesystem::path folder) {
  return impl_->pipelines.load_folder(std::move(folder));
}

asio::awaitable<void> supervisor::follow_folder(std::filesystem::path folder) {
  auto& s = *impl_;
  s.definitions.emplace(s.around.where.control, s.pipelines, std::filesystem::absolute(folder).lexically_normal());
  s.definitions->begin();
  co_await s.pipelines.load_folder(std::move(folder));
  in_background(s.around.where.control, "definitions", s.definitions->run());
}

std::vector<broken_file> supervisor::broken_files() const { return impl_->pipelines.broken_files(); }

std::shared_ptr<const config::pipeline> supervisor::definition(const std::string& name) const {
  const auto& live = impl_->pipelines.live();
  const auto found = live.find(name);
  return found == live.end() ? nullptr : found->second->current()->definition;
}

std::string supervisor::hook_owner(const std::string& path) const { return impl_->pipelines.hook_owner(path); }

change_log& supervisor::changes() { return impl_->around.changes; }
token_book& supervisor::tokens() { return impl_->tokens; }
audit_desk& supervisor::audit() { return impl_->around.audit; }

result<flow_view> supervisor::flow(const std::string& pipeline, const std::string& name) {
  const auto found = impl_->pipelines.find_flow(pipeline, name);
  if (!found) return found.error();
  return (*found)->view();
}

asio::awaitable<result<void>> supervisor::start_flow(std::string pipeline, std::string flow) {
  return impl_->pipelines.start_flow(std::move(pipeline), std::move(flow));
}

asio::awaitable<result<void>> supervisor::stop_flow(std::string pipeline, std::string flow, bool emit) {
  return impl_->pipelines.stop_flow(std::move(pipeline), std::move(flow), emit ? unfinished_work::emit : unfinished_work::keep);
}

asio::awaitable<result<void>> supervisor::restart_flow(std::string pipeline, std::string flow) {
  const auto stopped = co_await impl_->pipelines.stop_flow(pipeline, flow, unfinished_work::keep);
  // One that did not end in time starts when it has.
  if (!stopped && stopped.error().code != errc::unavailable) co_return stopped.error();
  co_return co_await impl_->pipelines.start_flow(std::move(pipeline), std::move(flow));
}

result<std::shared_ptr<runtime::tap>> supervisor::listen(const std::string& pipeline, const std::string& flow,
                                                         runtime::tap_options options) {
  const auto found = impl_->pipelines.find_flow(pipeline, flow);
  if (!found) return found.error();
  return (*found)->listen(std::move(options));
}

// ---- runs ----

asio::awaitable<result<trigger_answer>> supervisor::trigger(std::string pipeline, std::string job, trigger_request request) {
  if (impl_->stopping) co_return error{errc::unavailable, "the daemon is stopping", {}, 5};
  co_return co_await impl_->runs.trigger(std::move(pipeline), std::move(job), std::move(request));
}

result<run_record> supervisor::run(const std::string& id) {
  const auto live = impl_->around.unfinished.find(id);
  if (live != impl_->around.unfinished.end()) return impl_->shown(live->second->record());
  const auto stored = impl_->around.store.run(id);
  if (!stored) return error{errc::not_found, "no run '" + id + "'"};
  return *stored;
}

std::vector<run_record> supervisor::runs(const run_filter& filter) {
  auto found = impl_->around.store.runs(filter);
  for (auto& run : found) run = impl_->shown(std::move(run));
  return found;
}

std::vector<timeline_entry> supervisor::timeline(const std::string& run) { return impl_->around.store.timeline(run); }

asio::awaitable<result<run_record>> supervisor::wait_for_end(std::string id, std::chrono::nanoseconds limit) {
  const auto deadline = steady::now() + std::chrono::duration_cast<steady::duration>(limit);
  co_await impl_->around.arriving.over(id);
  const auto live = impl_->around.unfinished.find(id);
  if (live == impl_->around.unfinished.end()) co_return run(id);
  const auto waited_for = live->second;
  co_await waited_for->wait_for_end(deadline);
  co_return impl_->shown(waited_for->record());
}

asio::awaitable<result<void>> supervisor::cancel(std::string id) {
  co_await impl_->around.arriving.over(id);
  const auto live = impl_->around.unfinished.find(id);
  if (live == impl_->around.unfinished.end()) {
    const auto stored = run(id);
    if (!stored) co_return stored.error();
    co_return error{errc::conflict, "run " + id + " has ended already: " + std::string(token(stored->state))};
  }
  live->second->cancel("cancelled by request");
  co_return result<void>{};
}

asio::awaitable<result<trigger_answer>> supervisor::retry(std::string id, bool from_start, trace_context trace,
                                                          std::string idempotency_key) {
  std::optional<idempotency> once;
  if (!idempotency_key.empty()) once = idempotency{std::move(idempotency_key), "retry of " + id, from_start ? "start" : "failed"};
  return impl_->runs.retry(std::move(id), from_start, std::move(once), std::move(trace));
}

asio::awaitable<result<backfill_answer>> supervisor::backfill(std::string pipeline, std::string job, backfill_request request) {
  if (impl_->stopping) co_return error{errc::unavailable, "the daemon is stopping", {}, 5};
  co_return co_await impl_->runs.backfill(std::move(pipeline), std::move(job), std::move(request));
}

std::filesystem::path supervisor::log_file(const std::string& run, const std::string& task) const {
  return impl_->around.options.data / "logs" / run / (task + ".log");
}

// ---- topics and dead letters ----

std::vector<consumer_view> supervisor::consumers(const std::string& topic) { return impl_->pipelines.consumers(topic); }

std::vector<dead_letter_view> supervisor::dead_letters(const std::string& pipeline, const std::string& after_id,
                                                       std::size_t limit) {
  return impl_->dead_letters.list(pipeline, after_id, limit);
}

std::int64_t supervisor::count_dead_letters() { return impl_->dead_letters.count(); }

asio::awaitable<result<settled>> supervisor::replay_dead_letters(std::vector<std::string> ids) {
  return impl_->dead_letters.replay(std::move(ids));
}

asio::awaitable<result<settled>> supervisor::discard_dead_letters(std::vector<std::string> ids) {
  return impl_->dead_letters.discard(std::move(ids));
}

// ---- storage ----

namespace {

// `queue`: a store or topic; what it says once it has been tried again.
template <class Queue>
asio::awaitable<std::optional<std::string>> lasting_trouble(Queue& queue) {
  if (!queue.trouble()) co_return std::nullopt;
  try {
    co_await queue.probe();
  } catch (const std::exception&) {
    // trouble() says it, unless the topic is gone
  }
  co_return queue.trouble();
}

}  // namespace

asio::awaitable<std::optional<std::string>> supervisor::storage_trouble() {
  auto& around = impl_->around;
  if (auto why = co_await lasting_trouble(around.store)) co_return why;
  if (auto why = co_await lasting_trouble(around.offered.flows)) co_return why;
  const auto topics = around.offered.topics.all();
  for (const auto& topic : topics) {
    if (auto why = co_await lasting_trouble(*topic)) co_return why;
  }
  co_return std::nullopt;
}

// ---- backup ----

result<void> supervisor::start_backup(backup_request request) { return impl_->backups.start(std::move(request)); }
backup_view supervisor::backup() const { return impl_->backups.view(); }
void supervisor::follow_backup(const std::shared_ptr<runtime::wakeup>& follower) { impl_->backups.follow(follower); }
result<void> supervisor::cancel_backup() { return impl_->backups.cancel(); }

}  // namespace penstock::scheduler
