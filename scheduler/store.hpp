// state.db: everything the control plane must remember. Tables in schema.sql; the statements stand
// in store_writer and store_pruner (all that changes something) and store_reader (all that looks).
//
// Writes go through one commit_queue on the store thread (many callers share a commit) and are durable when
// the awaitable returns; each is one transaction of the domain, named for what it does. Reads use a read-only
// connection on the control thread, which is where every method is called. Legal state transitions are
// checked inside the transaction: an illegal one throws std::logic_error and changes nothing. Owned by the
// daemon.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/error.hpp"
#include "scheduler/audit.hpp"
#include "scheduler/model.hpp"
#include "scheduler/token.hpp"

namespace penstock::runtime {
class commit_pause;
}

namespace penstock::scheduler {

namespace asio = boost::asio;

// A topic trigger's cursor, moved in the transaction that makes or grows a run.
struct cursor_move {
  std::string pipeline, job;
  std::string trigger;    // its key: what it watches, e.g. "topic:orders"
  std::int64_t from = 0;  // must be the stored cursor, else std::logic_error
  std::int64_t to = 0;
};

// A schedule's last firing, moved likewise.
struct schedule_move {
  std::string pipeline, job;
  std::string trigger;
  timestamp fired{};
};

struct idempotency {
  std::string key;          // as sent
  std::string scope;        // "PIPELINE/JOB"
  std::string fingerprint;  // hash of the request; another one under the same key is refused
};

struct new_run {
  run_record run;  // with its tasks
  std::optional<cursor_move> cursor{};
  std::optional<schedule_move> schedule{};
  std::optional<idempotency> once{};
  // Taken by this run. One that is taken already with the same stamp: std::logic_error; with another: replaced.
  std::vector<file_claim> files{};
  // Called on the store thread once create_run or create_runs has stored it, before their caller goes on; must not throw. May
  // be empty.
  std::function<void()> durable{};
};

struct attempt_start {
  int attempt = 1;
  timestamp at{};
};

// Everything that the end of a run changes.
struct run_end {
  std::string run;
  run_state state{};
  std::string reason{};
  timestamp at{};
  std::vector<task_record> tasks{};   // only those that differ from what is stored are written
  std::vector<new_run> dependents{};  // runs that this end makes
  std::vector<alert_record> alerts{};
  std::optional<attempt_start> started{};  // of its last attempt, when the store may not know yet; stored first then
};

// The start of an attempt that goes on while it is stored.
struct late_start {
  std::string run;
  attempt_start started;
};

// What was unfinished when the daemon started; tasks included, oldest first.
struct recovery {
  std::vector<run_record> unfinished;  // queued now
  std::vector<run_record> failed;      // ended now: interrupted once too often
};

// How long the final runs of one job are kept. What is absent is as for all others.
struct history {
  std::string pipeline, job;
  std::optional<std::int64_t> runs{};    // so many, 0 keeps none
  std::optional<timestamp> before{};     // those that ended earlier are deleted
};

// How many entries of the audit log are kept.
struct audit_limits {
  std::int64_t changes = 100'000;
  std::int64_t refusals = 10'000;
};

struct run_filter {
  std::string pipeline{}, job{};
  std::vector<run_state> states{};
  // By created_at: [since, until). A run's id has to be stamped with its created_at: time is searched by id.
  std::optional<timestamp> since{}, until{};
  std::string before_id{};  // page: runs older than this id
  std::size_t limit = 50;
};

class store {
 public:
  // Opens or makes DATA/state.db on the store thread and migrates it; throws with a clear text when it is
  // newer than this binary or damaged. `writer` is the store thread's executor.
  // `pause`: as of its commit_queue.
  store(std::filesystem::path file, asio::any_io_executor writer, std::shared_ptr<runtime::commit_pause> pause = {});
  ~store();
  void close();

  // The id of this data folder (ULID), made with it.
  std::string instance();
  // Gives the data folder of a state.db that nobody has open a new id, because it is a copy. Blocks.
  static void name_anew(const std::filesystem::path& file);

  // ---- pipelines ----
  // Stores the next revision and makes it current. `expected_revision` (0: must not exist) guards against a
  // racing change: errc::precondition_failed.
  asio::awaitable<result<pipeline_record>> put_pipeline(pipeline_record next, std::int64_t expected_revision);
  // Its runs stay; its cursors, schedules and the file claims of runs that have ended go.
  asio::awaitable<void> remove_pipeline(std::string name);
  asio::awaitable<void> set_paused(std::string name, bool paused);  // nothing happens when it is gone
  std::vector<pipeline_record> pipelines();
  std::optional<pipeline_record> revision(const std::string& pipeline,
                                          std::int64_t revision);       // also of removed pipelines
  std::vector<pipeline_record> revisions(const std::string& pipeline);  // newest first, without text

  // ---- runs ----
  struct created {
    std::string id;
    bool existed = false;  // the idempotency key was known: `id` is that run
  };
  // errc::invalid: the key was used with another fingerprint.
  asio::awaitable<result<created>> create_run(new_run r);
  // Several at once, all or none (dependents of a run that ended; missed firings).
  asio::awaitable<void> create_runs(std::vector<new_run> runs);
  // What create_run would answer to a request that was made before; nothing: it is new. Only a look: create_run
  // decides.
  std::optional<result<created>> known_request(const idempotency& once);

