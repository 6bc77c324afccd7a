#include "scheduler/job_runs.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "config/parameters.hpp"
#include "runtime/inputs.hpp"
#include "runtime/run_expression.hpp"
#include "runtime/ulid.hpp"
#include "runtime/waiting_place.hpp"
#include "scheduler/background.hpp"
#include "scheduler/run_context.hpp"
#include "scheduler/store_timeline.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;

constexpr std::chrono::seconds pause_after_failure{1};
// With so many ends on their way to the store, further starts are stored before anything runs: what a crash repeats stays few.
constexpr int most_ends_unstored = 16;

struct active_limits {
  std::optional<std::int64_t> of_all, of_a_key;
};

// With a key: one run of each key, and max_active of the job. Without one: max_active, or one.
active_limits limits_of(const config::job& job) {
  if (job.on_overlap == config::overlap_rule::allow) return {job.max_active, std::nullopt};
  if (!job.overlap_key.empty()) return {job.max_active, 1};
  return {std::nullopt, job.max_active.value_or(1)};
}

// When a run was due. The time of a backfill or of a run that is repeated lies far back and says nothing about that.
std::optional<timestamp> due_time(const run_record& run) {
  return run.trigger == trigger_kind::backfill || !run.retry_of.empty() ? std::nullopt : run.scheduled_for;
}

}  // namespace

run_record skipped(run_record run, std::string reason) {
  run.state = run_state::skipped;
  run.reason = std::move(reason);
  run.ended_at = run.created_at;
  for (auto& task : run.tasks) task.state = run_state::skipped;
  return run;
}

job_runs::job_runs(surroundings& around, std::shared_ptr<const pipeline_revision> revision, std::string job,
                   std::shared_ptr<runtime::wakeup> changed)
    : around_(around),
      revision_(std::move(revision)),
      name_(std::move(job)),
      changed_(std::move(changed)),
      retries_(std::make_shared<retry_budget_state>()) {
  follow_definition();
}

job_runs::~job_runs() = default;

void job_runs::redefine(std::shared_ptr<const pipeline_revision> revision) {
  revision_ = std::move(revision);
  follow_definition();
}

void job_runs::stop() {
  stopping_ = true;
  std::erase_if(arriving_, [](const auto& run) { return run->withdraw(); });
  for (const auto& [id, one] : held_) {
    if (one.pause) one.pause->notify();
    if (!one.run->executing()) one.run->interrupt();  // its clock ends with it
  }
}

void job_runs::let_go() { held_.clear(); }

void job_runs::clock_was_set() {
  for (const auto& [id, one] : held_) {
    one.run->clock_was_set();
    if (one.pause) one.pause->notify();
  }
}

void job_runs::follow_definition() {
  const auto limits = limits_of(definition());
  around_.room.limit_job(revision_->name, name_, limits.of_all, limits.of_a_key);
  // A job without a trigger may have parameters that must be given: then whoever asks for a run gives them.
  const auto defaults = config::check_parameters(definition(), nullptr);
  defaults_ = defaults ? defaults->dump() : "{}";
}

// ---- making runs ----

run_record job_runs::draft(trigger_kind trigger) const {
  run_record run;
  run.created_at = wall_now();
  run.id = runtime::make_ulid(run.created_at);
  run.pipeline = revision_->name;
  run.job = name_;
  run.revision = revision_->revision;
  run.trigger = trigger;
  run.params = defaults_;
  run.priority = definition().priority;
  for (const auto& task : definition().tasks) run.tasks.push_back({.name = task.name});
  return run;
}

std::string job_runs::overlap_key(const run_record& run, std::string_view event) const {
  const auto& expression = definition().overlap_key;
  if (expression.empty()) return {};
  const auto key = runtime::run_expression(expression).text(run_context_with_event(run, event));
  if (!key.failure.empty()) throw std::runtime_error("the key of on_overlap: " + key.failure);
  return key.value;
}

