#include "scheduler/live_run.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/random.hpp"
#include "runtime/run_expression.hpp"
#include "runtime/topic.hpp"
#include "scheduler/alert_text.hpp"
#include "scheduler/background.hpp"
#include "scheduler/due_time.hpp"
#include "scheduler/run_context.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;

// Tasks of one run at once; a run of a thousand independent tasks shall not take the machine from all others.
constexpr std::size_t most_tasks_at_once = 64;
// A list longer than this is refused.
constexpr std::size_t most_instances = 10'000;
// Beside the grace: how long a task that was told to end may take before it is left behind.
constexpr std::chrono::seconds patience{5};

task_record begun(task_record task, timestamp at) {
  task.state = run_state::running;
  ++task.attempt;
  task.started_at = at;
  task.ended_at.reset();
  return task;
}

}  // namespace

asio::awaitable<void> store_attempt(store& state, std::string run, int attempt, timestamp at) {
  std::exception_ptr refused;
  try {
    co_await state.start_attempt(run, attempt, at);
    co_return;
  } catch (const std::logic_error&) {
    refused = std::current_exception();
  }
  const auto stored = state.run(run);
  if (!stored || stored->state != run_state::running || stored->attempt != attempt) std::rethrow_exception(refused);
}

live_run::live_run(surroundings& around, run_record record, std::shared_ptr<const pipeline_revision> revision,
                   std::shared_ptr<retry_budget_state> retries, handlers tell)
    : around_(around),
      record_(std::move(record)),
      revision_(std::move(revision)),
      job_(revision_->definition->jobs.at(record_.job)),
      retries_(std::move(retries)),
      tell_(std::move(tell)),
      changed_(std::make_shared<runtime::wakeup>(around.where.control)),
      clock_(std::make_shared<runtime::wakeup>(around.where.control)) {}

// ---- told from outside ----

void live_run::started(int attempt, timestamp at) {
  record_.state = run_state::running;
  record_.attempt = attempt;
  record_.waiting_reason.clear();
  record_.retry_at.reset();
  if (!record_.started_at) record_.started_at = at;
  for (auto& task : record_.tasks) {
    if (task.state == run_state::succeeded) continue;
    task.state = run_state::queued;
    task.reason.clear();
    task.output.clear();
    task.exit_code.reset();
    task.ended_at.reset();
  }
  around_.tell(record_);
}

std::shared_ptr<runtime::start_permit> live_run::make_ready() {
  if (!may_be_ahead()) return nullptr;
  caught_up_ = std::make_shared<runtime::wakeup>(around_.where.control);
  const auto task = begun(record_.tasks.front(), *record_.started_at);
  ahead_ = work_of(job_.tasks.front(), task, task_work::beginning::when_permitted);
  launch(0, ahead_);
  return ahead_->permit();
}

bool live_run::withdraw() {
  if (!ahead_) return true;
  if (!ahead_->permit()->withdraw()) return false;
  ahead_.reset();
  caught_up_->notify();  // what could not even be made ready waits for this
  return true;
}

bool live_run::has_single_task() const {
  return job_.tasks.size() == 1 && record_.tasks.size() == 1 && job_.tasks.front().for_each_expression.empty() &&
         job_.tasks.front().for_each_items.empty();
}

// One program, of which nothing is left to be decided.
bool live_run::may_be_ahead() const {
  if (!has_single_task() || record_.state != run_state::running) return false;
  const config::task& task = job_.tasks.front();
  const bool decided = task.condition.empty() && record_.tasks.front().state == run_state::queued;
  const bool has_input = record_.input.type != run_input::kind::inline_events || !record_.input.ndjson.empty();
  const bool in_time = !record_.deadline_at || wall_now() < *record_.deadline_at;
  return decided && has_input && in_time && std::holds_alternative<config::command>(task.does) && !around_.store.failing();
}

void live_run::start() {
  executing_ = true;
  in_background(around_.where.control, "run " + record_.id, execute());
}

void live_run::cancel(std::string reason) { end_as(run_state::cancelled, std::move(reason)); }

void live_run::end_as(run_state state, std::string reason) {
  if (over_ || ending_) return;
  ending_ = ending{state, std::move(reason)};
  if (!executing_) start();  // a waiting run ends without executing anything
  end_tasks();
  changed_->notify();
}

