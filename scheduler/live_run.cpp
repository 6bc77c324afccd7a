#include "scheduler/live_run.hpp"

#include <boost/asio/strand.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <spdlog/spdlog.h>

#include "runtime/topic.hpp"
#include "scheduler/background.hpp"

namespace penstock::scheduler {

namespace {

using steady = std::chrono::steady_clock;

std::mt19937_64& random_source() {
  thread_local std::mt19937_64 source{std::random_device{}()};
  return source;
}

double jitter() { return std::uniform_real_distribution<double>(0.5, 1.0)(random_source()); }

// W3C Trace Context, version 00: a new trace for a run's task.
std::string make_traceparent() {
  auto hex = [] { return fmt::format("{:016x}", random_source()() | 1); };
  return "00-" + hex() + hex() + "-" + hex() + "-01";
}

// True when a task has a sink: its positions are kept while the run may be tried again.
bool keeps_positions(const config::job& job) {
  return std::any_of(job.tasks.begin(), job.tasks.end(), [](const config::task& task) {
    const auto* command = std::get_if<config::command>(&task.does);
    return !command || command->to;
  });
}

// PENSTOCK_PARAM_NAME: upper case, anything but letters and digits as an underscore.
std::string parameter_variable(const std::string& name) {
  std::string variable = "PENSTOCK_PARAM_";
  for (const char c : name) {
    const auto u = static_cast<unsigned char>(c);
    variable += std::isalnum(u) ? static_cast<char>(std::toupper(u)) : '_';
  }
  return variable;
}

}  // namespace

live_run::live_run(surroundings& around, run_record record, std::shared_ptr<const pipeline_revision> revision,
                   ended_handler ended)
    : around_(around),
      record_(std::move(record)),
      revision_(std::move(revision)),
      job_(revision_->definition->jobs.at(record_.job)),
      ended_(std::move(ended)),
      changed_(std::make_shared<runtime::wakeup>(around.where.control)) {}

std::string live_run::consumer(const std::string& task) const {
  return record_.pipeline + "/run/" + record_.id + "/" + task;
}

task_record& live_run::task_named(const std::string& name) {
  for (auto& task : record_.tasks) {
    if (task.name == name) return task;
  }
  throw std::logic_error("run " + record_.id + " has no task " + name);
}

void live_run::wait_for(std::string reason) { record_.waiting_reason = std::move(reason); }

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
    task.exit_code.reset();
    task.ended_at.reset();
  }
}

void live_run::start() {
  executing_ = true;
  in_background(around_.where.control, "run " + record_.id, execute());
}

void live_run::cancel(std::string reason) {
  if (over_ || !cancel_reason_.empty()) return;
  cancel_reason_ = std::move(reason);
  if (executing_) {
    end_tasks();
    changed_->notify();
  } else {
    start();  // a waiting run ends without executing anything
  }
}

void live_run::interrupt() {
  if (over_) return;
  interrupted_ = true;
  end_tasks();
  changed_->notify();
}