queue_entry job_runs::entry_of(const run_record& run) const {
  return {.id = run.id,
          .pipeline = run.pipeline,
          .job = run.job,
          .key = run.overlap_key,
          .priority = run.priority,
          .since = run.created_at,
          .pools = definition().pools};
}

void job_runs::count(const std::string& key, std::int64_t running, std::int64_t waiting) {
  auto& load = loads_[key];
  load.running += running;
  load.waiting += waiting;
  running_ += running;
  waiting_ += waiting;
  if (load.running == 0 && load.waiting == 0) loads_.erase(key);
}

result<prepared_run> job_runs::prepare(run_record run) {
  const auto& job = definition();
  if (run.overlap_key.empty() && !job.overlap_key.empty()) {
    try {
      run.overlap_key = overlap_key(run, runtime::first_payload(run.input.ndjson).value_or(""));
    } catch (const std::exception& e) {
      return error{errc::invalid, e.what()};
    }
  }
  run.deadline_at = deadline_of(job, run.created_at, due_time(run));

  const auto found = loads_.find(run.overlap_key);
  const key_load others = found == loads_.end() ? key_load{} : found->second;
  const auto how = run.trigger == trigger_kind::backfill
                       ? admission::start_or_wait
                       : admit(job.on_overlap, limits_of(job).of_a_key, job.queue_limit, {others.running, others.waiting});
  const error full{errc::overloaded, "job " + name_ + " has " + std::to_string(waiting_) + " runs waiting, its queue_limit", {}, 1};
  if (how == admission::refuse) return full;
  if (how == admission::skip) {
    prepared_run refused{.made = {.run = skipped(std::move(run), "another run of this job was active (on_overlap: skip)")},
                         .settle = [](bool) {}};
    return refused;
  }
  const bool replaces = how == admission::replace;
  const bool enters = !replaces && !stopping_ && around_.room.enter(entry_of(run));
  const bool bounded = how != admission::replace && run.trigger != trigger_kind::backfill;
  if (!enters && bounded && waiting_ >= job.queue_limit) return full;  // of all keys together
  if (enters) {
    run.state = run_state::running;
    run.attempt = 1;
    run.started_at = run.created_at;
  } else {
    run.waiting_reason = replaces ? "the run that it replaces is still ending" : "its turn has not come yet";
  }
  count(run.overlap_key, enters ? 1 : 0, enters ? 0 : 1);
  prepared_run prepared{{.run = run}, {}, around_.arriving.enter(run.id)};
  const auto live = make_live(std::move(run), revision_);
  if (enters) make_ready(live, prepared.made);
  prepared.settle = [self = shared_from_this(), live, where = enters ? place::room : place::queue, replaces](bool stored) {
    self->settle(live, where, replaces, stored);
  };
  return prepared;
}

std::shared_ptr<live_run> job_runs::make_live(run_record record, std::shared_ptr<const pipeline_revision> revision) {
  const auto self = shared_from_this();
  return std::make_shared<live_run>(
      around_, std::move(record), std::move(revision), retries_,
      live_run::handlers{.idle = [self](const std::shared_ptr<live_run>& run) { self->give_back_room_of(run); },
                         .ended = [self](const std::shared_ptr<live_run>& run) { self->on_ended(run); }});
}

// It has its room. While the disk is at work its program gets ready, which then starts the moment it may.
void job_runs::make_ready(const std::shared_ptr<live_run>& run, new_run& stored_as) {
  if (stopping_) return;
  arriving_.insert(run);
  auto permit = run->make_ready();
  if (!permit) {
    arriving_.erase(run);
    return;
  }
  stored_as.durable = [permit = std::move(permit)] { permit->grant(); };
}

void job_runs::settle(const std::shared_ptr<live_run>& run, place where, bool replaces, bool stored) {
  const bool entered = where == place::room;
  const auto& record = run->record();
  arriving_.erase(run);
  if (!stored) {
    run->withdraw();
    count(record.overlap_key, entered ? -1 : 0, entered ? 0 : -1);
    if (entered) around_.room.release(record.id);
    changed_->notify();
    return;
  }
  if (replaces) {
    const auto others = held_;
    for (const auto& [id, other] : others) {
      if (other.run->record().overlap_key == record.overlap_key) other.run->cancel("replaced by run " + record.id);
    }
  }
  adopt(run, record.id, entered);
  if (entered) {
    begin(run);
  } else {
    wait_for_room(run);
  }
}

