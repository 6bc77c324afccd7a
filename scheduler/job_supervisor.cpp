#include "scheduler/job_supervisor.hpp"

#include <spdlog/spdlog.h>

#include "runtime/ulid.hpp"
#include "scheduler/background.hpp"
#include "scheduler/cron.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;
using std::chrono::microseconds;

// A schedule that fires no later than this after its time was not missed; the policy for missed ones is for longer gaps.
constexpr std::chrono::minutes on_time{1};
constexpr std::size_t most_missed = 1000;

steady::time_point steady_time(timestamp wall) {
  return steady::now() + std::chrono::duration_cast<steady::duration>(wall - wall_now());
}

std::optional<timestamp> earlier(std::optional<timestamp> a, std::optional<timestamp> b) {
  if (!a) return b;
  if (!b) return a;
  return std::min(*a, *b);
}

template <class... F>
struct overloaded : F... {
  using F::operator()...;
};
template <class... F>
overloaded(F...) -> overloaded<F...>;

std::string in_words(const config::trigger& trigger) {
  return std::visit(overloaded{[](const config::topic_trigger& t) {
                                 std::string text = "topic " + t.topic + ", up to " + std::to_string(t.max_events) + " events";
                                 if (t.max_wait.count() > 0) text += " or " + format_duration(t.max_wait);
                                 if (t.grace_period.count() > 0) text += ", grace " + format_duration(t.grace_period);
                                 return text;
                               },
                               [](const config::cron_trigger& t) { return "cron " + t.expression.text + " " + t.timezone; },
                               [](const config::every_trigger& t) { return "every " + format_duration(t.interval); },
                               [](const config::after_trigger& t) {
                                 return "after " + (t.pipeline.empty() ? "" : t.pipeline + ".") + t.job;
                               }},
                    trigger);
}

}  // namespace

std::string trigger_key(const config::trigger& trigger) {
  return std::visit(
      overloaded{[](const config::topic_trigger& t) { return "topic:" + t.topic; },
                 [](const config::cron_trigger& t) { return "cron:" + t.expression.text + "@" + t.timezone; },
                 [](const config::every_trigger& t) { return "every:" + format_duration(t.interval); },
                 [](const config::after_trigger& t) { return "after:" + t.pipeline + "." + t.job; }},
      trigger);
}

job_supervisor::job_supervisor(surroundings& around, std::shared_ptr<const pipeline_revision> revision, std::string job)
    : around_(around),
      revision_(std::move(revision)),
      name_(std::move(job)),
      changed_(std::make_shared<runtime::wakeup>(around.where.control)) {}

// ---- life ----

void job_supervisor::start(bool paused) {
  if (alive_) return;
  paused_ = paused;
  alive_ = true;
  in_background(around_.where.control, "job " + revision_->name + "/" + name_, watch_triggers());
}

void job_supervisor::redefine(std::shared_ptr<const pipeline_revision> revision) {
  revision_ = std::move(revision);
  redefined_ = true;
  changed_->notify();
}

void job_supervisor::topics_declared() {
  const bool waits = std::any_of(watches_.begin(), watches_.end(),
                                 [](const watch& w) { return !w.topic && w.key.starts_with("topic:"); });
  if (!waits) return;
  redefined_ = true;
  changed_->notify();
}

void job_supervisor::pause() {
  paused_ = true;
  for (const auto& run : queue_) run->wait_for("the pipeline is paused");
  changed_->notify();
}

void job_supervisor::resume() {
  paused_ = false;
  for (const auto& run : queue_) run->wait_for(waiting_reason());
  changed_->notify();
}

void job_supervisor::retire() {
  retired_ = true;
  changed_->notify();
}

void job_supervisor::stop() {
  stopping_ = true;
  changed_->notify();
}

bool job_supervisor::over() const {
  return stopping_ || (retired_ && queue_.empty() && active_.empty() && reserved_running_ + reserved_queued_ == 0);
}

