-- state.db: everything the control plane must remember. Read and written by scheduler/store.cpp only, which also keeps
-- the table `migrations`. A line that begins with "-- migration: " opens one, with its name; store.cpp cuts the file
-- there. A migration that was released stays as it is: a later change of the schema is a further one at the end.
--
-- Times are whole microseconds since 1970-01-01T00:00:00Z. States, triggers and the other fixed words are the tokens of
-- scheduler/model.hpp. A text that is missing is '', never NULL; where a column may be NULL, its comment says what that
-- means.

-- migration: 1 first schema

-- One row: who this data folder is.
CREATE TABLE data_folder (
  instance TEXT NOT NULL  -- ULID, made with the folder; marks the processes that were started from it
) STRICT;

-- Every definition that was ever current, for rollback and for the runs that were started with it. Never deleted, so
-- that a revision number is never used twice for a name.
CREATE TABLE revisions (
  pipeline   TEXT NOT NULL,
  revision   INTEGER NOT NULL,  -- from 1
  text       TEXT NOT NULL,     -- as it was sent
  media_type TEXT NOT NULL,
  origin     TEXT NOT NULL,     -- 'rest' or the path of a file
  etag       TEXT NOT NULL,
  created_at INTEGER NOT NULL,  -- of the pipeline
  updated_at INTEGER NOT NULL,  -- of this revision
  PRIMARY KEY (pipeline, revision)
) STRICT;

-- The pipelines that exist now, and which revision is current.
CREATE TABLE pipelines (
  name     TEXT NOT NULL PRIMARY KEY,
  revision INTEGER NOT NULL,
  paused   INTEGER NOT NULL,  -- 0 or 1
  FOREIGN KEY (name, revision) REFERENCES revisions (pipeline, revision)
) STRICT, WITHOUT ROWID;

-- Every run until retention deletes it. Ids are ULIDs: their order is the order in which runs were made.
CREATE TABLE runs (
  id             TEXT NOT NULL PRIMARY KEY,
  pipeline       TEXT NOT NULL,     -- may have been removed since
  job            TEXT NOT NULL,
  revision       INTEGER NOT NULL,
  state          TEXT NOT NULL,
  trigger_kind   TEXT NOT NULL,
  waiting_reason TEXT NOT NULL,
  reason         TEXT NOT NULL,
  attempt        INTEGER NOT NULL,
  interruptions  INTEGER NOT NULL,
  scheduled_for  INTEGER,           -- NULL: was not made by a schedule
  upstream_run   TEXT NOT NULL,     -- '': was not made by the end of another run
  input_kind     TEXT NOT NULL,     -- 'none', 'topic', 'inline_events'
  input_topic    TEXT NOT NULL,
  input_after    INTEGER NOT NULL,  -- offsets (input_after, input_until] of input_topic
  input_until    INTEGER NOT NULL,
  input_open     INTEGER NOT NULL,  -- 1: may still grow
  input_events   INTEGER NOT NULL,
  params         TEXT NOT NULL,     -- JSON object
  created_at     INTEGER NOT NULL,
  started_at     INTEGER,           -- NULL: no attempt was started yet
  ended_at       INTEGER,           -- NULL: not in a final state
  retry_at       INTEGER            -- NULL: is not waiting for its next attempt
) STRICT;
-- Lists are newest first; each index ends in the id, so that a page is one step into it.
CREATE INDEX runs_of_job ON runs (pipeline, job, state, id);
CREATE INDEX runs_in_state ON runs (state, id);