asio::awaitable<result<trigger_answer>> job_runs::make(run_record run, std::optional<idempotency> once) {
  const auto self = shared_from_this();
  if (once) {  // before the limits are looked at: asking again is no new run
    if (const auto known = around_.store.known_request(*once)) {
      if (!*known) co_return known->error();
      co_return trigger_answer{(*known)->id, true};
    }
  }
  const std::size_t most = around_.options.max_waiting_requests;
  const runtime::waiting_place admitted(requests_, most);
  if (!admitted) {
    co_return error{errc::overloaded,
                    "job " + name_ + " has " + std::to_string(most) +
                        " requests waiting for their runs to be stored (max_waiting_requests)", {}, 1};
  }
  auto prepared = prepare(std::move(run));
  if (!prepared) co_return prepared.error();
  prepared->made.once = std::move(once);
  const std::string id = prepared->made.run.id;
  bool stored = false;
  std::exception_ptr failure;
  result<trigger_answer> answer = error{};
  try {
    const auto created = co_await around_.store.create_run(prepared->made);
    stored = created && !created->existed;
    if (created) {
      answer = trigger_answer{created->existed ? created->id : id, created->existed};
      if (stored) answer->timeline.push_back(rows::made_entry(prepared->made));
    } else {
      answer = created.error();
    }
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure && is_stored(id)) {
    failure = nullptr;
    stored = true;
    answer = trigger_answer{id, false};
  }
  prepared->settle(stored);
  if (stored) around_.tell_if_over(prepared->made.run);
  if (failure) std::rethrow_exception(failure);
  co_return answer;
}

asio::awaitable<void> job_runs::make_all(std::vector<run_record> runs, std::optional<schedule_move> move) {
  const auto self = shared_from_this();
  std::vector<prepared_run> prepared;
  std::vector<new_run> rows;
  for (auto& run : runs) {
    auto one = prepare(run);
    if (!one) one = prepared_run{{.run = skipped(std::move(run), one.error().detail)}, [](bool) {}};
    prepared.push_back(std::move(*one));
    rows.push_back(prepared.back().made);
  }
  rows.back().schedule = std::move(move);
  const std::string last = rows.back().run.id;
  std::exception_ptr failure;
  try {
    co_await around_.store.create_runs(std::move(rows));
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure && is_stored(last)) failure = nullptr;  // all or none
  for (auto& one : prepared) {
    one.settle(!failure);
    if (!failure) around_.tell_if_over(one.made.run);
  }
  if (failure) std::rethrow_exception(failure);
}

// After a commit that has failed: a disk that fails in the middle of it may have kept it all the same.
bool job_runs::is_stored(const std::string& run) const {
  try {
    return around_.store.run(run).has_value();
  } catch (const std::exception& e) {
    spdlog::error("run {}: whether it is stored cannot be seen: {}", run, e.what());
    return false;
  }
}

void job_runs::adopt(const std::shared_ptr<live_run>& run, std::string room, bool has_room) {
  const std::string& id = run->record().id;
  around_.unfinished[id] = run;
  held_[id] = {.run = run, .room = std::move(room), .has_room = has_room};
  around_.tell(run->record());
}

void job_runs::take_over(run_record record, std::shared_ptr<const pipeline_revision> revision) {
  count(record.overlap_key, 0, 1);
  const std::string room = record.id;
  const auto live = make_live(std::move(record), std::move(revision));
  adopt(live, room, false);
  held_.at(room).taken_over = true;
  latest_taken_over_ = std::max(latest_taken_over_, live->record().created_at);
  live->was_begun_before();
  wait_for_room(live);
}

