// Everything that changes state.db, but for retention (store_pruner): the statements, and the transactions of
// the domain made of them. Each change of a run's state appends to its timeline in the same statement.
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
  explicit store_writer(sqlite::connection& db);

  result<pipeline_record> put_pipeline(pipeline_record next, std::int64_t expected_revision);
  void remove_pipeline(const std::string& name);
  void set_paused(const std::string& name, bool paused);

  result<store::created> create(const new_run& r);
  void create_all(const std::vector<new_run>& runs);
  void extend_input(const std::string& run, std::int64_t until, std::int64_t events, const cursor_move& cursor);
  void close_input(const std::string& run);
  void start_attempt(const std::string& run, int attempt, timestamp at);
  void start_attempts(const std::vector<late_start>& started);
  void add_tasks(const std::string& run, const std::vector<task_record>& instances);
  void update_task(const std::string& run, const task_record& task);
  void set_waiting(const std::string& run, run_state state, const std::string& why,
                   std::optional<timestamp> retry_at, timestamp at);
  void finish(const run_end& end);
  recovery recover(timestamp now);

  void set_cursor(const std::string& pipeline, const std::string& job, const std::string& trigger,
                  std::int64_t position);
  void set_firing(const schedule_move& move);
  std::int64_t settle_dead(const std::vector<std::string>& ids);

  void forget_files(const std::vector<file_claim>& claims);
  void add_alert(const alert_record& alert);
  void settle_alert(const std::string& id);
  void alert_failed(const std::string& id, int attempts, const std::string& failure);

 private:
  void insert(const new_run& made);
  void insert_task(const std::string& run, std::int64_t position, const task_record& t);
  void take_file(const file_claim& claim, const std::string& run);
  void move_cursor(const cursor_move& move);
  run_state state_of(const std::string& run);
  static void require_transition(const std::string& run, run_state from, run_state to);
  void write_task(const std::string& run, run_state from, const task_record& task);
  bool write_changed_tasks(const std::string& run, const std::vector<task_record>& tasks);
  void end(const std::string& run, run_state state, const std::string& reason, timestamp at,
           const std::optional<attempt_start>& unstored = {});
  run_state interrupt(const run_record& r, timestamp now);

  sqlite::statement current_revision_, last_revision_, insert_revision_, put_current_, remove_current_,
      remove_cursors_, remove_schedules_, remove_files_, set_paused_;
  sqlite::statement insert_run_, insert_task_, insert_input_, insert_key_, key_;
  sqlite::statement state_of_, input_of_, extend_input_, close_input_;
  sqlite::statement start_attempt_, requeue_tasks_, task_state_, write_task_, set_waiting_, end_run_,
      end_tasks_, insert_dead_;
  sqlite::statement unfinished_, run_, tasks_, tasks_in_order_, next_position_, requeue_run_,
      requeue_unfinished_tasks_;
  sqlite::statement cursor_, set_cursor_, set_firing_, settle_dead_;
  sqlite::statement take_file_, forget_file_;
  sqlite::statement add_alert_, alert_failed_, keep_settled_alert_, remove_alert_;
};

}  // namespace penstock::scheduler