asio::awaitable<void> job_supervisor::watch_triggers() {
  const auto self = shared_from_this();
  while (!over()) {
    when next;
    try {
      next = co_await advance();
    } catch (const std::exception& e) {
      spdlog::error("job {}/{}: {}; looking again in 1 s", revision_->name, name_, e.what());
      next = wall_now() + std::chrono::seconds(1);
    }
    if (over()) break;
    if (next) {
      co_await changed_->wait_until(steady_time(*next));
    } else {
      co_await changed_->wait();
    }
  }
  watches_.clear();
  alive_ = false;
}

// One look at everything that could be done now.
asio::awaitable<job_supervisor::when> job_supervisor::advance() {
  const auto revision = revision_;  // a redefinition during a wait must not pull the triggers from under us
  const auto& triggers = revision->definition->jobs.contains(name_) ? definition().triggers : std::vector<config::trigger>{};
  if (redefined_ && !retired_) co_await make_watches();
  if (stopping_) co_return std::nullopt;

  if (!paused_) {
    while (co_await start_next_queued()) {
    }
  }
  when next;
  for (std::size_t i = 0; i < triggers.size() && i < watches_.size(); ++i) {
    if (stopping_ || redefined_) co_return wall_now();
    const auto now = wall_now();
    auto& w = watches_[i];
    if (const auto* topic = std::get_if<config::topic_trigger>(&triggers[i])) {
      if (w.open) next = earlier(next, co_await advance_open(*topic, w, now));
      if (!paused_ && !retired_ && !w.open) next = earlier(next, co_await advance(*topic, w, now));
    } else if (paused_ || retired_) {
      continue;
    } else if (const auto* cron = std::get_if<config::cron_trigger>(&triggers[i])) {
      next = earlier(next, co_await advance(*cron, w, now));
    } else if (const auto* every = std::get_if<config::every_trigger>(&triggers[i])) {
      next = earlier(next, co_await advance(*every, w, now));
    }
  }
  co_return next;
}

// Reads where each trigger stands, or writes where it begins when it is seen for the first time.
asio::awaitable<void> job_supervisor::make_watches() {
  redefined_ = false;
  const auto revision = revision_;
  std::vector<watch> made;
  for (const auto& trigger : revision->definition->jobs.at(name_).triggers) {
    watch w;
    w.key = trigger_key(trigger);
    if (const auto* topic = std::get_if<config::topic_trigger>(&trigger)) {
      const auto known = around_.store.cursor(revision->name, name_, w.key);
      if (!known) co_await around_.store.set_cursor(revision->name, name_, w.key, 0);
      w.cursor = known.value_or(0);
      w.topic = around_.offered.topics.find(topic->topic);
      if (w.topic) {
        w.subscription = w.topic->subscribe([wake = changed_](std::int64_t) { wake->notify(); });
      } else {
        spdlog::warn("job {}/{}: its trigger's topic '{}' does not exist yet", revision->name, name_, topic->topic);
      }
    } else if (!std::holds_alternative<config::after_trigger>(trigger)) {
      const auto known = around_.store.last_firing(revision->name, name_, w.key);
      w.last_firing = known.value_or(wall_now());
      const schedule_move first_sight{revision->name, name_, w.key, w.last_firing};
      if (!known) co_await around_.store.set_firing(first_sight);
    }
    made.push_back(std::move(w));
  }
  watches_ = std::move(made);

  const auto active = active_;
  for (const auto& [id, run] : active) {
    if (!run->record().input.open || watch_open(run)) continue;
    co_await around_.store.close_input(id);  // its trigger is gone: nobody would ever close it
    run->close_input();
  }
}

// Ties a run whose claim may still grow to its trigger; false when no trigger reads that topic.
bool job_supervisor::watch_open(const std::shared_ptr<live_run>& run) {
  const auto& input = run->record().input;
  for (auto& w : watches_) {
    if (!w.topic || w.topic->name() != input.topic) continue;
    w.open = run;
    w.last_event = wall_now();
    return true;
  }
  return false;
}

// ---- admission ----

bool job_supervisor::may_start_now() const {
  const auto rule = definition().on_overlap;
  const bool alone = active_.empty() && reserved_running_ == 0;
  return (rule == config::overlap_rule::allow || alone) && !stopping_;
}

std::string job_supervisor::waiting_reason() const {
  if (paused_) return "the pipeline is paused";
  if (!may_start_now()) return "another run of this job is active";
  return "all run slots of the daemon are taken";
}