asio::awaitable<void> job_runs::wait_for_retry(std::shared_ptr<live_run> run, std::shared_ptr<runtime::wakeup> pause) {
  const auto self = shared_from_this();
  const auto until = *run->record().retry_at;
  while (!stopping_ && !run->executing() && wall_now() < until) {
    const auto left = std::chrono::duration_cast<steady::duration>(until - wall_now());
    co_await pause->wait_until(steady::now() + left);
  }
  if (!stopping_ && !run->executing()) co_await start_waiting(run);
}

// ---- starting ----

void job_runs::wait_for_room(const std::shared_ptr<live_run>& run) {
  if (!stopping_) run->watch_clock();
  around_.room.wait(entry_of(run->record()), [self = shared_from_this(), run] {
    const auto found = self->held_.find(run->record().id);
    if (found == self->held_.end()) return;
    found->second.has_room = true;
    self->count(run->record().overlap_key, 1, -1);
    self->changed_->notify();  // an interval waits until nothing of it waits
    if (run->executing()) return;  // it was cancelled while it waited: on its way out
    if (run->record().retry_at.value_or(timestamp{}) > wall_now()) {  // taken over; it keeps its room, as any pause does
      const auto pause = found->second.pause = std::make_shared<runtime::wakeup>(self->around_.where.control);
      in_background(self->around_.where.control, "pause of run " + run->record().id, self->wait_for_retry(run, pause));
      return;
    }
    if (self->starts_unstored(found->second)) {
      const attempt_start start{run->record().attempt + 1, wall_now()};
      run->start_is_unstored(start);
      run->started(start.attempt, start.at);
      self->around_.starts.add(run);
      self->begin(run);
      return;
    }
    in_background(self->around_.where.control, "start of run " + run->record().id, self->start_waiting(run));
  });
}

// Its start may be stored while it runs: see late_starts. Not where a crash must not forget it (a run that was taken over may
// have brought the daemon down), where tasks are stored one by one, or where ends are not stored in time either.
bool job_runs::starts_unstored(const held& one) const {
  return one.run->has_single_task() && !stopping_ && !one.taken_over && !one.run->record().input.open &&
         around_.ends_unstored < most_ends_unstored && !around_.store.failing();
}

// It has its room. A store that fails (disk full) is asked again until it works: the run is not forgotten for it. One that
// the store does not let start is given up until the next start of the daemon, so that it takes no room for ever.
asio::awaitable<void> job_runs::start_waiting(std::shared_ptr<live_run> run) {
  const auto self = shared_from_this();
  const int attempt = run->record().attempt + 1;
  asio::steady_timer timer(around_.where.control);
  for (bool stored = false; !stored;) {
    const auto now = wall_now();
    std::string refused;
    try {
      co_await store_attempt(around_.store, run->record().id, attempt, now);
      stored = true;
    } catch (const std::logic_error& e) {
      refused = e.what();  // when it was cancelled meanwhile, its end was stored first
    } catch (const std::exception& e) {
      spdlog::error("run {} cannot be started, trying again in 1 s: {}", run->record().id, e.what());
    }
    if (run->executing() || stopping_) break;
    if (!refused.empty()) {
      spdlog::critical("run {} cannot be started: {}", run->record().id, refused);
      run->interrupt();
      on_ended(run);
      co_return;
    }
    if (stored) {
      run->started(attempt, now);
      break;
    }
    timer.expires_after(pause_after_failure);
    co_await timer.async_wait(asio::use_awaitable);
  }
  if (run->executing()) co_return;  // it ends by itself
  if (run->record().input.open && !stopping_ && !(watch_open && watch_open(run))) {
    co_await close_orphaned_input(run);
    if (run->executing()) co_return;
  }
  begin(run);
}

// Its trigger is gone: nobody would ever close it.
asio::awaitable<void> job_runs::close_orphaned_input(std::shared_ptr<live_run> run) {
  try {
    co_await around_.store.close_input(run->record().id);
  } catch (const std::exception& e) {
    spdlog::error("run {}: that its input has ended cannot be stored: {}", run->record().id, e.what());
  }
  run->close_input();
}