void live_run::extend_input(std::int64_t until) {
  record_.input.events += until - record_.input.until;
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

asio::awaitable<void> live_run::execute() {
  const auto self = shared_from_this();
  try {
    co_await run_attempts();
  } catch (const std::exception& e) {
    spdlog::critical("run {}: {}", record_.id, e.what());  // a bug; the run is taken up again at the next start
  }
  over_ = true;
  for (const auto& waiting : waiting_for_end_) waiting->notify();
  ended_(self);
}

asio::awaitable<void> live_run::run_attempts() {
  while (cancel_reason_.empty() && !interrupted_) {
    const auto attempt = co_await run_attempt();
    if (interrupted_ || !cancel_reason_.empty()) break;
    if (attempt.reason.empty()) {
      co_await finish(run_state::succeeded, "");
      break;
    }
    auto next = after_failure(job_.retry, record_.attempt, attempt);
    const bool hangs = std::any_of(executions_.begin(), executions_.end(), [](const auto& e) { return e && e->running; });
    // A second attempt beside a sink that still hangs could write the same events twice.
    if (hangs) next = attempt.timed_out ? run_state::timed_out : run_state::failed;
    if (next != run_state::retrying) {
      co_await finish(next, attempt.reason);
      break;
    }
    if (!co_await pause_before(record_.attempt + 1, attempt)) break;
  }
  if (!is_final(record_.state) && !interrupted_) co_await finish(run_state::cancelled, cancel_reason_);
}

// Runs tasks as their needs allow until none runs and none can start. The result's reason is empty when all succeeded.
asio::awaitable<attempt_result> live_run::run_attempt() {
  std::optional<steady::time_point> deadline;
  if (job_.timeout) deadline = steady::now() + std::chrono::duration_cast<steady::duration>(*job_.timeout);
  executions_.assign(record_.tasks.size(), nullptr);

  attempt_result end;
  for (;;) {
    const bool ending = interrupted_ || !cancel_reason_.empty() || end.timed_out;
    const auto step = next_tasks(job_, record_.tasks);
    for (const auto& name : step.skip) skip_task(name);
    if (!ending) {
      for (const auto& name : step.start) {
        start_task(static_cast<std::size_t>(&task_named(name) - record_.tasks.data()));
      }
    }
    const bool any_running = std::any_of(executions_.begin(), executions_.end(),
                                         [](const auto& e) { return e && e->running && !e->abandoned; });
    if (!any_running) {
      if (ending || step.start.empty()) break;
      continue;
    }
    if (ending) deadline = steady::now() + std::chrono::duration_cast<steady::duration>(job_.grace) + std::chrono::seconds(5);
    if (co_await wait_for_tasks(deadline)) continue;
    if (!ending) {
      end.timed_out = true;
      end_tasks();
      continue;
    }
    for (const auto& e : executions_) {  // a sink that hangs: its thread cannot be killed, only left behind
      if (!e || !e->running || e->abandoned) continue;
      e->abandoned = true;
      ++around_.hanging_tasks;
    }
  }

  for (const auto& task : record_.tasks) {
    if (task.state == run_state::timed_out) end.timed_out = true;
    const bool failed = task.state != run_state::succeeded && task.state != run_state::skipped;
    if (failed && end.reason.empty()) end.reason = "task " + task.name + ": " + task.reason;
  }
  if (end.timed_out && job_.timeout) {
    const bool by_run = std::none_of(record_.tasks.begin(), record_.tasks.end(),
                                     [](const auto& t) { return t.state == run_state::timed_out; });
    if (by_run) end.reason = "the run took longer than its timeout of " + format_duration(*job_.timeout) +
                             (end.reason.empty() ? "" : "; " + end.reason);
  }
  co_return end;
}

asio::awaitable<bool> live_run::wait_for_tasks(std::optional<steady::time_point> deadline) {
  if (deadline) co_return co_await changed_->wait_until(*deadline);
  co_await changed_->wait();
  co_return true;
}

asio::awaitable<bool> live_run::pause_before(int attempt, const attempt_result& failure) {
  const auto pause = backoff(job_.retry, attempt, jitter());
  record_.state = run_state::retrying;
  record_.retry_at = wall_now() + std::chrono::duration_cast<std::chrono::microseconds>(pause);
  record_.waiting_reason = fmt::format("attempt {} of {} at {} after: {}", attempt, job_.retry.attempts,
                                       format_time(*record_.retry_at), failure.reason);
  const auto store_pause = [this] {
    return around_.store.set_waiting(record_.id, run_state::retrying, record_.waiting_reason, record_.retry_at);
  };
  co_await persist(store_pause);
  const auto deadline = steady::now() + std::chrono::duration_cast<steady::duration>(pause);
  while (cancel_reason_.empty() && !interrupted_) {
    if (!co_await changed_->wait_until(deadline)) {
      const auto now = wall_now();
      const auto store_start = [this, attempt, now] {
        return around_.store.start_attempt(record_.id, attempt, now);
      };
      co_await persist(store_start);
      started(attempt, now);
      co_return true;
    }
  }
  co_return false;
}

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

// Stores the end, together with the runs that follow from it. A store that fails (disk full) is tried again until it
// works or the daemon stops: the run's outcome is not lost.
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
    task.reason = "the run ended before it started";
  }
  for (auto pause = std::chrono::seconds(1); !interrupted_; pause = std::min(pause * 2, std::chrono::seconds(30))) {
    if (co_await store_end(ended)) break;
    co_await changed_->wait_until(steady::now() + pause);
  }
}