run_record job_supervisor::draft(trigger_kind trigger) const {
  run_record run;
  run.created_at = wall_now();
  run.id = runtime::make_ulid(run.created_at);
  run.pipeline = revision_->name;
  run.job = name_;
  run.revision = revision_->revision;
  run.trigger = trigger;
  for (const auto& task : definition().tasks) run.tasks.push_back({.name = task.name});
  return run;
}

result<prepared_run> job_supervisor::prepare(run_record run) {
  const job_load load{static_cast<std::int64_t>(active_.size()) + reserved_running_,
                      static_cast<std::int64_t>(queue_.size()) + reserved_queued_};
  auto how = admit(definition().on_overlap, definition().queue_limit, load);
  if (how == admission::start && (paused_ || stopping_ || !around_.slots.take())) how = admission::queue;
  switch (how) {
    case admission::refuse:
      return error{errc::overloaded, "job " + name_ + " has " + std::to_string(load.queued) + " runs waiting, its queue_limit", {}, 1};
    case admission::skip:
      run.state = run_state::skipped;
      run.reason = "another run of this job was active (on_overlap: skip)";
      run.ended_at = run.created_at;
      break;
    case admission::start:
      run.state = run_state::running;
      run.attempt = 1;
      run.started_at = run.created_at;
      ++reserved_running_;
      break;
    case admission::queue:
    case admission::replace:
      run.waiting_reason = waiting_reason();
      ++reserved_queued_;
      break;
  }
  if (how == admission::skip) {
    for (auto& task : run.tasks) task.state = run_state::skipped;
  }
  prepared_run prepared{{.run = run}, {}};
  prepared.settle = [self = shared_from_this(), run = std::move(run), how, revision = revision_](bool stored) mutable {
    self->settle(std::move(run), how, std::move(revision), stored);
  };
  return prepared;
}

void job_supervisor::settle(run_record run, admission how, std::shared_ptr<const pipeline_revision> revision,
                            bool stored) {
  if (how == admission::start) --reserved_running_;
  if (how == admission::queue || how == admission::replace) --reserved_queued_;
  if (!stored) {
    if (how == admission::start) around_.slots.give_back();
    changed_->notify();
    return;
  }
  if (how == admission::skip) return;
  if (how == admission::replace) {
    const auto running = active_;
    for (const auto& [id, older] : running) older->cancel("replaced by run " + run.id);
    const auto waiting = queue_;
    for (const auto& older : waiting) older->cancel("replaced by run " + run.id);
  }
  const auto live = adopt(std::move(run), std::move(revision));
  if (how == admission::start) {
    active_[live->record().id] = live;
    if (stopping_) {
      on_ended(live);  // stored as running: the next start takes it over
      return;
    }
    live->start();
  } else {
    queue_.push_back(live);
    changed_->notify();
  }
}

std::shared_ptr<live_run> job_supervisor::adopt(run_record record, std::shared_ptr<const pipeline_revision> revision) {
  auto live = std::make_shared<live_run>(
      around_, std::move(record), std::move(revision),
      [self = shared_from_this()](const std::shared_ptr<live_run>& run) { self->on_ended(run); });
  around_.unfinished[live->record().id] = live;
  return live;
}

void job_supervisor::take_over(run_record record, std::shared_ptr<const pipeline_revision> revision) {
  queue_.push_back(adopt(std::move(record), std::move(revision)));
  queue_.back()->wait_for(waiting_reason());
  changed_->notify();
}

void job_supervisor::on_ended(const std::shared_ptr<live_run>& run) {
  if (active_.erase(run->record().id) > 0) around_.slots.give_back();
  std::erase(queue_, run);  // cancelled while it waited
  around_.unfinished.erase(run->record().id);
  for (auto& w : watches_) {
    if (w.open == run) w.open.reset();
  }
  changed_->notify();
}