void live_run::let_end() {
  last_attempt_ = true;
  if (record_.state == run_state::retrying) interrupt();
}

void live_run::interrupt() {
  if (over_) return;
  interrupted_ = true;
  end_tasks();
  changed_->notify();
  clock_->notify();
}

void live_run::extend_input(std::int64_t until, std::int64_t events) {
  record_.input.events += events;
  record_.input.until = until;
  if (claim_) claim_->extend(until);
}

void live_run::close_input() {
  record_.input.open = false;
  if (claim_) claim_->close();
}

asio::awaitable<void> live_run::wait_for_end(steady::time_point deadline) {
  const auto self = shared_from_this();
  const auto ended = std::make_shared<runtime::wakeup>(around_.where.control);
  waiting_for_end_.push_back(ended);
  while (!over_) {
    if (!co_await ended->wait_until(deadline)) break;
  }
  std::erase(waiting_for_end_, ended);
}

// ---- attempts ----

asio::awaitable<void> live_run::execute() {
  const auto self = shared_from_this();
  try {
    co_await run_attempts();
  } catch (const std::exception& e) {
    spdlog::critical("run {}: {}", record_.id, e.what());  // a bug; the run is taken up again at the next start
  }
  if (ahead_) leave_ahead_behind();
  if (busy_ > 0) co_await let_tasks_end();
  over_ = true;
  for (const auto& waiting : waiting_for_end_) waiting->notify();
  clock_->notify();
  tell_.ended(self);
}

// Nobody decides about them any more. The run keeps its room until they have ended.
asio::awaitable<void> live_run::let_tasks_end() {
  end_tasks();
  const auto deadline = steady::now() + std::chrono::duration_cast<steady::duration>(job_.grace) + patience;
  while (busy_ > 0) {
    if (!co_await changed_->wait_until(deadline)) leave_behind();
  }
}

asio::awaitable<void> live_run::run_attempts() {
  while (!wanted_to_end()) {
    auto end = co_await run_attempt();
    if (wanted_to_end()) break;
    if (end.reason.empty()) {
      co_await finish(run_state::succeeded, "");
    } else if (co_await try_again(std::move(end))) {
      continue;
    }
    break;
  }
  if (!is_final(record_.state) && ending_ && !interrupted_) co_await finish(ending_->state, ending_->reason);
}

// After a failed attempt: true when the next one begins; else the run is over or is wanted to end.
asio::awaitable<bool> live_run::try_again(attempt_result failure) {
  const auto verdict = after_failure(job_.retry, record_.attempt, failure, *retries_, wall_now());
  if (verdict.next == run_state::retrying) {
    co_return co_await pause_before(record_.attempt + 1, std::move(failure.reason));
  }
  std::string reason = std::move(failure.reason);
  if (!verdict.not_retried.empty()) reason += "; " + verdict.not_retried;
  co_await finish(verdict.next, std::move(reason));
  co_return false;
}

asio::awaitable<bool> live_run::pause_before(int attempt, std::string failure) {
  const auto pause = backoff(job_.retry, attempt, runtime::random_between(0, 1));
  record_.state = run_state::retrying;
  record_.retry_at = wall_now() + std::chrono::duration_cast<std::chrono::microseconds>(pause);
  record_.waiting_reason = fmt::format("attempt {} of {} at {} after: {}", attempt, job_.retry.attempts,
                                       format_time(*record_.retry_at), failure);
  if (unstored_start_) {
    const auto store_first_start = [this, start = *unstored_start_] {
      return store_attempt(around_.store, record_.id, start.attempt, start.at);
    };
    co_await persist(store_first_start);
    start_stored();
  }
  const auto store_pause = [this] {
    return around_.store.set_waiting(record_.id, run_state::retrying, record_.waiting_reason, record_.retry_at);
  };
  co_await persist(store_pause);
  around_.tell(record_);
  if (last_attempt_) interrupt();
  const auto deadline = steady::now() + std::chrono::duration_cast<steady::duration>(pause);
  while (!wanted_to_end()) {
    if (co_await changed_->wait_until(deadline)) continue;
    const auto now = wall_now();
    const auto store_start = [this, attempt, now] { return store_attempt(around_.store, record_.id, attempt, now); };
    co_await persist(store_start);
    started(attempt, now);
    co_return true;
  }
  co_return false;
}