// One try; false when the store failed.
asio::awaitable<bool> live_run::store_end(const run_record& ended) {
  auto dependents = around_.dependents(ended);
  std::vector<new_run> rows;
  for (const auto& d : dependents) rows.push_back(d.made);
  std::exception_ptr failure;
  try {
    co_await around_.store.finish_run(ended.id, ended.state, ended.reason, *ended.ended_at, ended.tasks, std::move(rows));
    record_ = ended;
  } catch (...) {
    failure = std::current_exception();
  }
  for (auto& d : dependents) d.settle(!failure);
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
  spdlog::info("run {} of {}/{}: {}{}{}", ended.id, ended.pipeline, ended.job, token(ended.state),
               ended.reason.empty() ? "" : ": ", ended.reason);
  if (keeps_positions(job_)) {
    in_background(around_.where.control, "positions of run " + ended.id,
                  around_.offered.flows.forget(ended.pipeline + "/run/" + ended.id));
  }
  co_return true;
}

void live_run::skip_task(const std::string& name) {
  auto& task = task_named(name);
  task.state = run_state::skipped;
  task.reason = "a task that it needs did not succeed";
  task.ended_at = wall_now();
}

void live_run::start_task(std::size_t index) {
  auto& task = record_.tasks[index];
  task.state = run_state::running;
  ++task.attempt;
  task.started_at = wall_now();
  task.ended_at.reset();
  executions_[index] = std::make_shared<execution>();
  executions_[index]->running = true;
  in_background(around_.where.control, "task " + consumer(task.name), run_task(index, executions_[index]));
}

void live_run::end_tasks() {
  for (const auto& e : executions_) {
    if (!e || !e->running) continue;
    if (e->dataflow) e->dataflow->request_drain();
    if (e->command) e->command->cancel();
  }
}

asio::awaitable<void> live_run::run_task(std::size_t index, shared_execution self) {
  const auto keep = shared_from_this();
  const auto& definition = job_.tasks.at(index);
  task_record outcome = record_.tasks[index];
  try {
    if (const auto* dataflow = std::get_if<config::dataflow>(&definition.does)) {
      co_await run_dataflow(*dataflow, outcome, self);
    } else {
      co_await run_command(definition, std::get<config::command>(definition.does), outcome, self);
    }
  } catch (const std::exception& e) {
    outcome.state = run_state::failed;
    outcome.reason = e.what();
  }
  self->running = false;
  if (self->abandoned) {  // the attempt went on without it
    --around_.hanging_tasks;
    co_return;
  }
  outcome.ended_at = wall_now();
  record_.tasks[index] = outcome;
  if (record_.tasks.size() > 1 && !interrupted_) {
    const auto store_outcome = [this, outcome] { return around_.store.update_task(record_.id, outcome); };
    co_await persist(store_outcome);
  }
  changed_->notify();
}

std::unique_ptr<runtime::source> live_run::make_input(const asio::any_io_executor& strand, bool required) {
  switch (record_.input.type) {
    case run_input::kind::topic: {
      if (!claim_) {
        auto topic = around_.offered.topics.find(record_.input.topic);
        if (!topic) throw std::runtime_error("its input topic '" + record_.input.topic + "' no longer exists");
        claim_ = std::make_shared<runtime::topic_claim>(std::move(topic), record_.input.after, record_.input.until,
                                                        record_.input.open);
      }
      return claim_->make_source(strand);
    }
    case run_input::kind::inline_events:
      if (record_.input.ndjson.empty()) record_.input.ndjson = around_.store.load_input(record_.id);
      return runtime::make_inline_source(record_.input.ndjson, "/runs/" + record_.id);
    case run_input::kind::none: break;
  }
  return required ? runtime::make_empty_source() : nullptr;
}

