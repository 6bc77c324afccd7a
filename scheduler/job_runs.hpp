// The runs of one job that are not final: admitting new ones, keeping them while they wait, starting them.
//
// Control thread; shared by the job's supervisor, its trigger watches and the runs' own callbacks. What always holds:
// every run in `held_` is also in the surroundings' `unfinished`, and has its place in the dispatcher (waiting or with
// room) under its `room` name until it has ended; where runs of the job may overlap, until nothing of it runs any more:
// then nobody has to wait until its end is on disk. `loads_` counts them by overlap key, together with the runs that are
// about to be stored. What is stored as running has its room before; what could not be stored gives it back. The program of a
// run that is being stored as running gets ready meanwhile, and is let go by the store thread the moment it is durable.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/wakeup.hpp"
#include "scheduler/live_run.hpp"
#include "scheduler/pipeline_revision.hpp"
#include "scheduler/policy.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class job_runs : public std::enable_shared_from_this<job_runs> {
 public:
  // `changed` is notified when a run has ended or could not be stored.
  job_runs(surroundings& around, std::shared_ptr<const pipeline_revision> revision, std::string job,
           std::shared_ptr<runtime::wakeup> changed);
  ~job_runs();

  void redefine(std::shared_ptr<const pipeline_revision> revision);  // for new runs
  void stop();    // what waits stays queued in the store for the next start
  void let_go();  // of it, at the very end: runs and their job hold each other
  void clock_was_set();

  const std::string& pipeline() const { return revision_->name; }
  const std::string& job() const { return name_; }
  const std::shared_ptr<const pipeline_revision>& revision() const { return revision_; }
  const config::job& definition() const { return revision_->definition->jobs.at(name_); }

  // ---- making runs ----
  run_record draft(trigger_kind trigger) const;
  // Admits a drafted run by the overlap rule. overloaded: the queue is full; invalid: its overlap key fails. A skipped one
  // is admitted too, as a run that has ended. A backfill's run always waits for its turn.
  result<prepared_run> prepare(run_record run);
  // A request's: prepare, store, settle. overloaded, too: max_waiting_requests wait for theirs to be stored; who comes again
  // with a known idempotency key waits for nothing. invalid: the key came with another request before.
  asio::awaitable<result<trigger_answer>> make(run_record run, std::optional<idempotency> once);
  // Several in one transaction; one that is refused is stored as skipped. `move` goes with the last.
  asio::awaitable<void> make_all(std::vector<run_record> runs, std::optional<schedule_move> move);
  // A run found unfinished at start; it waits. One that paused before its next attempt does so until then.
  void take_over(run_record record, std::shared_ptr<const pipeline_revision> revision);

  // ---- claims: a trigger asks for room first, and makes its run when it has it ----
  // True: it has the room called `entry.id`. False: `granted` is called when it has.
  bool ask(queue_entry entry, std::function<void()> granted);
  void give_back(const std::string& room) { around_.room.release(room); }
  struct claim {
    new_run made;
    std::string room;  // it has
  };
  // Stores the runs of claims as running, all or none (thrown), and starts each in its room.
  asio::awaitable<std::vector<std::shared_ptr<live_run>>> start_claimed(std::vector<claim> claims);
  // Somebody must extend or close the input of a run whose claim is open; asked when such a run starts again. False:
  // nobody does.
  std::function<bool(const std::shared_ptr<live_run>&)> watch_open{};

  std::string overlap_key(const run_record& run, std::string_view event) const;  // throws std::runtime_error

  std::int64_t running() const { return running_; }
  std::int64_t waiting() const { return waiting_; }
  bool any_waiting(trigger_kind trigger) const;
  bool holds(const std::string& run) const { return held_.contains(run); }
  bool has_active(const std::string& overlap_key) const;
  std::vector<std::shared_ptr<live_run>> executing() const;
  bool idle() const { return held_.empty() && running_ == 0 && waiting_ == 0; }
  bool stopping() const { return stopping_; }
  // After stop(): programs that were let go in that moment, whose runs will be begun as soon as it is told that they are stored.
  bool has_arriving() const { return !arriving_.empty(); }

 private:
  struct held {
    std::shared_ptr<live_run> run;
    std::string room;  // its name in the dispatcher
    bool has_room = false;
    bool taken_over = false;  // it was made in an earlier life of the daemon
    std::shared_ptr<runtime::wakeup> pause{};  // while a run that was taken over waits for the time of its next attempt
  };
  struct key_load {
    std::int64_t running = 0, waiting = 0;
  };
  enum class place { none, room, queue };  // of a run that is about to be stored

  void count(const std::string& key, std::int64_t running, std::int64_t waiting);
  std::shared_ptr<live_run> make_live(run_record record, std::shared_ptr<const pipeline_revision> revision);
  void make_ready(const std::shared_ptr<live_run>& run, new_run& stored_as);
  void settle(const std::shared_ptr<live_run>& run, place where, bool replaces, bool stored);
  void adopt(const std::shared_ptr<live_run>& run, std::string room, bool has_room);
  void wait_for_room(const std::shared_ptr<live_run>& run);
  asio::awaitable<void> wait_for_retry(std::shared_ptr<live_run> run, std::shared_ptr<runtime::wakeup> pause);
  bool starts_unstored(const held& one) const;
  asio::awaitable<void> start_waiting(std::shared_ptr<live_run> run);
  asio::awaitable<void> close_orphaned_input(std::shared_ptr<live_run> run);
  void begin(const std::shared_ptr<live_run>& run);
  void give_back_room_of(const std::shared_ptr<live_run>& run);
  void on_ended(const std::shared_ptr<live_run>& run);
  bool is_stored(const std::string& run) const;
  queue_entry entry_of(const run_record& run) const;
  void follow_definition();

  surroundings& around_;
  std::shared_ptr<const pipeline_revision> revision_;
  std::string defaults_;  // of the job's parameters: a JSON object
  const std::string name_;
  const std::shared_ptr<runtime::wakeup> changed_;
  const std::shared_ptr<retry_budget_state> retries_;  // of all its runs together
  std::map<std::string, held> held_;                   // by run id
  std::set<std::shared_ptr<live_run>> arriving_;       // made ready to start, and about to be stored
  std::map<std::string, key_load> loads_;                  // by overlap key
  std::int64_t running_ = 0, waiting_ = 0;             // sums of loads_
  std::size_t requests_ = 0;                           // that wait for their run to be stored
  timestamp latest_taken_over_{};                      // when the newest run was made that is of an earlier life
  bool stopping_ = false;
};

// A run that was refused, as it is recorded.
run_record skipped(run_record run, std::string reason);

}  // namespace penstock::scheduler