void job_runs::begin(const std::shared_ptr<live_run>& run) {
  if (stopping_ && run->withdraw()) {
    run->interrupt();
    on_ended(run);  // stored as running: the next start takes it over
    return;
  }
  run->watch_clock();
  if (!run->executing()) run->start();  // its deadline may have passed already: then it is on its way out
}

// Its end is on its way to the store, but whoever waits for the room need not wait for the disk. Where one run follows the
// other he does: after a crash the earlier one would be repeated behind the later one.
void job_runs::give_back_room_of(const std::shared_ptr<live_run>& run) {
  const bool overlap = run->job().on_overlap == config::overlap_rule::allow;
  const auto found = held_.find(run->record().id);
  if (overlap && found != held_.end() && found->second.has_room) around_.room.release(found->second.room);
}

void job_runs::on_ended(const std::shared_ptr<live_run>& run) {
  const auto found = held_.find(run->record().id);
  if (found == held_.end()) return;
  const auto self = shared_from_this();
  count(run->record().overlap_key, found->second.has_room ? -1 : 0, found->second.has_room ? 0 : -1);
  around_.room.release(found->second.room);
  if (found->second.pause) found->second.pause->notify();
  held_.erase(found);
  around_.unfinished.erase(run->record().id);
  changed_->notify();
}

// ---- claims ----

bool job_runs::ask(queue_entry entry, std::function<void()> granted) {
  entry.pipeline = revision_->name;
  entry.job = name_;
  entry.pools = definition().pools;
  entry.priority = definition().priority;
  // Runs of an earlier life of the daemon have claimed what came before, however long these events have waited.
  entry.since = std::max(entry.since, latest_taken_over_);
  if (stopping_) return false;
  if (around_.room.enter(entry)) return true;
  around_.room.wait(std::move(entry), std::move(granted));
  return false;
}

asio::awaitable<std::vector<std::shared_ptr<live_run>>> job_runs::start_claimed(std::vector<claim> claims) {
  const auto self = shared_from_this();
  const auto revision = revision_;
  std::vector<std::shared_ptr<live_run>> live;
  std::vector<arrivals::guard> on_their_way;
  std::vector<new_run> rows;
  for (auto& one : claims) {
    auto& run = one.made.run;
    run.state = run_state::running;
    run.attempt = 1;
    run.started_at = run.created_at;
    run.deadline_at = deadline_of(definition(), run.created_at, due_time(run));
    count(run.overlap_key, 1, 0);
    on_their_way.push_back(around_.arriving.enter(run.id));
    live.push_back(make_live(run, revision));
    make_ready(live.back(), one.made);
    rows.push_back(std::move(one.made));
  }
  std::exception_ptr failure;
  try {
    co_await around_.store.create_runs(std::move(rows));
  } catch (...) {
    failure = std::current_exception();
  }
  for (const auto& run : live) arriving_.erase(run);
  if (failure && !is_stored(live.back()->record().id)) {  // all or none
    for (std::size_t i = 0; i < claims.size(); ++i) {
      live[i]->withdraw();
      count(live[i]->record().overlap_key, -1, 0);
      around_.room.release(claims[i].room);
    }
    std::rethrow_exception(failure);
  }
  for (std::size_t i = 0; i < claims.size(); ++i) {
    adopt(live[i], std::move(claims[i].room), true);
    begin(live[i]);
  }
  co_return live;
}

// ---- looking ----

bool job_runs::any_waiting(trigger_kind trigger) const {
  return std::any_of(held_.begin(), held_.end(), [trigger](const auto& entry) {
    return !entry.second.has_room && entry.second.run->record().trigger == trigger;
  });
}

bool job_runs::has_active(const std::string& overlap_key) const {
  const auto found = loads_.find(overlap_key);
  return found != loads_.end() && found->second.running > 0;
}

std::vector<std::shared_ptr<live_run>> job_runs::executing() const {
  std::vector<std::shared_ptr<live_run>> runs;
  for (const auto& [id, one] : held_) {
    if (one.has_room) runs.push_back(one.run);
  }
  return runs;
}

}  // namespace penstock::scheduler