asio::awaitable<void> live_run::run_dataflow(const config::dataflow& definition, task_record& task,
                                             shared_execution self) {
  const auto strand = asio::make_strand(around_.where.batch);
  runtime::dataflow_options options;
  options.pipeline = record_.pipeline;
  options.consumer = consumer(task.name);
  options.workdir = revision_->workdir;
  options.definition = definition;
  options.counters = std::make_shared<runtime::dataflow_counters>();
  if (!definition.from) options.input = make_input(strand, true);
  self->dataflow = std::make_shared<runtime::dataflow_run>(strand, around_.components, around_.offered, std::move(options));
  const auto outcome = co_await self->dataflow->run();
  switch (outcome.end) {
    case runtime::dataflow_end::input_ended: task.state = run_state::succeeded; break;
    case runtime::dataflow_end::drained:
      task.state = run_state::cancelled;
      task.reason = "stopped before the end of its input";
      break;
    case runtime::dataflow_end::failed:
      task.state = run_state::failed;
      task.reason = outcome.reason;
      break;
  }
}

asio::awaitable<void> live_run::run_command(const config::task& definition, const config::command& command,
                                            task_record& task, shared_execution self) {
  const auto strand = asio::make_strand(around_.where.batch);
  runtime::command_options options;
  options.definition = command;
  options.pipeline = record_.pipeline;
  options.consumer = consumer(task.name);
  options.workdir = revision_->workdir;
  options.log = around_.options.data / "logs" / record_.id / (task.name + ".log");
  options.log_limit_bytes = around_.options.max_log_bytes;
  options.input = make_input(strand, false);
  options.timeout = definition.timeout;
  options.grace = job_.grace;

  auto& environment = options.environment;
  environment = base_environment(around_.options.instance, record_.pipeline);
  environment["PENSTOCK_JOB"] = record_.job;
  environment["PENSTOCK_RUN_ID"] = record_.id;
  environment["PENSTOCK_TASK"] = task.name;
  environment["PENSTOCK_ATTEMPT"] = std::to_string(record_.attempt);
  environment["PENSTOCK_IDEMPOTENCY_KEY"] = record_.id + "/" + task.name;
  environment["TRACEPARENT"] = make_traceparent();
  if (!record_.upstream_run.empty()) environment["PENSTOCK_UPSTREAM_RUN"] = record_.upstream_run;
  if (record_.scheduled_for) environment["PENSTOCK_SCHEDULED_FOR"] = format_time(*record_.scheduled_for);
  const auto params = nlohmann::json::parse(record_.params);
  for (const auto& [name, value] : params.items()) {
    environment[parameter_variable(name)] = value.is_string() ? value.get<std::string>() : value.dump();
  }

  self->command = std::make_shared<runtime::command_run>(strand, around_.components, around_.offered, std::move(options));
  const auto outcome = co_await self->command->run();
  if (outcome.end == runtime::command_end::exited) task.exit_code = outcome.exit_code;
  task.reason = outcome.reason;
  for (const auto& failure : {outcome.input_failure, outcome.output_failure}) {
    if (!failure.empty()) task.reason = failure;
  }
  if (outcome.ok()) {
    task.state = run_state::succeeded;
  } else if (outcome.end == runtime::command_end::timed_out) {
    task.state = run_state::timed_out;
  } else if (outcome.end == runtime::command_end::cancelled) {
    task.state = run_state::cancelled;
  } else {
    task.state = run_state::failed;
  }
}

}  // namespace penstock::scheduler
