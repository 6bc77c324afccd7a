// The control plane: turns what the definitions want into what runs, and answers for it.
//
// Lives on the control thread, where every method is called; owned by the daemon. Definitions, flows and jobs change only
// through here. One pipeline's changes are applied one after another (a queue per pipeline), so a start never races a
// stop. start() brings the stored pipelines to life, through the same diff that later changes go through;
// stop() takes them down in order: triggers, then flows drain, then runs are given their grace, then they are cut off.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "config/diff.hpp"
#include "config/error.hpp"
#include "runtime/component.hpp"
#include "runtime/registry.hpp"
#include "runtime/tap.hpp"
#include "scheduler/audit_desk.hpp"
#include "scheduler/change_log.hpp"
#include "scheduler/model.hpp"
#include "scheduler/run_tally.hpp"
#include "scheduler/store.hpp"
#include "scheduler/token_book.hpp"

namespace penstock::runtime {
class cgroup_tree;
class commit_pause;
class wakeup;
}

namespace penstock::scheduler {

namespace asio = boost::asio;

struct plan;           // plan.hpp

// The executors that work runs on; each outlives the supervisor.
struct executors {
  asio::any_io_executor control;  // one thread; the supervisor's own
  asio::any_io_executor flows;    // pool: each flow gets a strand
  asio::any_io_executor batch;    // pool at low priority: each task gets a strand
};

struct supervisor_options {
  std::filesystem::path data;                                   // the data folder
  std::string instance;                                         // its id
  std::chrono::nanoseconds drain_timeout{std::chrono::seconds{30}};  // stop(): for flows and runs together
  std::int64_t max_active_runs = 64;                            // of the whole daemon
  std::size_t max_waiting_requests = 1000;                      // for the runs of one job to be stored; beyond: overloaded
  std::chrono::nanoseconds priority_ageing{std::chrono::minutes{10}};  // a run that waited so long goes before all others
  std::shared_ptr<runtime::cgroup_tree> cgroups{};              // null: there are none to use
  std::shared_ptr<runtime::commit_pause> commits{};             // of all stores, for backups; null: none can be made
  std::int64_t max_log_bytes = 16 << 20;                        // of one task
  std::int64_t keep_runs = 10'000;                              // final runs kept of each job
  std::chrono::hours keep_for{24 * 30};                         // and for how long
  token_rule tokens = token_rule::automatic;
  audit_limits keep_audit{};

