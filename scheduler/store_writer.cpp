// See store_writer.hpp.
#include "scheduler/store_writer.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "scheduler/policy.hpp"
#include "scheduler/store_rows.hpp"

namespace penstock::scheduler {

using namespace rows;

store_writer::store_writer(sqlite::connection& db)
    : current_revision_(db,
                        "SELECT pipelines.revision, created_at, paused FROM pipelines JOIN revisions"
                        " ON pipeline = name AND revisions.revision = pipelines.revision WHERE name = ?1"),
      last_revision_(db, "SELECT coalesce(max(revision), 0) FROM revisions WHERE pipeline = ?1"),
      insert_revision_(
          db,
          "INSERT INTO revisions (pipeline, revision, text, media_type, origin, etag, created_at,"
          " updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
      put_current_(db,
                   "INSERT INTO pipelines (name, revision, paused) VALUES (?1, ?2, ?3)"
                   " ON CONFLICT DO UPDATE SET revision = excluded.revision"),
      remove_current_(db, "DELETE FROM pipelines WHERE name = ?1"),
      remove_cursors_(db, "DELETE FROM trigger_cursors WHERE pipeline = ?1"),
      remove_schedules_(db, "DELETE FROM schedules WHERE pipeline = ?1"),
      set_paused_(db, "UPDATE pipelines SET paused = ?2 WHERE name = ?1"),
      insert_run_(
          db, "INSERT INTO runs (" + run_columns +
                  ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,"
                  " ?19, ?20, ?21, ?22, ?23)"),
      insert_task_(
          db,
          "INSERT INTO tasks (run, position, name, state, attempt, exit_code, reason, started_at, ended_at)"
          " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
      insert_input_(db, "INSERT INTO run_inputs (run, ndjson) VALUES (?1, ?2)"),
      insert_key_(db,
                  "INSERT INTO idempotency_keys (scope, key, fingerprint, run, created_at)"
                  " VALUES (?1, ?2, ?3, ?4, ?5)"),
      key_(db, "SELECT run, fingerprint FROM idempotency_keys WHERE scope = ?1 AND key = ?2"),
      state_of_(db, "SELECT state FROM runs WHERE id = ?1"),
      input_of_(db, "SELECT input_open, input_until FROM runs WHERE id = ?1"),
      extend_input_(
          db,
          "UPDATE runs SET input_events = input_events + ?2 - input_until, input_until = ?2 WHERE id = ?1"),
      close_input_(db, "UPDATE runs SET input_open = 0 WHERE id = ?1"),
      start_attempt_(db,
                     "UPDATE runs SET state = 'running', attempt = ?2, started_at = coalesce(started_at, ?3),"
                     " waiting_reason = '', retry_at = NULL WHERE id = ?1"),
      requeue_tasks_(db,
                     "UPDATE tasks SET state = 'queued', exit_code = NULL, reason = '', started_at = NULL,"
                     " ended_at = NULL WHERE run = ?1 AND state <> 'succeeded'"),
      task_state_(db, "SELECT state FROM tasks WHERE run = ?1 AND name = ?2"),
      write_task_(db,
                  "UPDATE tasks SET state = ?3, attempt = ?4, exit_code = ?5, reason = ?6, started_at = ?7,"
                  " ended_at = ?8 WHERE run = ?1 AND name = ?2"),
      set_waiting_(db, "UPDATE runs SET state = ?2, waiting_reason = ?3, retry_at = ?4 WHERE id = ?1"),
      end_run_(db,
               "UPDATE runs SET state = ?2, reason = ?3, ended_at = ?4, waiting_reason = '', retry_at = NULL,"
               " input_open = 0 WHERE id = ?1"),
      end_tasks_(db,
                 "UPDATE tasks SET state = iif(state = 'queued', 'skipped', 'cancelled'),"
                 " reason = 'the run ended', ended_at = ?2"
                 " WHERE run = ?1 AND state IN ('queued', 'running', 'retrying')"),
      insert_dead_(db,
                   "INSERT INTO dead_runs (run, pipeline) SELECT id, pipeline FROM runs"
                   " WHERE id = ?1 AND state IN ('failed', 'timed_out') AND input_kind <> 'none'"),
      unfinished_(db, select_runs("WHERE state IN ('queued', 'running', 'retrying') ORDER BY id")),
      tasks_(db, select_tasks),
      requeue_run_(db,
                   "UPDATE runs SET state = 'queued', attempt = ?2, interruptions = ?3, waiting_reason = ?4,"
                   " retry_at = NULL WHERE id = ?1"),
      requeue_unfinished_tasks_(db,
                                "UPDATE tasks SET state = 'queued', started_at = NULL"
                                " WHERE run = ?1 AND state IN ('running', 'retrying')"),
      old_runs_(db,
                "SELECT id FROM runs WHERE id > ?1 AND id < ?2 AND ended_at < ?3"
                " AND NOT EXISTS (SELECT 1 FROM dead_runs WHERE run = id) ORDER BY id LIMIT ?4"),
      runs_beyond_(db,
                   "SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2"
                   " AND state IN ('succeeded', 'failed', 'cancelled', 'timed_out', 'skipped') AND id <= ?3"
                   " AND NOT EXISTS (SELECT 1 FROM dead_runs WHERE run = id) LIMIT ?4"),
      jobs_beyond_(db,
                   "SELECT pipeline, job FROM run_counts WHERE state NOT IN ('queued', 'running', 'retrying')"
                   " GROUP BY pipeline, job HAVING sum(runs) > ?1"),
      // Five ascending ranges of runs_of_job, merged by SQLite until the wanted row.
      newest_beyond_(db,
                     "SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2 AND state = 'succeeded' UNION ALL"
                     " SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2 AND state = 'failed' UNION ALL"
                     " SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2 AND state = 'cancelled' UNION ALL"
                     " SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2 AND state = 'timed_out' UNION ALL"
                     " SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2 AND state = 'skipped'"
                     " ORDER BY id DESC LIMIT 1 OFFSET ?3"),
      remove_run_(db, "DELETE FROM runs WHERE id = ?1"),
      prune_keys_(
          db,
          "DELETE FROM idempotency_keys WHERE (scope, key) IN (SELECT scope, key FROM idempotency_keys AS k"
          " WHERE k.created_at < ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE id = k.run) LIMIT ?2)"
          " RETURNING 1"),
      forget_counts_(db, "DELETE FROM run_counts WHERE runs = 0"),
      cursor_(db,
              "SELECT position FROM trigger_cursors WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3"),
      set_cursor_(db,
                  "INSERT INTO trigger_cursors (pipeline, job, trigger_key, position) VALUES (?1, ?2, ?3, ?4)"
                  " ON CONFLICT DO UPDATE SET position = excluded.position"),
      set_firing_(db,
                  "INSERT INTO schedules (pipeline, job, trigger_key, fired) VALUES (?1, ?2, ?3, ?4)"
                  " ON CONFLICT DO UPDATE SET fired = excluded.fired"),
      settle_dead_(db, "DELETE FROM dead_runs WHERE run = ?1 RETURNING 1") {}

// ---- pipelines ----

result<pipeline_record> store_writer::put_pipeline(pipeline_record next, std::int64_t expected_revision) {
  struct standing {
    std::int64_t revision = 0;
    timestamp created_at{};
    bool paused = false;
  };
  const auto current = one(with(current_revision_, next.name), [](const sqlite::statement& s) {
    return standing{s.integer(0), time(s, 1), s.integer(2) != 0};
  });
  const std::int64_t revision = current ? current->revision : 0;
  if (revision != expected_revision) {
    return error{errc::precondition_failed, "pipeline '" + next.name + "' is at revision " +
                                                std::to_string(revision) + ", not " +
                                                std::to_string(expected_revision)};
  }
  if (current) {
    next.created_at = current->created_at;
    next.paused = current->paused;
  }
  next.revision = one(with(last_revision_, next.name), first_integer).value() + 1;
  with(insert_revision_, next.name, next.revision, next.text, next.media_type, next.origin, next.etag,
       next.created_at, next.updated_at)
      .run();
  with(put_current_, next.name, next.revision, next.paused).run();
  return next;
}

void store_writer::remove_pipeline(const std::string& name) {
  with(remove_current_, name).run();
  with(remove_cursors_, name).run();
  with(remove_schedules_, name).run();
}

void store_writer::set_paused(const std::string& name, bool paused) { with(set_paused_, name, paused).run(); }

// ---- making runs ----

std::optional<result<store::created>> store_writer::known_request(const idempotency& once) {
  const auto known = one(with(key_, once.scope, once.key),
                         [](const sqlite::statement& s) { return std::pair(text(s, 0), text(s, 1)); });
  if (!known) return std::nullopt;
  if (known->second != once.fingerprint) {
    return error{errc::conflict, "the idempotency key '" + once.key +
                                     "' was used for another request, which made run " + known->first};
  }
  return store::created{known->first, true};
}

result<store::created> store_writer::create(const new_run& r) {
  if (r.once) {
    if (auto known = known_request(*r.once)) return *std::move(known);
    with(insert_key_, r.once->scope, r.once->key, r.once->fingerprint, r.run.id, r.run.created_at).run();
  }
  insert(r.run);
  if (r.cursor) move_cursor(*r.cursor);
  if (r.schedule) set_firing(*r.schedule);
  return store::created{r.run.id, false};
}

void store_writer::create_all(const std::vector<new_run>& runs) {
  for (const new_run& r : runs) {
    const auto made = create(r);
    if (!made) throw std::logic_error("run " + r.run.id + ": " + made.error().detail);
  }
}

void store_writer::insert(const run_record& r) {
  if (is_final(r.state) != r.ended_at.has_value()) {
    throw std::logic_error("new run " + r.id + " is " + std::string(token(r.state)) +
                           (r.ended_at ? " but has an end" : " but has no end"));
  }
  const run_input& in = r.input;
  with(insert_run_, r.id, r.pipeline, r.job, r.revision, r.state, r.trigger, r.waiting_reason, r.reason,
       r.attempt, r.interruptions, r.scheduled_for, r.upstream_run, token(in.type), in.topic, in.after,
       in.until, in.open, in.events, r.params, r.created_at, r.started_at, r.ended_at, r.retry_at)
      .run();
  for (std::size_t i = 0; i < r.tasks.size(); ++i) insert_task(r, i);
  if (in.type == run_input::kind::inline_events) insert_input_.bind(1, r.id).bind_blob(2, in.ndjson).run();
}

void store_writer::insert_task(const run_record& r, std::size_t position) {
  const task_record& t = r.tasks[position];
  with(insert_task_, r.id, position, t.name, t.state, t.attempt, t.exit_code, t.reason, t.started_at,
       t.ended_at)
      .run();
}

void store_writer::move_cursor(const cursor_move& move) {
  const auto stored = one(with(cursor_, move.pipeline, move.job, move.trigger), first_integer);
  if (stored != move.from || move.to < move.from) {
    throw std::logic_error("the cursor of " + move.pipeline + "/" + move.job + " " + move.trigger +
                           " is at " + (stored ? std::to_string(*stored) : "no position") +
                           ": it cannot move from " + std::to_string(move.from) + " to " +
                           std::to_string(move.to));
  }
  set_cursor(move.pipeline, move.job, move.trigger, move.to);
}

// ---- the life of a run ----

run_state store_writer::state_of(const std::string& run) {
  const auto state = one(with(state_of_, run), [](const sqlite::statement& s) { return state_from(s, 0); });
  if (!state) throw std::logic_error("there is no run " + run);
  return *state;
}

void store_writer::require_transition(const std::string& run, run_state to) {
  const run_state from = state_of(run);
  if (may_become(from, to)) return;
  throw std::logic_error("run " + run + " is " + std::string(token(from)) + " and cannot become " +
                         std::string(token(to)));
}

void store_writer::extend_input(const std::string& run, std::int64_t until, const cursor_move& cursor) {
  struct claim {
    bool open;
    std::int64_t until;
  };
  const auto input = one(with(input_of_, run), [](const sqlite::statement& s) {
    return claim{s.integer(0) != 0, s.integer(1)};
  });
  if (!input || !input->open || until < input->until) {
    throw std::logic_error("the input of run " + run + " cannot grow to " + std::to_string(until));
  }
  with(extend_input_, run, until).run();
  move_cursor(cursor);
}

void store_writer::close_input(const std::string& run) { with(close_input_, run).run(); }

void store_writer::start_attempt(const std::string& run, int attempt, timestamp at) {
  require_transition(run, run_state::running);
  with(start_attempt_, run, attempt, at).run();
  with(requeue_tasks_, run).run();
}

void store_writer::update_task(const std::string& run, const task_record& task) {
  if (is_final(state_of(run))) throw std::logic_error("run " + run + " has ended: its tasks do not change");
  write_task(run, task);
}

void store_writer::write_task(const std::string& run, const task_record& task) {
  const auto from =
      one(with(task_state_, run, task.name), [](const sqlite::statement& s) { return state_from(s, 0); });
  if (!from) throw std::logic_error("run " + run + " has no task " + task.name);
  // A task's start need not have been stored before its end: that would cost a commit and tell nobody
  // anything.
  const bool legal = *from == task.state || may_become(*from, task.state) ||
                     (*from == run_state::queued && is_final(task.state));
  if (!legal) {
    throw std::logic_error("task " + task.name + " of run " + run + " is " + std::string(token(*from)) +
                           " and cannot become " + std::string(token(task.state)));
  }
  with(write_task_, run, task.name, task.state, task.attempt, task.exit_code, task.reason, task.started_at,
       task.ended_at)
      .run();
}

void store_writer::set_waiting(const std::string& run, run_state state, const std::string& why,
                               std::optional<timestamp> retry_at) {
  if (state != run_state::queued && state != run_state::retrying) {
    throw std::logic_error("a run that is " + std::string(token(state)) + " does not wait");
  }
  if (state_of(run) != state) require_transition(run, state);
  with(set_waiting_, run, state, why, retry_at).run();
}

void store_writer::finish(const std::string& run, run_state state, const std::string& reason, timestamp at,
                          const std::vector<task_record>& tasks) {
  if (!is_final(state)) throw std::logic_error("run " + run + " cannot end as " + std::string(token(state)));
  require_transition(run, state);
  for (const task_record& t : tasks) write_task(run, t);
  end(run, state, reason, at);
}

void store_writer::end(const std::string& run, run_state state, const std::string& reason, timestamp at) {
  with(end_run_, run, state, reason, at).run();
  with(end_tasks_, run, at).run();
  with(insert_dead_, run).run();
}

std::vector<run_record> store_writer::recover(timestamp now) {
  for (const run_record& r : all(unfinished_, run_from)) {
    if (r.state != run_state::queued) interrupt(r, now);
  }
  auto unfinished = all(unfinished_, run_from);
  for (run_record& r : unfinished) r.tasks = all(with(tasks_, r.id), task_from);
  return unfinished;
}

void store_writer::interrupt(const run_record& r, timestamp now) {
  const int interruptions = r.interruptions + 1;
  // Only a running attempt was cut off; one that waits for the next has failed by itself and stays counted.
  const int attempt = r.state == run_state::running ? std::max(r.attempt - 1, 0) : r.attempt;
  with(requeue_run_, r.id, attempt, interruptions, "interrupted by a stop of the daemon").run();
  with(requeue_unfinished_tasks_, r.id).run();
  if (after_interruption(interruptions) == run_state::failed) {
    const std::string reason =
        "interrupted " + std::to_string(interruptions) + " times by stops of the daemon";
    end(r.id, run_state::failed, reason, now);
  }
}

// ---- retention ----

void store_writer::remove_runs(const std::vector<std::string>& ids) {
  for (const std::string& id : ids) with(remove_run_, id).run();
}

std::vector<std::string> store_writer::prune_old(timestamp before, const std::string& after_id) {
  // What ended before that time was made before it, so the search ends where ids of that time begin.
  const std::string bound = id_prefix(before + std::chrono::milliseconds{1});
  auto ids = all(with(old_runs_, after_id, bound, before, prune_portion), first_text);
  remove_runs(ids);
  return ids;
}

std::vector<store_writer::job_name> store_writer::jobs_beyond(std::int64_t keep) {
  return all(with(jobs_beyond_, keep), [](const sqlite::statement& s) {
    return job_name{text(s, 0), text(s, 1)};
  });
}

std::optional<std::string> store_writer::newest_beyond(const job_name& job, std::int64_t keep) {
  return one(with(newest_beyond_, job.pipeline, job.job, keep), first_text);
}

std::vector<std::string> store_writer::prune_beyond(const job_name& job, const std::string& newest) {
  auto ids = all(with(runs_beyond_, job.pipeline, job.job, newest, prune_portion), first_text);
  remove_runs(ids);
  return ids;
}

std::int64_t store_writer::prune_keys(timestamp before) {
  return static_cast<std::int64_t>(all(with(prune_keys_, before, prune_portion), first_integer).size());
}

void store_writer::forget_empty_counts() { forget_counts_.run(); }

// ---- triggers, dead letters ----

void store_writer::set_cursor(const std::string& pipeline, const std::string& job, const std::string& trigger,
                              std::int64_t position) {
  with(set_cursor_, pipeline, job, trigger, position).run();
}

void store_writer::set_firing(const schedule_move& move) {
  with(set_firing_, move.pipeline, move.job, move.trigger, move.fired).run();
}

std::int64_t store_writer::settle_dead(const std::vector<std::string>& ids) {
  std::int64_t settled = 0;
  for (const std::string& id : ids) settled += one(with(settle_dead_, id), first_integer).value_or(0);
  return settled;
}

}  // namespace penstock::scheduler