asio::awaitable<bool> job_supervisor::start_next_queued() {
  // One that executes already is on its way out: it was cancelled while it waited.
  const auto next = std::find_if(queue_.begin(), queue_.end(), [](const auto& run) { return !run->executing(); });
  if (next == queue_.end() || !may_start_now() || stopping_) co_return false;
  if (!around_.slots.take()) {
    around_.slots.wake_when_free(changed_);
    co_return false;
  }
  const auto run = *next;
  queue_.erase(next);
  active_[run->record().id] = run;
  const int attempt = run->record().attempt + 1;
  const auto now = wall_now();
  std::exception_ptr failure;
  try {
    co_await around_.store.start_attempt(run->record().id, attempt, now);
  } catch (...) {
    failure = std::current_exception();
  }
  if (run->executing()) co_return true;  // cancelled meanwhile: it ends by itself
  if (failure) {
    active_.erase(run->record().id);
    around_.slots.give_back();
    queue_.push_front(run);
    std::rethrow_exception(failure);
  }
  run->started(attempt, now);
  if (run->record().input.open && !watch_open(run)) {
    co_await around_.store.close_input(run->record().id);  // its trigger is gone: nobody would ever close it
    run->close_input();
    if (run->executing()) co_return true;
  }
  if (stopping_) {
    on_ended(run);  // stored as running: the next start takes it over
    co_return false;
  }
  run->start();
  co_return true;
}

// ---- topic triggers ----

asio::awaitable<job_supervisor::when> job_supervisor::advance(const config::topic_trigger& trigger, watch& w,
                                                              timestamp now) {
  if (!w.topic) co_return std::nullopt;  // topics_declared() wakes us
  topic_view view;
  view.cursor = w.cursor;
  view.last_offset = w.topic->last_offset();
  if (view.last_offset <= view.cursor) co_return std::nullopt;
  if (trigger.max_wait.count() > 0 && (!w.oldest || w.oldest->first != w.cursor)) {
    w.oldest = {w.cursor, w.topic->received_at(w.cursor + 1).value_or(now)};
  }
  view.oldest = w.oldest ? w.oldest->second : now;
  view.may_start = may_start_now() && queue_.empty() && reserved_queued_ == 0;
  if (view.may_start && !around_.slots.any_free()) {
    around_.slots.wake_when_free(changed_);
    view.may_start = false;
  }
  const auto decision = decide(trigger, view, now);
  switch (decision.what) {
    case topic_decision::action::wait: co_return std::nullopt;
    case topic_decision::action::wait_until: co_return decision.at;
    case topic_decision::action::claim: break;
  }
  co_await claim(trigger, w, decision.until, now);
  co_return now;
}

asio::awaitable<void> job_supervisor::claim(const config::topic_trigger& trigger, watch& w, std::int64_t until,
                                            timestamp now) {
  auto run = draft(trigger_kind::topic);
  run.input.type = run_input::kind::topic;
  run.input.topic = trigger.topic;
  run.input.after = w.cursor;
  run.input.until = until;
  run.input.open = trigger.grace_period.count() > 0;
  run.input.events = until - w.cursor;
  auto prepared = prepare(run);
  if (!prepared || prepared->made.run.state != run_state::running) {
    if (prepared) prepared->settle(false);
    co_return;  // somebody took the slot meanwhile: look again when it is free
  }
  prepared->made.cursor = cursor_move{revision_->name, name_, w.key, w.cursor, until};
  bool stored = false;
  std::exception_ptr failure;
  const auto key = w.key;
  try {
    const auto made = co_await around_.store.create_run(prepared->made);
    stored = made.has_value();
  } catch (...) {
    failure = std::current_exception();
  }
  if (stored) w.cursor = until;
  prepared->settle(stored);
  if (failure) std::rethrow_exception(failure);
  const auto live = active_.find(run.id);
  if (run.input.open && live != active_.end()) {
    w.open = live->second;
    w.last_event = now;
  }
}

// The run that reads this trigger's events is still open: give it what came meanwhile, or close it.
asio::awaitable<job_supervisor::when> job_supervisor::advance_open(const config::topic_trigger& trigger, watch& w,
                                                                   timestamp now) {
  const auto run = w.open;
  const auto& input = run->record().input;
  const open_view view{input.after, input.until, w.topic->last_offset(), w.last_event};
  auto decision = decide(trigger, view, now);
  if (retired_ || stopping_) decision.what = open_decision::action::close;
  const cursor_move move{revision_->name, name_, w.key, w.cursor, decision.until};
  switch (decision.what) {
    case open_decision::action::wait_until: co_return decision.at;
    case open_decision::action::extend:
      co_await around_.store.extend_input(run->record().id, decision.until, move);
      w.cursor = decision.until;
      w.last_event = now;
      run->extend_input(decision.until);
      co_return now;
    case open_decision::action::close: break;
  }
  co_await around_.store.close_input(run->record().id);
  run->close_input();
  w.open.reset();
  co_return now;
}