  std::filesystem::path scratch() const { return data / "tmp"; }  // for files of programs that run
};

// ---- what is asked ----

struct apply_request {
  std::optional<std::string> name{};  // from the URL; must equal the definition's name
  std::string text{};
  std::string media_type = "application/yaml";
  std::string origin = "rest";        // or the file's path
  std::filesystem::path directory{};  // of the file, for ${dir}; empty for REST
  std::string if_match{};             // one ETag or several (see etag.hpp), or "*"; empty: none asked
  bool must_be_new = false;           // POST, or If-None-Match: *
  bool dry_run = false;
};

struct apply_answer {
  bool created = false;
  bool unchanged = false;  // the same text as the current revision: nothing was stored
  pipeline_record record;
  config::pipeline_diff changes;
  std::vector<problem> warnings;  // of the definition, and what steps will lose of what they have kept
  std::shared_ptr<const plan> planned;  // of a dry run
};

struct rollback_request {
  std::string name;
  std::optional<std::int64_t> revision{};  // absent: the one before the current one
  std::string if_match{};
  bool dry_run = false;
};

struct trigger_request {
  std::string ndjson{};           // events: ids are filled in already
  std::int64_t events = 0;
  std::string params = "{}";      // JSON object
  std::optional<int> priority{};  // 0 to 9; absent: the job's
  std::string idempotency_key{};  // empty: none
  std::string fingerprint{};      // hash of the request's body
  trace_context trace{};
};

struct trigger_answer {
  std::string run_id;
  bool existed = false;  // the same Idempotency-Key was seen before
  std::vector<timeline_entry> timeline{};  // of a run that is new: what has happened to it so far
};

struct backfill_request {
  timestamp from{}, until{};  // [from, until)
  std::string params = "{}";
  bool again = false;         // also times that have a run already
  bool dry_run = false;
};

struct backfill_answer {
  std::int64_t made = 0;      // how many runs were made, or would be
  std::int64_t existing = 0;  // times that have a run already
  std::vector<std::string> runs;
};

// ---- what is shown ----

struct step_view {
  std::string name;
  std::int64_t received = 0, emitted = 0, filtered = 0, dead = 0, duplicates = 0, late = 0, batches = 0;
  std::chrono::nanoseconds busy{};  // how long it worked, in all
};

struct flow_view {
  std::string name;
  flow_state state{};
  std::string reason;               // why it backs off, failed or stopped; while it runs: why it does not get on
  std::optional<timestamp> since{};  // in this state since
  std::optional<timestamp> next_start{};  // backing_off
  int restarts = 0;
  std::string kind;  // "dataflow" or "command"
  std::int64_t received = 0, emitted = 0, filtered = 0, dead = 0, duplicates = 0;
  std::int64_t late = 0;         // of these: too late for what a step works out
  std::int64_t redelivered = 0;  // further attempts at a sink
  std::vector<step_view> steps{};
  std::optional<timestamp> last_event_at{};
  std::optional<int> pid{};
};

struct job_view {
  std::string name;
  std::int64_t queued = 0, running = 0;  // running counts retrying ones too
  std::vector<std::string> triggers;     // in words: "topic quakes, 200 events or 2s", "cron 0 6 * * * Europe/Madrid"
  std::optional<timestamp> next_firing{};
  // Events and files for which `where` or the overlap key failed, since its triggers were defined or the daemon started.
  std::int64_t expression_failures = 0;
  std::vector<std::string> troubles{};       // of triggers that do not work now, tried again every second: "TRIGGER: why"
  std::map<std::string, std::int64_t> runs;  // kept runs by state token
  run_tally since_start{};
};

struct pipeline_view {
  pipeline_record record;
  std::shared_ptr<const config::pipeline> definition;
  bool paused = false;
  std::vector<flow_view> flows;
  std::vector<job_view> jobs;
};

// A definition file that could not be applied; its last good revision, if any, stays live.
struct broken_file {
  std::string file;
  std::vector<problem> problems;
};

struct consumer_view {
  std::string consumer;  // "PIPELINE/flow/FLOW" or "PIPELINE/job/JOB"
  std::int64_t cursor = 0;
  std::int64_t lag = 0;  // events
};

// A dead letter of an event (of a flow or a task) or of a run's input.
struct dead_letter_view {
  runtime::dead_letter letter;     // of a run's input: id is the run's id, step is "run"
  std::string kind;                // "event" or "run"
  std::int64_t events = 1;         // kind "run": how many events its input has
};

// What a replay or discard did.
struct settled {
  std::int64_t done = 0;
  std::vector<std::string> failed{};  // one sentence each: id and why it could not be replayed
  std::int64_t dead_again = 0;        // of those done: events that failed in their flow once more and are dead letters anew
};

struct backup_request {
  std::filesystem::path to;  // absolute; a new folder, whose parent is there
  bool logs = false;         // what tasks have printed, too
};

enum class backup_state { none, running, done, failed, cancelled };

// The backup that is being made, or the last one since the daemon started.
struct backup_view {
  backup_state state = backup_state::none;
  std::string to;
  std::string reason;  // why it failed
  std::optional<timestamp> started_at{}, ended_at{};
  std::optional<timestamp> as_of{};  // the instant that it shows
  std::int64_t bytes = 0, bytes_done = 0;
  int files = 0, files_done = 0;
};

struct stop_report {
  std::vector<std::string> forced;  // what could not end by itself in time, one sentence each
  bool hangs = false;               // a thread waits in a call that nobody can end: the process must leave without it
};

class supervisor {
 public:
  supervisor(executors where, store& state, runtime::services& offered, const runtime::registry& components,
             supervisor_options options);
  ~supervisor();
  supervisor(const supervisor&) = delete;
  supervisor& operator=(const supervisor&) = delete;

  // Recovers runs, kills orphans of a killed daemon, starts everything that is stored.
  // `definitions`: the folder that follow_folder() will be told; a file that was changed meanwhile counts from the beginning.
  asio::awaitable<void> start(std::filesystem::path definitions = {});
  asio::awaitable<stop_report> stop();
  bool stopping() const;

  // ---- pipelines ----
  // invalid / malformed with problems; conflict: exists, or the name differs from the URL's; precondition_failed: ETag.
  asio::awaitable<result<apply_answer>> apply(apply_request request);
  // Makes the text of an earlier revision the next one. not_found: pipeline or revision; conflict: it is the first.
  asio::awaitable<result<apply_answer>> rollback(rollback_request request);
  // All revisions of a pipeline that exists, newest first, without their texts; and one with its text. not_found.
  result<std::vector<pipeline_record>> revisions(const std::string& name);
  result<pipeline_record> revision(const std::string& name, std::int64_t revision);
  asio::awaitable<result<void>> remove(std::string name, std::string if_match);
  asio::awaitable<result<void>> pause(std::string name);
  asio::awaitable<result<void>> resume(std::string name);
  std::vector<pipeline_view> pipelines();
  result<pipeline_view> pipeline(const std::string& name);  // not_found names the nearest
  // Applies every *.yaml, *.yml and *.json of the folder; a broken file never stops the others.
  asio::awaitable<void> load_folder(std::filesystem::path folder);
  // The same, and from then on each file as it is saved. Once, after start().
  asio::awaitable<void> follow_folder(std::filesystem::path folder);
  std::vector<broken_file> broken_files() const;