-- How many runs there are of each kind, kept by the triggers below: counting a million rows would take too long, and
-- lists learn here which parts of runs_of_job exist.
CREATE TABLE run_counts (
  pipeline TEXT NOT NULL,
  job      TEXT NOT NULL,
  state    TEXT NOT NULL,
  runs     INTEGER NOT NULL,
  PRIMARY KEY (pipeline, job, state)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_counts_of_job ON run_counts (job);

CREATE TRIGGER run_made AFTER INSERT ON runs BEGIN
  INSERT INTO run_counts VALUES (new.pipeline, new.job, new.state, 1)
    ON CONFLICT DO UPDATE SET runs = runs + 1;
END;
CREATE TRIGGER run_changed AFTER UPDATE OF state ON runs WHEN new.state <> old.state BEGIN
  UPDATE run_counts SET runs = runs - 1 WHERE pipeline = old.pipeline AND job = old.job AND state = old.state;
  INSERT INTO run_counts VALUES (new.pipeline, new.job, new.state, 1)
    ON CONFLICT DO UPDATE SET runs = runs + 1;
END;
CREATE TRIGGER run_deleted AFTER DELETE ON runs BEGIN
  UPDATE run_counts SET runs = runs - 1 WHERE pipeline = old.pipeline AND job = old.job AND state = old.state;
END;

-- The tasks of a run, as they stand in its latest attempt.
CREATE TABLE tasks (
  run        TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  name       TEXT NOT NULL,
  position   INTEGER NOT NULL,  -- in the definition, from 0
  state      TEXT NOT NULL,
  attempt    INTEGER NOT NULL,
  exit_code  INTEGER,           -- NULL: has not ended, or not by exiting
  reason     TEXT NOT NULL,
  started_at INTEGER,           -- NULL: not started in this attempt
  ended_at   INTEGER,           -- NULL: not in a final state
  PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

-- The events that came with a request to run a job. Apart from runs, so that lists never read them.
CREATE TABLE run_inputs (
  run    TEXT NOT NULL PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
  ndjson BLOB NOT NULL
) STRICT;

-- Runs that failed with an input: dead letters until they are replayed or discarded. No cascade: retention must not
-- delete them.
CREATE TABLE dead_runs (
  run      TEXT NOT NULL PRIMARY KEY REFERENCES runs (id),
  pipeline TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_runs_of_pipeline ON dead_runs (pipeline, run);

-- Requests that must not make a second run. A key outlives its run when the run is deleted early for being one of too
-- many.
CREATE TABLE idempotency_keys (
  scope       TEXT NOT NULL,     -- PIPELINE/JOB
  key         TEXT NOT NULL,
  fingerprint TEXT NOT NULL,     -- of the request
  run         TEXT NOT NULL,     -- the run it made
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- How far each topic trigger has claimed its topic. Moved only together with the run that the events went to.
CREATE TABLE trigger_cursors (
  pipeline    TEXT NOT NULL,
  job         TEXT NOT NULL,
  trigger_key TEXT NOT NULL,     -- what it watches, as 'topic:orders'
  position    INTEGER NOT NULL,  -- offset of the last claimed event
  PRIMARY KEY (pipeline, job, trigger_key)
) STRICT, WITHOUT ROWID;

-- When each cron or every trigger fired last (or was first seen).
CREATE TABLE schedules (
  pipeline    TEXT NOT NULL,
  job         TEXT NOT NULL,
  trigger_key TEXT NOT NULL,
  fired       INTEGER NOT NULL,
  PRIMARY KEY (pipeline, job, trigger_key)
) STRICT, WITHOUT ROWID;

-- migration: 2 jobs
-- Priorities, overlap keys and deadlines of runs, what happened to each, outputs of tasks and their instances, files
-- that runs have taken, alerts that wait for delivery. Runs and tasks that were there before get what the defaults say.

ALTER TABLE runs ADD COLUMN priority    INTEGER NOT NULL DEFAULT 5;   -- 0 to 9
ALTER TABLE runs ADD COLUMN overlap_key TEXT NOT NULL DEFAULT '';     -- '': the job has none
ALTER TABLE runs ADD COLUMN deadline_at INTEGER;                      -- NULL: it has none
ALTER TABLE runs ADD COLUMN retry_of    TEXT NOT NULL DEFAULT '';     -- the run that it repeats; '': repeats none
ALTER TABLE runs ADD COLUMN input_where TEXT NOT NULL DEFAULT '';     -- expression; '': all events of the claim
-- What happened, a line for each entry (store_timeline.hpp); '' in runs of the first schema until something happens.
-- The last column, so that whoever does not ask for it does not read it.
ALTER TABLE runs ADD COLUMN timeline    TEXT NOT NULL DEFAULT '';

-- The times that a job's schedule has made runs for: what a backfill leaves out.
CREATE INDEX runs_for_time ON runs (pipeline, job, scheduled_for, trigger_kind) WHERE scheduled_for IS NOT NULL;

-- For lists of one job name in all pipelines, of which there may be thousands. Only of runs that have ended, so that it
-- costs one entry for each run instead of one for each change of its state; what is unfinished is found pipeline by
-- pipeline, in run_counts.
CREATE INDEX ended_runs_of_job_name ON runs (job, state, id) WHERE ended_at IS NOT NULL;
DROP INDEX run_counts_of_job;
CREATE INDEX run_counts_of_job ON run_counts (job, state);

-- An instance of a task that fans out is a row behind those of the definition's tasks.
ALTER TABLE tasks ADD COLUMN output TEXT NOT NULL DEFAULT '';         -- JSON object; '': it wrote none
ALTER TABLE tasks ADD COLUMN item   TEXT NOT NULL DEFAULT '';         -- JSON; '': it is no instance

-- Files that a trigger must not take again while they stay as they are. Kept beyond the run, until the file is gone or
-- the pipeline is.
CREATE TABLE taken_files (
  pipeline    TEXT NOT NULL,
  job         TEXT NOT NULL,
  trigger_key TEXT NOT NULL,
  path        TEXT NOT NULL,     -- absolute
  stamp       TEXT NOT NULL,     -- another one under the same path is another file
  run         TEXT NOT NULL,     -- that took it; may have been deleted since
  PRIMARY KEY (pipeline, job, trigger_key, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX taken_files_of_run ON taken_files (run);

-- Alerts until they are delivered or given up. They outlive their run: it may be deleted while their receiver is down.
-- A settled one of lateness stays with its run, so that it is not made a second time.
CREATE TABLE alerts (
  id          TEXT NOT NULL PRIMARY KEY,  -- ULID
  pipeline    TEXT NOT NULL,
  job         TEXT NOT NULL,
  run         TEXT NOT NULL,
  revision    INTEGER NOT NULL,
  alert_index INTEGER NOT NULL,  -- in the job's list, from 0
  kind        TEXT NOT NULL,     -- 'failure', 'late'
  payload     TEXT NOT NULL,     -- JSON object; '' when settled
  created_at  INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,  -- deliveries tried
  failure     TEXT NOT NULL,     -- of the last one; '': none was tried, or it is settled
  settled     INTEGER NOT NULL,  -- 0 or 1
  UNIQUE (run, alert_index, kind)
) STRICT;
CREATE INDEX alerts_to_deliver ON alerts (id) WHERE settled = 0;

CREATE TRIGGER run_forgotten AFTER DELETE ON runs BEGIN
  DELETE FROM alerts WHERE run = old.id AND settled = 1;
END;

-- migration: 3 traces
-- The W3C trace context that a run was asked with: traceparent, and behind a space tracestate when there is one; '': none.
ALTER TABLE runs ADD COLUMN trace TEXT NOT NULL DEFAULT '';

-- migration: 4 tokens and audit log

-- Bearer tokens. One that was revoked or has expired stays, so that the audit log's ids mean something, until a thousand
-- others have ended after it. As long as there is a row, requests are asked for a token (unless the settings say otherwise).
CREATE TABLE tokens (
  id            TEXT NOT NULL PRIMARY KEY,  -- the public part
  name          TEXT NOT NULL,
  secret_sha256 TEXT NOT NULL,     -- hex; the secret itself is nowhere
  roles         TEXT NOT NULL,     -- words separated by spaces
  pipelines     TEXT NOT NULL,     -- names separated by spaces; '': all
  created_at    INTEGER NOT NULL,
  expires_at    INTEGER,           -- NULL: never
  revoked_at    INTEGER,           -- NULL: it was not
  last_used_at  INTEGER,           -- NULL: never; else to the minute
  rate          REAL,              -- requests per second; NULL: no limit
  burst         INTEGER NOT NULL   -- 0 without a rate
) STRICT, WITHOUT ROWID;

-- Who changed something, and who was refused; each kind is kept up to a number of its own, so that a flood of refusals
-- drives out no change.
CREATE TABLE audit (
  id       TEXT NOT NULL PRIMARY KEY,  -- ULID
  at       INTEGER NOT NULL,
  who      TEXT NOT NULL,
  token    TEXT NOT NULL,
  name     TEXT NOT NULL,
  address  TEXT NOT NULL,
  method   TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  target   TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  outcome  TEXT NOT NULL,          -- 'done', 'failed', 'refused'
  status   INTEGER NOT NULL,
  request  TEXT NOT NULL,
  detail   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_refused ON audit (outcome = 'refused', id);
