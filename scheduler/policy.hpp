// The scheduler's decisions as pure functions of (state, event, now). No clock, no I/O; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "scheduler/model.hpp"

namespace penstock::scheduler {

// ---- topic trigger: when do waiting events become a run? ----

// What the trigger's topic holds behind its cursor. An event "counts" when the trigger's `where` lets it through.
struct topic_view {
  std::int64_t cursor = 0;            // claimed so far
  std::int64_t last_offset = 0;       // how far one claim could go now
  std::int64_t matching = 0;          // events in (cursor, last_offset] that count
  std::int64_t full_at = 0;           // the offset of the max_events-th that counts; 0: there are fewer
  bool closed = false;                // the claim cannot grow: what follows has another overlap key
  std::optional<timestamp> oldest{};  // receive time of the first that counts; absent when none does
  std::optional<timestamp> newest{};  // and of the last
  bool may_start = true;              // overlap rule and pause allow another run now
};

struct topic_decision {
  enum class action { wait, wait_until, claim };
  action what = action::wait;
  std::int64_t until = 0;  // claim: offsets (cursor, until]
  timestamp at{};          // wait_until
  bool operator==(const topic_decision&) const = default;
};

// Claims at once what is full or closed; else when nothing has come for `debounce`, but max_wait after the oldest at
// the latest (debounce without max_wait: no latest). Without debounce: max_wait after the oldest. Where nothing counts
// it waits, however far the topic has gone.
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

// Of the same job and overlap key. Runs that are about to be stored (reserved) count as what they will be.
struct job_load {
  std::int64_t active = 0;   // running
  std::int64_t waiting = 0;  // queued or retrying
};

enum class admission {
  start_or_wait,  // run_queue says which
  skip,           // recorded as skipped
  replace,        // it takes the place of those that are active or waiting
  refuse,         // too many are waiting: no run is made
};

// `max_active`: absent means 1, with overlap_rule::allow no limit.
admission admit(config::overlap_rule rule, std::optional<std::int64_t> max_active, std::int64_t queue_limit,
                const job_load& load);

// ---- attempts ----

// The pause before attempt `next` (2, 3, …): doubling from backoff_first, and up to a quarter more by `jitter` in
// [0, 1); never above backoff_limit.
nanoseconds backoff(const config::retry_rule& rule, int next, double jitter);

struct attempt_result {
  bool timed_out = false;
  std::string reason{};
  std::optional<int> exit_code{};  // of the task that failed; absent: it did not exit by itself, or is no command
  bool permanent = false;          // it would fail again, whatever the rule says
};

struct failure_decision {
  run_state next = run_state::failed;  // retrying, failed or timed_out
  // Why it is not tried again although attempts are left, in words: "exit code 2 is not retried", "the retry budget of
  // 20 in 1h is spent". Else empty.
  std::string not_retried{};
  bool operator==(const failure_decision&) const = default;
};

// The retries of all runs of a job, for its budget: at most `retries` in any `within`.
class retry_budget_state {
 public:
  // May a retry be made now? If so, it is counted.
  bool take(const config::retry_budget& budget, timestamp now);

 private:
  std::deque<timestamp> made_;  // ascending; those that still count
};

// After a failed attempt number `attempt`. Does not look at the budget.
failure_decision after_failure(const config::retry_rule& rule, int attempt, const attempt_result& result);
// The same, and takes the retry from the job's budget, if there is one.
failure_decision after_failure(const config::retry_rule& rule, int attempt, const attempt_result& result,
                               retry_budget_state& budget, timestamp now);

constexpr int interruption_limit = 50;
// A run found unfinished at start: queued again, or failed when it was interrupted too often.
run_state after_interruption(int interruptions);

// ---- flows: restart with backoff ----

struct restart_state {
  int failures = 0;  // in a row
};
// The pause before the next start: 1 s doubling to 30 s; a run of at least 10 s counts as healthy and resets.
nanoseconds restart_pause(restart_state& state, nanoseconds lived);

// ---- time limits, counted from when a run was due, or made if it was never due ----

// A backfill's time lies far back: it counts as never due (`scheduled` absent).
std::optional<timestamp> deadline_of(const config::job& job, timestamp created, std::optional<timestamp> scheduled);

// When a run that has not ended is late. Only for alerts on late.
timestamp late_at(const config::alert& alert, timestamp created, std::optional<timestamp> scheduled);

// ---- schedules ----

// The times in (last, now] that `trigger` has missed and shall still run, by its policy, oldest first;
// bounded by `limit`.
std::vector<timestamp> missed_firings(const config::cron_trigger& trigger, timestamp last, timestamp now,
                                      std::size_t limit);

// The next firing of an `every` trigger: multiples of the interval since `anchor` (when the job was first
// seen).
timestamp next_every(const config::every_trigger& trigger, timestamp anchor, timestamp after);

// When an `at` trigger fires: at its time, also if that has passed; nothing when it has fired. `last_fired`: the time
// it stood for, or any later one; after a change of the definition to a later time it fires again.
std::optional<timestamp> next_at(const config::at_trigger& trigger, std::optional<timestamp> last_fired);

// For backfill: the times in [from, to), oldest first; of an `every` trigger they begin with `from`. At most limit + 1,
// so that the caller sees when there are more than `limit`.
std::vector<timestamp> firings_between(const config::cron_trigger& trigger, timestamp from, timestamp to,
                                       std::size_t limit);
std::vector<timestamp> firings_between(const config::every_trigger& trigger, timestamp from, timestamp to,
                                       std::size_t limit);

// For plans: the next `count` times after `after` that are known beforehand (cron, every, at; of other triggers none).
// `every` counts from `anchor`; absent: from `after`.
std::vector<timestamp> next_firings(const config::trigger& trigger, timestamp after, std::size_t count,
                                    std::optional<timestamp> anchor = std::nullopt);

}  // namespace penstock::scheduler