// ---- one attempt ----

// Runs tasks as the graph allows until none runs and none can start.
asio::awaitable<attempt_result> live_run::run_attempt() {
  std::optional<steady::time_point> deadline;
  if (job_.timeout) deadline = steady::now() + std::chrono::duration_cast<steady::duration>(*job_.timeout);
  graph_.emplace(job_, record_.tasks);
  working_.assign(record_.tasks.size(), nullptr);
  ready_.clear();
  busy_ = 0;
  hangs_ = false;

  bool timed_out = false;
  bool told_to_end = false;
  for (;;) {
    const bool leaves = wanted_to_end() || timed_out;
    if (!leaves) {
      for (auto steps = graph_->next(); !steps.empty() && !wanted_to_end(); steps = graph_->next()) {
        for (auto& step : steps) co_await take(std::move(step));
      }
      while (!ready_.empty() && busy_ < most_tasks_at_once && !wanted_to_end()) {
        const auto next = ready_.front();
        ready_.pop_front();
        std::string missing = input_trouble();
        if (missing.empty()) {
          start_task(next);
        } else {
          co_await give_up_on(next, std::move(missing));
        }
      }
    }
    if (busy_ == 0) {
      if (leaves || ready_.empty()) break;
      continue;
    }
    if (leaves && !told_to_end) {
      told_to_end = true;
      end_tasks();
      deadline = steady::now() + std::chrono::duration_cast<steady::duration>(job_.grace) + patience;
    }
    bool woken = true;
    if (deadline) {
      woken = co_await changed_->wait_until(*deadline);
    } else {
      co_await changed_->wait();
    }
    if (woken) continue;
    if (leaves) {
      leave_behind();
    } else {
      timed_out = true;
    }
  }
  co_return judge(timed_out);
}

asio::awaitable<void> live_run::take(task_step step) {
  switch (step.what) {
    case task_step::action::start: ready_.push_back(step.record); co_return;
    case task_step::action::skip: co_return co_await end_task(step.record, run_state::skipped, std::move(step.reason));
    case task_step::action::end: co_return co_await end_task(step.record, step.state, std::move(step.reason));
    case task_step::action::decide: co_return co_await decide(step.record);
    case task_step::action::expand: co_return co_await expand(step.record);
  }
}

asio::awaitable<void> live_run::decide(std::size_t index) {
  const auto& condition = task_of(index).condition;
  const auto holds = runtime::run_expression(condition).truth(task_context(record_, condition, nullptr));
  if (!holds.failure.empty()) {
    std::string why = "if: " + holds.failure;
    co_await give_up_on(index, std::move(why));
    co_return;
  }
  graph_->decided(index, holds.value);
}

asio::awaitable<void> live_run::expand(std::size_t index) {
  const auto& task = task_of(index);
  std::vector<std::string> items;
  for (const auto& item : task.for_each_items) items.push_back(item.dump());
  if (!task.for_each_expression.empty()) {
    const auto list =
        runtime::run_expression(task.for_each_expression).json(task_context(record_, task.for_each_expression, nullptr));
    const auto parsed = list.failure.empty() ? nlohmann::ordered_json::parse(list.value, nullptr, false) : nlohmann::ordered_json();
    // An empty Lua table may have been either.
    const bool is_list = parsed.is_array() || (parsed.is_object() && parsed.empty());
    if (!is_list) {
      std::string why = "for_each: ";
      why += list.failure.empty() ? "it is not a list: " + list.value.substr(0, 200) : list.failure;
      co_await give_up_on(index, std::move(why));
      co_return;
    }
    for (const auto& item : parsed) items.push_back(item.dump());
  }
  if (items.size() > most_instances) {
    std::string why = "for_each: " + std::to_string(items.size()) + " items are more than " + std::to_string(most_instances);
    co_await give_up_on(index, std::move(why));
    co_return;
  }
  const std::size_t first = record_.tasks.size();
  std::vector<task_record> instances;
  for (std::size_t i = 0; i < items.size(); ++i) {
    instances.push_back({.name = instance_name(task.name, i), .item = std::move(items[i])});
  }
  record_.tasks.insert(record_.tasks.end(), instances.begin(), instances.end());
  working_.resize(record_.tasks.size());
  record_.tasks[index].state = run_state::running;
  record_.tasks[index].started_at = wall_now();
  ++record_.tasks[index].attempt;
  graph_->expanded(index, first, instances.size());
  if (instances.empty()) co_return;
  const auto store_instances = [this, instances] { return around_.store.add_tasks(record_.id, instances); };
  co_await persist(store_instances);
}