  // The claim grows to the offset `until` by `events` that count.
  asio::awaitable<void> extend_input(std::string run, std::int64_t until, std::int64_t events,
                                     cursor_move cursor);
  asio::awaitable<void> close_input(std::string run);

  // The run starts an attempt: state running, attempt number. Tasks and instances that have succeeded stay as
  // they are, all others are queued again.
  asio::awaitable<void> start_attempt(std::string run, int attempt, timestamp at);
  // The same of many; those that are not queued (they have ended since) stay as they are.
  asio::awaitable<void> start_attempts(std::vector<late_start> started);
  // A task fans out: its instances, behind the last task, all or none. std::logic_error when the run has ended
  // or has a task of that name.
  asio::awaitable<void> add_tasks(std::string run, std::vector<task_record> instances);
  asio::awaitable<void> update_task(std::string run, task_record task);
  asio::awaitable<void> set_waiting(std::string run, run_state state, std::string waiting_reason,
                                    std::optional<timestamp> retry_at, timestamp at = wall_now());
  // The end of a run, the runs that it makes and the alerts that tell of it, in one transaction. Tasks that are
  // unfinished even after `tasks` was stored end too: queued ones as skipped, others as cancelled. A run that
  // failed or timed out with an input becomes a dead letter.
  asio::awaitable<void> finish_run(run_end end);
  // Every run that is not final, at start: `running` and `retrying` ones become queued, their unfinished tasks too. An
  // attempt that was cut off is taken off `attempt` and counted in `interruptions` (failed past the limit); a pause
  // before the next attempt is no interruption and keeps its `retry_at`.
  asio::awaitable<recovery> recover(timestamp now);
  // The last commit failed (disk full): what is not stored now may not be stored for long. Any thread.
  bool failing() const;
  // As of its commit_queue.
  std::optional<std::string> trouble() const;
  asio::awaitable<void> probe();

  std::optional<run_record> run(const std::string& id);    // with tasks
  // What happened to a run, oldest first; empty when there is no such run. At most some hundred entries: later
  // ones are left out, but for its end. Details are cut at 1000 bytes.
  std::vector<timeline_entry> timeline(const std::string& run);
  std::vector<run_record> runs(const run_filter& filter);  // newest first, without tasks
  std::string load_input(const std::string& run);          // ndjson of an inline input
  std::map<std::string, std::int64_t> count_by_state(const std::string& pipeline, const std::string& job);

  // Deletes final runs that ended before `before`, and those beyond the newest `keep` of each job (0 keeps
  // none), but no dead letters. Jobs with rules of their own go by these. In portions, so that it holds up
  // nobody. Returns their ids, for their logs.
  asio::awaitable<std::vector<std::string>> prune_runs(timestamp before, std::int64_t keep);
  asio::awaitable<std::vector<std::string>> prune_runs(timestamp before, std::int64_t keep,
                                                       std::vector<history> own_rules);

  // ---- triggers ----
  std::optional<std::int64_t> cursor(const std::string& pipeline, const std::string& job,
                                     const std::string& trigger);
  asio::awaitable<void> set_cursor(std::string pipeline, std::string job, std::string trigger,
                                   std::int64_t position);  // first sight
  std::optional<timestamp> last_firing(const std::string& pipeline, const std::string& job,
                                       const std::string& trigger);
  asio::awaitable<void> set_firing(schedule_move move);  // first sight, or a skipped firing
  // All topic-trigger cursors: "PIPELINE/job/JOB/TRIGGER" and position.
  std::vector<std::pair<std::string, std::int64_t>> cursors();
  // The times in [from, until) that runs stand for which a schedule made (cron, every, at or backfill) and that
  // are kept; ascending, each once.
  std::vector<timestamp> scheduled_times(const std::string& pipeline, const std::string& job, timestamp from,
                                         timestamp until);

  // ---- files that runs have taken ----
  std::vector<file_claim> taken_files(const std::string& pipeline, const std::string& job,
                                      const std::string& trigger);
  std::vector<file_claim> files_of(const std::string& run);
  // Those that are still taken with the same stamp.
  asio::awaitable<void> forget_files(std::vector<file_claim> claims);

  // ---- alerts to deliver ----
  // Nothing happens when its run, index and kind are known; also when that one was settled, as long as the run
  // is kept.
  asio::awaitable<void> add_alert(alert_record alert);
  std::vector<alert_record> alerts(std::size_t limit);  // oldest first
  // Delivered or given up. Unknown ids are ignored, here and below.
  asio::awaitable<void> settle_alert(std::string id);
  asio::awaitable<void> alert_failed(std::string id, int attempts, std::string failure);

  // ---- dead letters of runs ----
  std::vector<run_record> dead_runs(const std::string& pipeline, const std::string& after_id,
                                    std::size_t limit);
  std::int64_t count_dead_runs();
  asio::awaitable<std::int64_t> settle_dead_runs(std::vector<std::string> ids);  // replayed or discarded

  // ---- tokens and the audit log ----
  asio::awaitable<void> add_token(token_record token);
  asio::awaitable<void> revoke_token(std::string id, timestamp at);  // unknown ids are ignored
  std::vector<token_record> tokens();                                // by age
  asio::awaitable<void> add_audit(audit_record entry, audit_limits keep);
  std::vector<audit_record> audit(const audit_filter& wanted);  // newest first
  // Written with the next commit; nobody waits. A failure is said on the log.
  void note_token_use(std::string id, timestamp at);
  void note_audit(std::vector<audit_record> entries, audit_limits keep);

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace penstock::scheduler