// ---- schedules ----

asio::awaitable<job_supervisor::when> job_supervisor::advance(const config::cron_trigger& trigger, watch& w,
                                                              timestamp now) {
  const auto due = next_firing(trigger.expression, trigger.timezone, w.last_firing);
  w.next_firing = due;
  if (!due || *due > now) co_return due;
  const auto after_that = next_firing(trigger.expression, trigger.timezone, *due);
  std::vector<timestamp> times{*due};
  if (now - *due > on_time || (after_that && *after_that <= now)) {
    times = missed_firings(trigger, w.last_firing, now, most_missed);
    // The newest one may be on time although earlier ones were missed.
    for (auto t = due; t && *t <= now; t = next_firing(trigger.expression, trigger.timezone, *t)) {
      if (now - *t <= on_time && std::find(times.begin(), times.end(), *t) == times.end()) {
        times.push_back(*t);
        break;
      }
    }
  }
  co_await fire(trigger_kind::cron, w, std::move(times), now);
  co_return now;
}

asio::awaitable<job_supervisor::when> job_supervisor::advance(const config::every_trigger& trigger, watch& w,
                                                              timestamp now) {
  const auto next = next_every(trigger, w.last_firing, now);
  const auto due = next - std::chrono::duration_cast<microseconds>(trigger.interval);
  w.next_firing = next;
  if (due <= w.last_firing) co_return next;
  const bool one_waits = std::any_of(queue_.begin(), queue_.end(),
                                     [](const auto& run) { return run->record().trigger == trigger_kind::every; });
  if (one_waits) co_return std::nullopt;  // work is longer than the interval: back to back, woken when a run ends
  std::vector<timestamp> times{due};
  co_await fire(trigger_kind::every, w, std::move(times), due);
  co_return now;
}

// Makes one run for each time; a full queue is recorded as a skipped run. The last firing moves with the last run.
asio::awaitable<void> job_supervisor::fire(trigger_kind kind, watch& w, std::vector<timestamp> times, timestamp fired) {
  const schedule_move move{revision_->name, name_, w.key, fired};
  if (times.empty()) {
    co_await around_.store.set_firing(move);
    w.last_firing = fired;
    co_return;
  }
  std::vector<prepared_run> prepared;
  std::vector<new_run> rows;
  for (const auto at : times) {
    auto run = draft(kind);
    run.scheduled_for = at;
    auto one = prepare(run);
    if (!one) {
      run.state = run_state::skipped;
      run.reason = one.error().detail;
      run.ended_at = run.created_at;
      for (auto& task : run.tasks) task.state = run_state::skipped;
      one = prepared_run{{.run = run}, [](bool) {}};
    }
    prepared.push_back(std::move(*one));
    rows.push_back(prepared.back().made);
  }
  rows.back().schedule = move;
  std::exception_ptr failure;
  try {
    co_await around_.store.create_runs(std::move(rows));
    w.last_firing = fired;
  } catch (...) {
    failure = std::current_exception();
  }
  for (auto& one : prepared) one.settle(!failure);
  if (failure) std::rethrow_exception(failure);
}

// ---- what is shown ----

std::optional<std::int64_t> job_supervisor::cursor(const std::string& topic) const {
  for (const auto& w : watches_) {
    if (w.key == "topic:" + topic) return w.cursor;
  }
  return std::nullopt;
}

job_view job_supervisor::view() const {
  job_view v;
  v.name = name_;
  v.queued = static_cast<std::int64_t>(queue_.size());
  v.running = static_cast<std::int64_t>(active_.size());
  for (const auto& trigger : definition().triggers) v.triggers.push_back(in_words(trigger));
  for (const auto& w : watches_) v.next_firing = earlier(v.next_firing, w.next_firing);
  return v;
}

}  // namespace penstock::scheduler