// A task that fails before it has started.
asio::awaitable<void> live_run::give_up_on(std::size_t index, std::string reason) {
  graph_->ended(index, run_state::failed);
  co_await end_task(index, run_state::failed, std::move(reason));
}

task_input live_run::input_of_tasks() {
  return [self = shared_from_this()](const asio::any_io_executor& strand) -> std::unique_ptr<runtime::source> {
    const auto& input = self->record_.input;
    if (input.type == run_input::kind::none) return nullptr;
    if (input.type == run_input::kind::inline_events) {
      self->load_inline_input();
      return runtime::make_inline_source(input.ndjson, "/runs/" + self->record_.id);
    }
    if (!self->claim_) {
      auto topic = self->around_.offered.topics.find(input.topic);
      if (!topic) throw std::runtime_error("its input topic '" + input.topic + "' no longer exists");
      topic->require_reached(input.until);
      self->claim_ = std::make_shared<runtime::topic_claim>(std::move(topic), input.after, input.until, input.open, input.where);
    }
    return self->claim_->make_source(strand);
  };
}

// After a restart it is only in the store.
void live_run::load_inline_input() {
  auto& input = record_.input;
  if (input.type == run_input::kind::inline_events && input.ndjson.empty()) input.ndjson = around_.store.load_input(record_.id);
}

// A disk that cannot be read fails the attempt, as whatever else keeps a task from its input. Empty: all is there.
std::string live_run::input_trouble() {
  if (record_.trigger != trigger_kind::file && record_.retry_of.empty()) return {};  // the tasks load it when they read it
  try {
    load_inline_input();
    return {};
  } catch (const std::exception& e) {
    return std::string("its input cannot be loaded: ") + e.what();
  }
}

std::shared_ptr<task_work> live_run::work_of(const config::task& definition, const task_record& task,
                                             task_work::beginning begins) {
  return std::make_shared<task_work>(around_, revision_, record_, job_, definition, task, begins);
}

void live_run::launch(std::size_t index, std::shared_ptr<task_work> work) {
  in_background(around_.where.control, "task " + record_.id + "/" + record_.tasks[index].name, run_task(index, std::move(work)));
}

void live_run::start_task(std::size_t index) {
  auto& task = record_.tasks[index];
  const bool is_ahead = ahead_ != nullptr;
  task = begun(std::move(task), is_ahead ? *record_.started_at : wall_now());
  auto work = is_ahead ? std::exchange(ahead_, nullptr) : work_of(task_of(index), task, task_work::beginning::at_once);
  working_[index] = work;
  ++busy_;
  if (!is_ahead) return launch(index, std::move(work));
  work->permit()->grant();  // where whoever stored the run did not
  caught_up_->notify();
}

asio::awaitable<void> live_run::run_task(std::size_t index, std::shared_ptr<task_work> work) {
  const auto self = shared_from_this();
  auto outcome = co_await work->run(input_of_tasks());
  while (ahead_ == work) co_await caught_up_->wait();  // its program was faster than whoever says that the run is stored
  if (work->permit() && work->permit()->withdrawn()) co_return;
  if (work->abandoned) {  // the attempt went on without it
    --around_.hanging_tasks;
    co_return;
  }
  co_await task_ended(index, std::move(work), std::move(outcome));
}

asio::awaitable<void> live_run::task_ended(std::size_t index, std::shared_ptr<task_work> work, task_record outcome) {
  record_.tasks[index] = outcome;
  if (record_.tasks.size() > 1 && !interrupted_) {
    const auto store_outcome = [this, outcome] { return around_.store.update_task(record_.id, outcome); };
    try {
      co_await persist(store_outcome);
    } catch (const std::exception& e) {
      spdlog::error("run {}: the end of task {} is stored with the run's: {}", record_.id, outcome.name, e.what());
    }
  }
  if (work->abandoned) {  // while that took too long
    --around_.hanging_tasks;
    co_return;
  }
  leaves_positions_ = leaves_positions_ || work->leaves_positions();
  working_[index].reset();
  --busy_;
  graph_->ended(index, outcome.state);
  changed_->notify();
}

