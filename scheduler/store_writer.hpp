// Everything that changes state.db: all its statements, and the transactions of the domain made of them.
//
// Lives on the store thread beside the commit queue's connection, owned by store. Each call is one piece of a
// transaction of that queue: what throws has changed nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/error.hpp"
#include "runtime/sqlite.hpp"
#include "scheduler/store.hpp"

namespace penstock::scheduler {

namespace sqlite = runtime::sqlite;

class store_writer {
 public:
  struct job_name {
    std::string pipeline, job;
  };
  // So many rows are deleted in one transaction: others wait for no more than that.
  static constexpr std::int64_t prune_portion = 500;

  explicit store_writer(sqlite::connection& db);

  result<pipeline_record> put_pipeline(pipeline_record next, std::int64_t expected_revision);
  void remove_pipeline(const std::string& name);
  void set_paused(const std::string& name, bool paused);

  result<store::created> create(const new_run& r);
  void create_all(const std::vector<new_run>& runs);
  void extend_input(const std::string& run, std::int64_t until, const cursor_move& cursor);
  void close_input(const std::string& run);
  void start_attempt(const std::string& run, int attempt, timestamp at);
  void update_task(const std::string& run, const task_record& task);
  void set_waiting(const std::string& run, run_state state, const std::string& why,
                   std::optional<timestamp> retry_at);
  void finish(const std::string& run, run_state state, const std::string& reason, timestamp at,
              const std::vector<task_record>& tasks);
  std::vector<run_record> recover(timestamp now);

  // Each returns what it deleted; fewer than prune_portion means that nothing is left.
  std::vector<std::string> prune_old(timestamp before, const std::string& after_id);
  std::vector<std::string> prune_beyond(const job_name& job, const std::string& newest);
  std::int64_t prune_keys(timestamp before);
  std::vector<job_name> jobs_beyond(std::int64_t keep);
  std::optional<std::string> newest_beyond(const job_name& job, std::int64_t keep);
  void forget_empty_counts();

  void set_cursor(const std::string& pipeline, const std::string& job, const std::string& trigger,
                  std::int64_t position);
  void set_firing(const schedule_move& move);
  std::int64_t settle_dead(const std::vector<std::string>& ids);

 private:
  void insert(const run_record& r);
  void insert_task(const run_record& r, std::size_t position);
  std::optional<result<store::created>> known_request(const idempotency& once);
  void move_cursor(const cursor_move& move);
  run_state state_of(const std::string& run);
  void require_transition(const std::string& run, run_state to);
  void write_task(const std::string& run, const task_record& task);
  void end(const std::string& run, run_state state, const std::string& reason, timestamp at);
  void interrupt(const run_record& r, timestamp now);
  void remove_runs(const std::vector<std::string>& ids);

  sqlite::statement current_revision_, last_revision_, insert_revision_, put_current_, remove_current_,
      remove_cursors_, remove_schedules_, set_paused_;
  sqlite::statement insert_run_, insert_task_, insert_input_, insert_key_, key_;
  sqlite::statement state_of_, input_of_, extend_input_, close_input_;
  sqlite::statement start_attempt_, requeue_tasks_, task_state_, write_task_, set_waiting_, end_run_,
      end_tasks_, insert_dead_;
  sqlite::statement unfinished_, tasks_, requeue_run_, requeue_unfinished_tasks_;
  sqlite::statement old_runs_, runs_beyond_, jobs_beyond_, newest_beyond_, remove_run_, prune_keys_,
      forget_counts_;
  sqlite::statement cursor_, set_cursor_, set_firing_, settle_dead_;
};

}  // namespace penstock::scheduler
