// See store_writer.hpp.
#include "scheduler/store_writer.hpp"

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "scheduler/policy.hpp"
#include "scheduler/store_rows.hpp"
#include "scheduler/store_timeline.hpp"

namespace penstock::scheduler {

using namespace rows;

namespace {

// What of a task changes while its run lives.
auto progress_of(const task_record& t) {
  return std::tie(t.state, t.attempt, t.exit_code, t.reason, t.output, t.started_at, t.ended_at);
}

timeline_entry started_entry(const attempt_start& s) { return {s.at, "running", "attempt " + std::to_string(s.attempt)}; }

bool same_progress(const task_record& a, const task_record& b) { return progress_of(a) == progress_of(b); }

}  // namespace

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
      // But those of runs that go on: a pipeline that comes back meanwhile must not take them again.
      remove_files_(db,
                    "DELETE FROM taken_files WHERE pipeline = ?1"
                    " AND NOT EXISTS (SELECT 1 FROM runs WHERE id = taken_files.run AND ended_at IS NULL)"),
      set_paused_(db, "UPDATE pipelines SET paused = ?2 WHERE name = ?1"),
      insert_run_(
          db, "INSERT INTO runs (" + run_columns +
                  ", timeline) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,"
                  " ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)"),
      insert_task_(
          db,
          "INSERT INTO tasks (run, position, name, state, attempt, exit_code, reason, started_at, ended_at,"
          " output, item) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"),
      insert_input_(db, "INSERT INTO run_inputs (run, ndjson) VALUES (?1, ?2)"),
      insert_key_(db,
                  "INSERT INTO idempotency_keys (scope, key, fingerprint, run, created_at)"
                  " VALUES (?1, ?2, ?3, ?4, ?5)"),
      key_(db, select_request),
      state_of_(db, "SELECT state FROM runs WHERE id = ?1"),
      input_of_(db, "SELECT input_open, input_until FROM runs WHERE id = ?1"),
      extend_input_(
          db,
          "UPDATE runs SET input_events = input_events + ?3, input_until = ?2 WHERE id = ?1"),
      close_input_(db, "UPDATE runs SET input_open = 0 WHERE id = ?1"),
      start_attempt_(db,
                     "UPDATE runs SET state = 'running', attempt = ?2, started_at = coalesce(started_at, ?3),"
                     " waiting_reason = '', retry_at = NULL, timeline = " +
                         grown_timeline(4) + " WHERE id = ?1"),
      // Those that are as they should be already are not written again: there may be thousands.
      requeue_tasks_(db,
                     "UPDATE tasks SET state = 'queued', exit_code = NULL, reason = '', output = '',"
                     " started_at = NULL, ended_at = NULL WHERE run = ?1 AND state <> 'succeeded'"
                     " AND (state <> 'queued' OR exit_code IS NOT NULL OR reason <> '' OR output <> ''"
                     "  OR started_at IS NOT NULL OR ended_at IS NOT NULL)"),
      task_state_(db, "SELECT state FROM tasks WHERE run = ?1 AND name = ?2"),
      write_task_(db,
                  "UPDATE tasks SET state = ?3, attempt = ?4, exit_code = ?5, reason = ?6, started_at = ?7,"
                  " ended_at = ?8, output = ?9 WHERE run = ?1 AND name = ?2"),
      set_waiting_(db, "UPDATE runs SET state = ?2, waiting_reason = ?3, retry_at = ?4, timeline = "
                       "iif(state = ?2 AND waiting_reason = ?3, timeline, " +
                           grown_timeline(5) + ") WHERE id = ?1"),
      end_run_(db,
               "UPDATE runs SET state = ?2, reason = ?3, ended_at = ?4, waiting_reason = '', retry_at = NULL,"
               " input_open = 0, attempt = coalesce(?6, attempt), started_at = coalesce(started_at, ?7),"
               " timeline = timeline || ?5 WHERE id = ?1"),
      end_tasks_(db,
                 "UPDATE tasks SET state = iif(state = 'queued', 'skipped', 'cancelled'),"
                 " reason = 'the run ended', ended_at = ?2"
                 " WHERE run = ?1 AND state IN ('queued', 'running', 'retrying')"),
      insert_dead_(db,
                   "INSERT INTO dead_runs (run, pipeline) SELECT id, pipeline FROM runs"
                   " WHERE id = ?1 AND input_kind <> 'none'"),
      unfinished_(db, select_runs("WHERE state IN ('queued', 'running', 'retrying') ORDER BY id")),
      run_(db, select_runs("WHERE id = ?1")),
      tasks_(db, select_tasks),
      tasks_in_order_(db, select_tasks_in_order),
      next_position_(db, "SELECT coalesce(max(position) + 1, 0) FROM tasks WHERE run = ?1"),
      requeue_run_(db,
                   "UPDATE runs SET state = 'queued', attempt = ?2, interruptions = ?3, waiting_reason = ?4,"
                   " retry_at = ?6, timeline = " +
                       grown_timeline(5) + " WHERE id = ?1"),
      requeue_unfinished_tasks_(db,
                                "UPDATE tasks SET state = 'queued', started_at = NULL"
                                " WHERE run = ?1 AND state IN ('running', 'retrying')"),
      cursor_(db,
              "SELECT position FROM trigger_cursors WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3"),
      set_cursor_(db,
                  "INSERT INTO trigger_cursors (pipeline, job, trigger_key, position) VALUES (?1, ?2, ?3, ?4)"
                  " ON CONFLICT DO UPDATE SET position = excluded.position"),
      set_firing_(db,
                  "INSERT INTO schedules (pipeline, job, trigger_key, fired) VALUES (?1, ?2, ?3, ?4)"
                  " ON CONFLICT DO UPDATE SET fired = excluded.fired"),
      settle_dead_(db, "DELETE FROM dead_runs WHERE run = ?1 RETURNING 1"),
      take_file_(db,
                 "INSERT INTO taken_files (pipeline, job, trigger_key, path, stamp, run)"
                 " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET stamp = excluded.stamp,"
                 " run = excluded.run WHERE stamp <> excluded.stamp RETURNING 1"),
      forget_file_(db,
                   "DELETE FROM taken_files WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3 AND path = ?4"
                   " AND stamp = ?5"),
      add_alert_(db,
                 "INSERT INTO alerts (id, pipeline, job, run, revision, alert_index, kind, payload, created_at,"
                 " attempts, failure, settled) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0)"
                 " ON CONFLICT (run, alert_index, kind) DO NOTHING"),
      alert_failed_(db, "UPDATE alerts SET attempts = ?2, failure = ?3 WHERE id = ?1 AND settled = 0"),
      keep_settled_alert_(db,
                          "UPDATE alerts SET settled = 1, payload = '', failure = '' WHERE id = ?1"
                          " AND kind = 'late' AND EXISTS (SELECT 1 FROM runs WHERE id = alerts.run)"),
      remove_alert_(db, "DELETE FROM alerts WHERE id = ?1 AND settled = 0") {}

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
  with(remove_files_, name).run();
}