// A record that ends without having run: skipped, undecidable, or one that fanned out.
asio::awaitable<void> live_run::end_task(std::size_t index, run_state state, std::string reason) {
  auto& task = record_.tasks[index];
  task.state = state;
  task.reason = std::move(reason);
  task.ended_at = wall_now();
  co_return;  // stored with the run's end: after a crash the graph finds the same
}

void live_run::end_tasks() {
  for (const auto& work : working_) {
    if (work) work->cancel();
  }
}

// A sink that hangs: its thread cannot be killed, only left behind.
void live_run::leave_behind() {
  leaves_positions_ = true;
  for (std::size_t i = 0; i < working_.size(); ++i) {
    if (!working_[i]) continue;
    working_[i]->abandoned = true;
    ++around_.hanging_tasks;
    if (!is_final(record_.tasks[i].state)) {  // else only its end is still being stored
      record_.tasks[i].reason = "it hangs and was left behind";
      hangs_ = true;
    }
    working_[i].reset();
  }
  busy_ = 0;
}

// Of a program that was let go before it could be taken in.
void live_run::leave_ahead_behind() {
  if (withdraw()) return;
  ahead_->abandoned = true;
  ++around_.hanging_tasks;
  ahead_->cancel();
  ahead_.reset();
  caught_up_->notify();
}

attempt_result live_run::judge(bool timed_out) const {
  attempt_result end;
  end.timed_out = timed_out;
  end.permanent = hangs_;  // a second attempt beside a sink that still hangs could write the same events twice
  for (std::size_t i = 0; i < record_.tasks.size(); ++i) {
    const auto& task = record_.tasks[i];
    const bool failed = task.state != run_state::succeeded && task.state != run_state::skipped;
    if (!failed || task_of(i).allow_failure) continue;
    end.timed_out = end.timed_out || task.state == run_state::timed_out;
    if (!end.reason.empty()) continue;
    end.reason = "task " + task.name + ": " + (task.reason.empty() ? "it did not run" : task.reason);
    end.exit_code = task.exit_code;
  }
  const bool by_task = std::any_of(record_.tasks.begin(), record_.tasks.end(),
                                   [](const auto& t) { return t.state == run_state::timed_out; });
  if (timed_out && !by_task) {
    end.reason = "the run took longer than its timeout of " + format_duration(*job_.timeout) +
                 (end.reason.empty() ? "" : "; " + end.reason);
  }
  return end;
}

// ---- its end ----

// A store that fails (disk full) is tried again until it works or the daemon stops: a run is never stuck for it.
asio::awaitable<void> live_run::persist(std::function<asio::awaitable<void>()> write) {
  asio::steady_timer timer(around_.where.control);
  while (!interrupted_) {
    try {
      co_await write();
      co_return;
    } catch (const std::logic_error&) {
      throw;
    } catch (const std::exception& e) {
      spdlog::error("run {}: its state cannot be stored, trying again in 1 s: {}", record_.id, e.what());
    }
    timer.expires_after(std::chrono::seconds(1));
    co_await timer.async_wait(asio::use_awaitable);
  }
}

// Stores the end, together with what follows from it. A store that fails (disk full) is tried again until it works or the
// daemon stops: the run's outcome is not lost.
asio::awaitable<void> live_run::finish(run_state state, std::string reason) {
  run_record ended = record_;  // shown only once it is durable
  ended.state = state;
  ended.reason = std::move(reason);
  ended.waiting_reason.clear();
  ended.retry_at.reset();
  ended.input.open = false;
  ended.ended_at = wall_now();
  for (auto& task : ended.tasks) {
    if (is_final(task.state)) continue;
    task.state = state == run_state::cancelled ? run_state::cancelled : run_state::skipped;
    task.reason = task.started_at && !task.ended_at ? "the run ended while it ran" : "the run ended before it started";
  }
  for (auto pause = std::chrono::seconds(1); !interrupted_; pause = std::min(pause * 2, std::chrono::seconds(30))) {
    if (co_await store_end(ended)) break;
    co_await changed_->wait_until(steady::now() + pause);
  }
}

