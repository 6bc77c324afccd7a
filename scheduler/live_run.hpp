// One run that is not final yet: waiting, executing its attempts, or pausing between two.
//
// Control thread; held by its job_supervisor and by its own coroutine. Its tasks run on strands of the batch pool. The
// record in memory is what REST shows; the store has every state a restart needs. Ends in exactly one of two ways:
// final (stored, together with the runs that `after` triggers make of it) or interrupted by the daemon's stop, when the
// store still says "running" and the next start queues it again.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/command_run.hpp"
#include "runtime/dataflow_run.hpp"
#include "runtime/inputs.hpp"
#include "scheduler/pipeline_revision.hpp"
#include "scheduler/policy.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class live_run : public std::enable_shared_from_this<live_run> {
 public:
  using ended_handler = std::function<void(const std::shared_ptr<live_run>&)>;

  // `revision` has the job. `ended` is called once, when the run is final or interrupted.
  live_run(surroundings& around, run_record record, std::shared_ptr<const pipeline_revision> revision,
           ended_handler ended);

  const run_record& record() const { return record_; }
  const config::job& job() const { return job_; }
  bool executing() const { return executing_; }

  void start();                       // the store says running, attempt `record().attempt`
  void started(int attempt, timestamp at);  // the store has just been told so
  void wait_for(std::string reason);  // what a queued run waits for, as REST shows it
  void cancel(std::string reason);    // ends it as cancelled, also while it waits
  void interrupt();                   // the daemon stops: end the tasks, leave the record as it is
  bool interrupted() const { return interrupted_; }

  // The claim grows or closes (grace_period); stored by the caller before.
  void extend_input(std::int64_t until);
  void close_input();

  // Returns when the run has ended or at `deadline`.
  asio::awaitable<void> wait_for_end(std::chrono::steady_clock::time_point deadline);

 private:
  // One task's execution: how to stop it, and whether it still runs.
  struct execution {
    std::shared_ptr<runtime::dataflow_run> dataflow;
    std::shared_ptr<runtime::command_run> command;
    bool running = false;
    bool abandoned = false;
  };
  // Shared with task coroutines, which may outlive the attempt when they had to be abandoned.
  using shared_execution = std::shared_ptr<execution>;

  asio::awaitable<void> execute();
  asio::awaitable<void> run_attempts();
  asio::awaitable<attempt_result> run_attempt();
  asio::awaitable<bool> wait_for_tasks(std::optional<std::chrono::steady_clock::time_point> deadline);
  asio::awaitable<bool> pause_before(int attempt, const attempt_result& failure);
  asio::awaitable<void> finish(run_state state, std::string reason);
  asio::awaitable<bool> store_end(const run_record& ended);
  asio::awaitable<void> persist(std::function<asio::awaitable<void>()> write);
  asio::awaitable<void> run_task(std::size_t index, shared_execution self);
  asio::awaitable<void> run_dataflow(const config::dataflow& definition, task_record& task, shared_execution self);
  asio::awaitable<void> run_command(const config::task& definition, const config::command& command, task_record& task,
                                    shared_execution self);
  void start_task(std::size_t index);
  void skip_task(const std::string& name);
  void end_tasks();
  std::unique_ptr<runtime::source> make_input(const asio::any_io_executor& strand, bool required);
  std::string consumer(const std::string& task) const;
  task_record& task_named(const std::string& name);

  surroundings& around_;
  run_record record_;
  const std::shared_ptr<const pipeline_revision> revision_;
  const config::job& job_;  // in *revision_
  ended_handler ended_;

  std::shared_ptr<runtime::topic_claim> claim_;
  std::vector<shared_execution> executions_;  // of this attempt
  std::shared_ptr<runtime::wakeup> changed_;  // a task ended, or somebody wants the run to end
  std::vector<std::shared_ptr<runtime::wakeup>> waiting_for_end_;
  bool executing_ = false;
  bool over_ = false;
  bool interrupted_ = false;
  std::string cancel_reason_;  // not empty: cancelled
};

}  // namespace penstock::scheduler
