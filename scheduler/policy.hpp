// The scheduler's decisions as pure functions of (state, event, now). No clock, no I/O; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "scheduler/model.hpp"

namespace penstock::scheduler {

// ---- topic trigger: when do waiting events become a run? ----

struct topic_view {
  std::int64_t cursor = 0;            // claimed so far
  std::int64_t last_offset = 0;       // committed in the topic
  std::optional<timestamp> oldest{};  // receive time of the first unclaimed event; absent when none waits
  bool may_start = true;              // overlap rule and pause allow another run now
};

struct topic_decision {
  enum class action { wait, wait_until, claim };
  action what = action::wait;
  std::int64_t until = 0;  // claim: offsets (cursor, until]
  timestamp at{};          // wait_until
  bool operator==(const topic_decision&) const = default;
};

topic_decision decide(const config::topic_trigger& trigger, const topic_view& view, timestamp now);

// ---- a run that is open for more events (grace_period) ----

struct open_view {
  std::int64_t after = 0, until = 0;  // claimed by this run so far
  std::int64_t last_offset = 0;       // of the topic
  timestamp last_event{};             // when the claim last grew (or the run started)
};

struct open_decision {
  enum class action { extend, close, wait_until };
  action what = action::close;
  std::int64_t until = 0;  // extend
  timestamp at{};          // wait_until
  bool operator==(const open_decision&) const = default;
};

// Extends by what waits in the topic, up to max_events in all; closes when that is reached or nothing came
// for grace_period.
open_decision decide(const config::topic_trigger& trigger, const open_view& view, timestamp now);

// ---- overlap: what happens to a new run while others of its job exist? ----

struct job_load {
  std::int64_t running = 0;  // running or retrying
  std::int64_t queued = 0;
};

enum class admission { start, queue, skip, replace, refuse };  // refuse: the queue is full

admission admit(config::overlap_rule rule, std::int64_t queue_limit, const job_load& load);

// ---- attempts ----

// The pause before attempt `next` (2, 3, …): doubling from backoff_first to backoff_limit, times `jitter` in
// [0.5, 1].
nanoseconds backoff(const config::retry_rule& rule, int next, double jitter);

struct attempt_result {
  bool timed_out = false;
  std::string reason{};
};
// The state after a failed attempt number `attempt`: retrying (attempts are left), else failed or timed_out.
run_state after_failure(const config::retry_rule& rule, int attempt, const attempt_result& result);

constexpr int interruption_limit = 50;
// A run found unfinished at start: queued again, or failed when it was interrupted too often.
run_state after_interruption(int interruptions);

// ---- flows: restart with backoff ----

struct restart_state {
  int failures = 0;  // in a row
};
// The pause before the next start: 1 s doubling to 30 s; a run of at least 10 s counts as healthy and resets.
nanoseconds restart_pause(restart_state& state, nanoseconds lived);

// ---- task DAG ----

struct dag_step {
  std::vector<std::string> start;  // queued tasks whose needs have succeeded
  std::vector<std::string> skip;   // queued tasks with a need that ended otherwise (transitively)
};
// `tasks` are the records, in the order of job.tasks.
dag_step next_tasks(const config::job& job, const std::vector<task_record>& tasks);

// ---- schedules ----

// The times in (last, now] that `trigger` has missed and shall still run, by its policy, oldest first;
// bounded by `limit`.
std::vector<timestamp> missed_firings(const config::cron_trigger& trigger, timestamp last, timestamp now,
                                      std::size_t limit);

// The next firing of an `every` trigger: multiples of the interval since `anchor` (when the job was first
// seen).
timestamp next_every(const config::every_trigger& trigger, timestamp anchor, timestamp after);

}  // namespace penstock::scheduler