  // The checked definition as it is live; null: there is none of that name. And whose hook a path ("/orders") is; empty:
  // nobody's.
  std::shared_ptr<const config::pipeline> definition(const std::string& name) const;
  std::string hook_owner(const std::string& path) const;

  change_log& changes();
  token_book& tokens();
  audit_desk& audit();

  // ---- flows ----
  result<flow_view> flow(const std::string& pipeline, const std::string& name);
  // Until the next start of the flow, its pipeline or the daemon. `emit`: open windows and the like go on now.
  // conflict: the pipeline is paused; unavailable: it did not end in time.
  asio::awaitable<result<void>> start_flow(std::string pipeline, std::string flow);
  asio::awaitable<result<void>> stop_flow(std::string pipeline, std::string flow, bool emit);
  asio::awaitable<result<void>> restart_flow(std::string pipeline, std::string flow);
  result<std::shared_ptr<runtime::tap>> listen(const std::string& pipeline, const std::string& flow,
                                               runtime::tap_options options);

  // ---- runs ----
  // not_found: pipeline or job; invalid: parameters, or an idempotency key that came with another request; overloaded: the
  // job's queue is full, or too many requests wait for its runs to be stored; conflict: paused; a run refused by `on_overlap: skip` is
  // recorded as skipped and answered like any other.
  asio::awaitable<result<trigger_answer>> trigger(std::string pipeline, std::string job, trigger_request request);
  result<run_record> run(const std::string& id);
  std::vector<run_record> runs(const run_filter& filter);
  // Returns when the run is final or `limit` has passed, whichever is first; the record as it is then.
  asio::awaitable<result<run_record>> wait_for_end(std::string id, std::chrono::nanoseconds limit);
  asio::awaitable<result<void>> cancel(std::string id);  // conflict: it has ended already
  // A new run of the same job with the same input and parameters, on the current revision. Tasks that succeeded are not
  // done again, unless `from_start`. Asked again with the same idempotency key, it is the run that was made the first time.
  asio::awaitable<result<trigger_answer>> retry(std::string id, bool from_start, trace_context trace,
                                               std::string idempotency_key);
  // One run for each time of the job's schedule in the range that has none; they wait for their turn. conflict: the job
  // has no schedule, or is being backfilled by another request; invalid: too many times, or parameters.
  asio::awaitable<result<backfill_answer>> backfill(std::string pipeline, std::string job, backfill_request request);
  std::vector<timeline_entry> timeline(const std::string& run);
  // Where the log of a task is. The file may not exist (yet): the task printed nothing.
  std::filesystem::path log_file(const std::string& run, const std::string& task) const;

  // ---- topics ----
  // Who reads it and how far behind.
  std::vector<consumer_view> consumers(const std::string& topic);

  // ---- dead letters ----
  // Both kinds in one list, oldest first, paged by id.
  std::vector<dead_letter_view> dead_letters(const std::string& pipeline, const std::string& after_id, std::size_t limit);
  std::int64_t count_dead_letters();
  // Events go through their flow's steps and sink again (one that fails again is a new dead letter); a run's input makes
  // a new run. not_found: an id is unknown.
  asio::awaitable<result<settled>> replay_dead_letters(std::vector<std::string> ids);
  asio::awaitable<result<settled>> discard_dead_letters(std::vector<std::string> ids);

  // ---- backup ----
  // Starts to copy the data folder as it is at one instant; see backup_desk.hpp. invalid: where to; conflict: there is
  // something already, or another backup is being made.
  // What keeps something from being stored now: a full disk, say. Where the last commit failed another one is tried first,
  // so that it is over when the disk works again though nobody writes. Nothing: all is well.
  asio::awaitable<std::optional<std::string>> storage_trouble();

  result<void> start_backup(backup_request request);
  backup_view backup() const;
  // Notified when the one that is being made has ended, as long as somebody else holds it.
  void follow_backup(const std::shared_ptr<runtime::wakeup>& follower);
  // What was copied so far is removed. conflict: none is being made.
  result<void> cancel_backup();

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace penstock::scheduler
