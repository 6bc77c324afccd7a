// One run that is not final yet: waiting, executing its attempts, or pausing between two.
//
// Control thread; held by its job_runs and by its own coroutines. Its tasks run on strands of the batch pool (task_work).
// The record in memory is what REST shows; the store has every state a restart needs. Ends in exactly one of two ways:
// final (stored, together with the runs that `after` triggers make of it and its alerts) or interrupted by the daemon's
// stop, when the store still says "running" and the next start queues it again.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/inputs.hpp"
#include "scheduler/pipeline_revision.hpp"
#include "scheduler/policy.hpp"
#include "scheduler/surroundings.hpp"
#include "scheduler/task_graph.hpp"
#include "scheduler/task_work.hpp"

namespace penstock::scheduler {

// Stores that an attempt of a run starts. When a commit failed that had stored it all the same, it may be called again.
asio::awaitable<void> store_attempt(store& state, std::string run, int attempt, timestamp at);

class live_run : public std::enable_shared_from_this<live_run> {
 public:
  using handler = std::function<void(const std::shared_ptr<live_run>&)>;
  struct handlers {
    handler idle;   // nothing of it runs and nothing of it will; called in the moment in which its end goes to the store
    handler ended;  // it is final or interrupted; called once
  };

  // `revision` has the job. `retries`: the budget that the runs of the job share.
  live_run(surroundings& around, run_record record, std::shared_ptr<const pipeline_revision> revision,
           std::shared_ptr<retry_budget_state> retries, handlers tell);

  const run_record& record() const { return record_; }
  const config::job& job() const { return job_; }
  bool executing() const { return executing_; }
  bool over() const { return over_; }
  bool has_single_task() const;  // and it stays one: nothing fans out

  void was_begun_before() { leaves_positions_ = true; }  // perhaps, in an earlier life of the daemon
  void watch_clock();                 // its deadline and its alerts of lateness count from now on
  void start();                       // the store says running, attempt `record().attempt`
  // Before start(), while the run is being stored as running: its program is made ready, and starts when the permit is granted
  // or at start(). Null: it is not one for that, all waits for start(). What is made ready needs start() or withdraw().
  std::shared_ptr<runtime::start_permit> make_ready();
  bool withdraw();  // what make_ready() did; false: too late, its program was let go and start() must follow
  void started(int attempt, timestamp at);  // the store has just been told so, or will be told later
  // The start that the store does not know of yet; whoever stores it says so.
  const std::optional<attempt_start>& unstored_start() const { return unstored_start_; }
  void start_is_unstored(attempt_start start) { unstored_start_ = start; }
  void start_stored() { unstored_start_.reset(); }
  void cancel(std::string reason);    // ends it as cancelled, also while it waits
  void let_end();                     // the daemon stops: what runs may end, but no further attempt begins
  void interrupt();                   // the daemon stops: end the tasks, leave the record as it is
  void clock_was_set() { clock_->notify(); }

  // The claim grows by `events` or closes (grace_period); stored by the caller before.
  void extend_input(std::int64_t until, std::int64_t events);
  void close_input();

  // Returns when the run has ended or at `deadline`.
  asio::awaitable<void> wait_for_end(std::chrono::steady_clock::time_point deadline);

 private:
  struct ending {  // somebody wants the run to end
    run_state state;
    std::string reason;
  };
  asio::awaitable<void> execute();
  asio::awaitable<void> run_attempts();
  asio::awaitable<void> let_tasks_end();
  asio::awaitable<bool> try_again(attempt_result failure);
  asio::awaitable<bool> pause_before(int attempt, std::string failure);
  void end_as(run_state state, std::string reason);
  bool wanted_to_end() const { return !ahead_ && (interrupted_ || ending_); }  // a program that was let go is taken in first

  // ---- one attempt ----
  asio::awaitable<attempt_result> run_attempt();  // empty reason: all tasks succeeded
  asio::awaitable<void> take(task_step step);
  asio::awaitable<void> decide(std::size_t index);
  asio::awaitable<void> expand(std::size_t index);
  asio::awaitable<void> give_up_on(std::size_t index, std::string reason);
  bool may_be_ahead() const;
  std::shared_ptr<task_work> work_of(const config::task& definition, const task_record& task, task_work::beginning begins);
  void launch(std::size_t index, std::shared_ptr<task_work> work);
  void start_task(std::size_t index);
  asio::awaitable<void> run_task(std::size_t index, std::shared_ptr<task_work> work);
  asio::awaitable<void> task_ended(std::size_t index, std::shared_ptr<task_work> work, task_record outcome);
  asio::awaitable<void> end_task(std::size_t index, run_state state, std::string reason);
  void end_tasks();
  void leave_behind();
  void leave_ahead_behind();
  attempt_result judge(bool timed_out) const;
  const config::task& task_of(std::size_t index) const { return job_.tasks.at(graph_->task_of(index)); }
  task_input input_of_tasks();
  std::string input_trouble();
  void load_inline_input();

  // ---- its end ----
  asio::awaitable<void> finish(run_state state, std::string reason);
  asio::awaitable<bool> store_end(const run_record& ended);
  asio::awaitable<void> persist(std::function<asio::awaitable<void>()> write);
  asio::awaitable<void> keep_time();
  asio::awaitable<void> tell_late(std::size_t alert);

  surroundings& around_;
  run_record record_;
  const std::shared_ptr<const pipeline_revision> revision_;
  const config::job& job_;  // in *revision_
  const std::shared_ptr<retry_budget_state> retries_;
  const handlers tell_;

  std::shared_ptr<runtime::topic_claim> claim_;
  std::optional<task_graph> graph_;                            // of this attempt
  std::shared_ptr<task_work> ahead_;                           // of the first record: made ready, not started by us yet
  std::shared_ptr<runtime::wakeup> caught_up_;                 // with ahead_: that is no longer so
  std::vector<std::shared_ptr<task_work>> working_;            // by record; null: does not run now
  std::size_t busy_ = 0;                                       // how many do
  bool hangs_ = false;                                         // one was left behind
  std::deque<std::size_t> ready_;                              // may start, but too many run at once
  std::shared_ptr<runtime::wakeup> changed_;  // a task ended, or somebody wants the run to end
  std::shared_ptr<runtime::wakeup> clock_;    // wakes keep_time() at the end
  std::vector<std::shared_ptr<runtime::wakeup>> waiting_for_end_;
  bool keeps_time_ = false;
  bool executing_ = false;
  bool over_ = false;
  bool interrupted_ = false;
  bool last_attempt_ = false;  // the daemon stops
  std::optional<ending> ending_;
  std::optional<attempt_start> unstored_start_;
  bool leaves_positions_ = false;  // some of its tasks' are in the flow store, to be forgotten at its end
};

}  // namespace penstock::scheduler