void store_writer::set_paused(const std::string& name, bool paused) { with(set_paused_, name, paused).run(); }

// ---- making runs ----

result<store::created> store_writer::create(const new_run& r) {
  if (r.once) {
    auto known = one(with(key_, r.once->scope, r.once->key),
                     [&r](const sqlite::statement& s) { return answer_from(s, *r.once); });
    if (known) return *std::move(known);
    with(insert_key_, r.once->scope, r.once->key, r.once->fingerprint, r.run.id, r.run.created_at).run();
  }
  insert(r);
  if (r.cursor) move_cursor(*r.cursor);
  if (r.schedule) set_firing(*r.schedule);
  for (const file_claim& claim : r.files) take_file(claim, r.run.id);
  return store::created{r.run.id, false};
}

void store_writer::create_all(const std::vector<new_run>& runs) {
  for (const new_run& r : runs) {
    const auto made = create(r);
    if (!made) throw std::logic_error("run " + r.run.id + ": " + made.error().detail);
  }
}

void store_writer::insert(const new_run& made) {
  const run_record& r = made.run;
  if (is_final(r.state) != r.ended_at.has_value()) {
    throw std::logic_error("new run " + r.id + " is " + std::string(token(r.state)) +
                           (r.ended_at ? " but has an end" : " but has no end"));
  }
  const run_input& in = r.input;
  const std::string timeline = timeline_line(made_entry(made));
  const std::string trace = r.trace.tracestate.empty() ? r.trace.traceparent : r.trace.traceparent + " " + r.trace.tracestate;
  with(insert_run_, r.id, r.pipeline, r.job, r.revision, r.state, r.trigger, r.waiting_reason, r.reason,
       r.attempt, r.interruptions, r.scheduled_for, r.upstream_run, token(in.type), in.topic, in.after,
       in.until, in.open, in.events, r.params, r.created_at, r.started_at, r.ended_at, r.retry_at, r.priority,
       r.overlap_key, r.deadline_at, r.retry_of, in.where, trace, timeline)
      .run();
  for (std::size_t i = 0; i < r.tasks.size(); ++i) insert_task(r.id, static_cast<std::int64_t>(i), r.tasks[i]);
  if (in.type == run_input::kind::inline_events) insert_input_.bind(1, r.id).bind_blob(2, in.ndjson).run();
}