// One try; false when the store failed.
asio::awaitable<bool> live_run::store_end(const run_record& ended) {
  auto dependents = around_.dependents(ended);
  run_end end;
  end.run = ended.id;
  end.state = ended.state;
  end.reason = ended.reason;
  end.at = *ended.ended_at;
  end.tasks = ended.tasks;
  for (const auto& d : dependents) end.dependents.push_back(d.made);
  end.alerts = failure_alerts(ended, job_, around_.options.data);
  end.started = unstored_start_;
  const bool alerts = !end.alerts.empty();
  std::exception_ptr failure;
  ++around_.ends_unstored;
  tell_.idle(shared_from_this());
  try {
    co_await around_.store.finish_run(std::move(end));
    record_ = ended;
    start_stored();
    around_.tell(record_);
  } catch (...) {
    failure = std::current_exception();
  }
  --around_.ends_unstored;
  for (auto& d : dependents) {
    d.settle(!failure);
    if (!failure) around_.tell_if_over(d.made.run);
  }
  if (failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const std::logic_error&) {
      throw;  // a bug: trying again would not help
    } catch (const std::exception& e) {
      spdlog::error("run {}: its end cannot be stored, it will be tried again: {}", ended.id, e.what());
      co_return false;
    }
  }
  if (alerts) around_.alerts_wait->notify();
  const bool went_wrong = ended.state == run_state::failed || ended.state == run_state::timed_out;
  spdlog::log(went_wrong ? spdlog::level::warn : spdlog::level::info, "run {} of {}/{}: {}{}{}", ended.id, ended.pipeline, ended.job,
              token(ended.state), ended.reason.empty() ? "" : ": ", ended.reason);
  if (leaves_positions_) {
    in_background(around_.where.control, "positions of run " + ended.id,
                  around_.offered.flows.forget(ended.pipeline + "/run/" + ended.id));
  }
  co_return true;
}

// ---- deadline and lateness ----

void live_run::watch_clock() {
  const bool late = std::any_of(job_.alerts.begin(), job_.alerts.end(),
                                [](const auto& a) { return a.late_after.count() > 0; });
  if (keeps_time_ || over_ || (!record_.deadline_at && !late)) return;
  keeps_time_ = true;
  in_background(around_.where.control, "clock of run " + record_.id, keep_time());
}

asio::awaitable<void> live_run::keep_time() {
  const auto self = shared_from_this();
  struct moment {
    timestamp at;
    std::optional<std::size_t> alert;  // absent: the deadline
  };
  const auto due = record_.trigger == trigger_kind::backfill || !record_.retry_of.empty() ? std::nullopt : record_.scheduled_for;
  std::vector<moment> all;
  if (record_.deadline_at) all.push_back({*record_.deadline_at, std::nullopt});
  for (std::size_t i = 0; i < job_.alerts.size(); ++i) {
    if (job_.alerts[i].late_after.count() > 0) all.push_back({late_at(job_.alerts[i], record_.created_at, due), i});
  }
  std::sort(all.begin(), all.end(), [](const moment& a, const moment& b) { return a.at < b.at; });
  for (const moment& next : all) {
    while (!over_ && !interrupted_ && wall_now() < next.at) co_await clock_->wait_until(steady_time(next.at));
    if (over_ || interrupted_) co_return;
    if (next.alert) {
      in_background(around_.where.control, "late alert of run " + record_.id, tell_late(*next.alert));
    } else {
      end_as(run_state::timed_out, "its deadline of " + format_duration(*job_.deadline) + " has passed");
    }
  }
}

// A store that fails (disk full) is asked again while the run lives.
asio::awaitable<void> live_run::tell_late(std::size_t alert) {
  const auto self = shared_from_this();
  auto late = record_;
  if (auto why = around_.room.why_waiting(record_.id); !why.empty()) late.waiting_reason = std::move(why);
  const auto told = late_alert(late, alert, around_.options.data);
  asio::steady_timer timer(around_.where.control);
  for (bool last_try = false; !last_try;) {
    last_try = over_ || interrupted_;
    try {
      co_await around_.store.add_alert(told);
      around_.alerts_wait->notify();
      co_return;
    } catch (const std::exception& e) {
      spdlog::error("run {}: that it is late cannot be stored: {}", record_.id, e.what());
    }
    timer.expires_after(std::chrono::seconds(1));
    co_await timer.async_wait(asio::use_awaitable);
  }
}

}  // namespace penstock::scheduler