void store_writer::insert_task(const std::string& run, std::int64_t position, const task_record& t) {
  with(insert_task_, run, position, t.name, t.state, t.attempt, t.exit_code, t.reason, t.started_at, t.ended_at,
       t.output, t.item)
      .run();
}

void store_writer::take_file(const file_claim& claim, const std::string& run) {
  const bool taken = one(with(take_file_, claim.pipeline, claim.job, claim.trigger, claim.path, claim.stamp, run),
                         first_integer)
                         .has_value();
  if (taken) return;
  throw std::logic_error("run " + run + " cannot take " + claim.path + " for " + claim.pipeline + "/" +
                         claim.job + " " + claim.trigger + ": it was taken already");
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

void store_writer::require_transition(const std::string& run, run_state from, run_state to) {
  if (may_become(from, to)) return;
  throw std::logic_error("run " + run + " is " + std::string(token(from)) + " and cannot become " +
                         std::string(token(to)));
}

void store_writer::extend_input(const std::string& run, std::int64_t until, std::int64_t events,
                                const cursor_move& cursor) {
  struct claim {
    bool open;
    std::int64_t until;
  };
  const auto input = one(with(input_of_, run), [](const sqlite::statement& s) {
    return claim{s.integer(0) != 0, s.integer(1)};
  });
  if (!input || !input->open || until < input->until || events < 0 || events > until - input->until) {
    throw std::logic_error("the input of run " + run + " cannot grow to " + std::to_string(until) + " by " +
                           std::to_string(events) + " events");
  }
  with(extend_input_, run, until, events).run();
  move_cursor(cursor);
}

void store_writer::close_input(const std::string& run) { with(close_input_, run).run(); }

void store_writer::start_attempt(const std::string& run, int attempt, timestamp at) {
  require_transition(run, state_of(run), run_state::running);
  with(start_attempt_, run, attempt, at, timeline_line(started_entry({attempt, at}))).run();
  with(requeue_tasks_, run).run();
}

void store_writer::start_attempts(const std::vector<late_start>& started) {
  for (const late_start& s : started) {
    if (state_of(s.run) == run_state::queued) start_attempt(s.run, s.started.attempt, s.started.at);
  }
}

void store_writer::set_waiting(const std::string& run, run_state state, const std::string& why,
                               std::optional<timestamp> retry_at, timestamp at) {
  if (state != run_state::queued && state != run_state::retrying) {
    throw std::logic_error("a run that is " + std::string(token(state)) + " does not wait");
  }
  if (const run_state from = state_of(run); from != state) require_transition(run, from, state);
  const std::string waits = state == run_state::queued && !why.empty() ? "waits: " + why : why;
  const std::string line = timeline_line({at, std::string(token(state)), waits});
  with(set_waiting_, run, state, why, retry_at, line).run();
}

// ---- tasks ----

void store_writer::add_tasks(const std::string& run, const std::vector<task_record>& instances) {
  if (is_final(state_of(run))) throw std::logic_error("run " + run + " has ended: it gets no more tasks");
  auto position = one(with(next_position_, run), first_integer).value();
  for (const task_record& t : instances) {
    if (one(with(task_state_, run, t.name), first_text)) {
      throw std::logic_error("run " + run + " has a task " + t.name + " already");
    }
    insert_task(run, position++, t);
  }
}

void store_writer::update_task(const std::string& run, const task_record& task) {
  if (is_final(state_of(run))) throw std::logic_error("run " + run + " has ended: its tasks do not change");
  const auto from =
      one(with(task_state_, run, task.name), [](const sqlite::statement& s) { return state_from(s, 0); });
  if (!from) throw std::logic_error("run " + run + " has no task " + task.name);
  write_task(run, *from, task);
}

void store_writer::write_task(const std::string& run, run_state from, const task_record& task) {
  // A task's start need not have been stored before its end: that would cost a commit and tell nobody
  // anything.
  const bool legal = from == task.state || may_become(from, task.state) ||
                     (from == run_state::queued && is_final(task.state));
  if (!legal) {
    throw std::logic_error("task " + task.name + " of run " + run + " is " + std::string(token(from)) +
                           " and cannot become " + std::string(token(task.state)));
  }
  with(write_task_, run, task.name, task.state, task.attempt, task.exit_code, task.reason, task.started_at,
       task.ended_at, task.output)
      .run();
}

// True when all tasks of the run have ended then.
bool store_writer::write_changed_tasks(const std::string& run, const std::vector<task_record>& tasks) {
  std::unordered_map<std::string, task_record> stored;
  for (task_record& t : all(with(tasks_, run), task_from)) stored.insert_or_assign(t.name, std::move(t));
  for (const task_record& t : tasks) {
    const auto found = stored.find(t.name);
    if (found == stored.end()) throw std::logic_error("run " + run + " has no task " + t.name);
    if (same_progress(found->second, t)) continue;
    write_task(run, found->second.state, t);
    found->second = t;
  }
  return std::all_of(stored.begin(), stored.end(), [](const auto& t) { return is_final(t.second.state); });
}

// ---- the end of a run ----

void store_writer::finish(const run_end& e) {
  if (!is_final(e.state)) throw std::logic_error("run " + e.run + " cannot end as " + std::string(token(e.state)));
  const run_state from = state_of(e.run);
  const bool unstored = e.started && from == run_state::queued;  // it has run, in one go with its start
  if (!unstored) require_transition(e.run, from, e.state);
  const bool tasks_ended = write_changed_tasks(e.run, e.tasks);
  if (!tasks_ended) with(end_tasks_, e.run, e.at).run();
  end(e.run, e.state, e.reason, e.at, unstored ? e.started : std::nullopt);
  create_all(e.dependents);
  for (const alert_record& a : e.alerts) add_alert(a);
}

void store_writer::end(const std::string& run, run_state state, const std::string& reason, timestamp at,
                       const std::optional<attempt_start>& unstored) {
  std::string lines;
  std::optional<int> attempt;
  std::optional<timestamp> started;
  if (unstored) {
    attempt = unstored->attempt;
    started = unstored->at;
    lines = timeline_line(started_entry(*unstored));
  }
  lines += timeline_line({at, std::string(token(state)), reason});
  with(end_run_, run, state, reason, at, lines, attempt, started).run();
  if (state == run_state::failed || state == run_state::timed_out) with(insert_dead_, run).run();
}

recovery store_writer::recover(timestamp now) {
  recovery found;
  for (run_record& r : all(unfinished_, run_from)) {
    const bool ended = r.state != run_state::queued && interrupt(r, now) == run_state::failed;
    run_record after = one(with(run_, r.id), run_from).value();
    after.tasks = all(with(tasks_in_order_, r.id), task_from);
    (ended ? found.failed : found.unfinished).push_back(std::move(after));
  }
  return found;
}

// The state after it: queued, or failed when it was interrupted too often.
run_state store_writer::interrupt(const run_record& r, timestamp now) {
  // Only a running attempt was cut off. One that pauses before the next has failed by itself and stays counted, and the
  // pause goes on.
  const bool pauses = r.state == run_state::retrying;
  const int interruptions = r.interruptions + (pauses ? 0 : 1);
  const int attempt = pauses ? r.attempt : std::max(r.attempt - 1, 0);
  const std::string waits_for = pauses ? r.waiting_reason : "interrupted by a stop of the daemon";
  const run_state next = after_interruption(interruptions);
  const std::string detail = next == run_state::queued ? "by a stop of the daemon; it waits again"
                                                       : "by a stop of the daemon, once too often";
  const std::string line = timeline_line({now, "interrupted", detail});
  with(requeue_run_, r.id, attempt, interruptions, waits_for, line, pauses ? r.retry_at : std::nullopt).run();
  with(requeue_unfinished_tasks_, r.id).run();
  if (next == run_state::failed) {
    const std::string reason =
        "interrupted " + std::to_string(interruptions) + " times by stops of the daemon";
    with(end_tasks_, r.id, now).run();
    end(r.id, next, reason, now);
  }
  return next;
}

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

// ---- files, alerts ----

void store_writer::forget_files(const std::vector<file_claim>& claims) {
  for (const file_claim& c : claims) with(forget_file_, c.pipeline, c.job, c.trigger, c.path, c.stamp).run();
}

void store_writer::add_alert(const alert_record& a) {
  with(add_alert_, a.id, a.pipeline, a.job, a.run, a.revision, a.index, a.kind, a.payload, a.created_at, a.attempts,
       a.failure)
      .run();
}

void store_writer::settle_alert(const std::string& id) {
  with(keep_settled_alert_, id).run();
  with(remove_alert_, id).run();
}

void store_writer::alert_failed(const std::string& id, int attempts, const std::string& failure) {
  with(alert_failed_, id, attempts, failure).run();
}

}  // namespace penstock::scheduler
