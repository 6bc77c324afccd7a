// See policy.hpp.
#include "scheduler/policy.hpp"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <unordered_map>

#include "scheduler/cron.hpp"

namespace penstock::scheduler {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

// Stamps are made on other threads, so one may be a little ahead of the `now` it is compared with. One that
// is further ahead was made before the clock was set back, and says nothing about how long ago that was.
constexpr seconds clock_tolerance{1};

// When something that happened at `stamp` is `length` old; never later than `length` from now.
timestamp due(timestamp stamp, nanoseconds length, timestamp now) {
  if (stamp > now + clock_tolerance) return now;
  return std::min(stamp, now) + std::chrono::ceil<microseconds>(length);
}

// `first` doubled `times` times, up to `limit`.
nanoseconds doubled(nanoseconds first, int times, nanoseconds limit) {
  nanoseconds pause = std::min(first, limit);
  for (int i = 0; i < times && pause > nanoseconds{0} && pause < limit; ++i) {
    pause = pause > limit / 2 ? limit : pause * 2;
  }
  return pause;
}

// The tasks of a job by index instead of by name.
struct task_links {
  std::vector<std::vector<std::size_t>> dependents;  // the tasks that need this one
  std::vector<std::size_t> unmet;                    // how many of its needs have not succeeded
};

task_links link(const config::job& job, const std::vector<task_record>& tasks) {
  std::unordered_map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < job.tasks.size(); ++i) index.emplace(job.tasks[i].name, i);
  task_links links{std::vector<std::vector<std::size_t>>(tasks.size()),
                   std::vector<std::size_t>(tasks.size())};
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    for (const std::string& need : job.tasks.at(i).needs) {
      const std::size_t other = index.at(need);
      links.dependents.at(other).push_back(i);
      if (tasks[other].state != run_state::succeeded) ++links.unmet[i];
    }
  }
  return links;
}

// The queued tasks that can never start, because a task they need, directly or not, ended without success.
std::vector<bool> blocked_tasks(const std::vector<task_record>& tasks, const task_links& links) {
  std::vector<std::size_t> causes;  // grows while the tasks behind it are found
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (is_final(tasks[i].state) && tasks[i].state != run_state::succeeded) causes.push_back(i);
  }
  std::vector<bool> blocked(tasks.size(), false);
  for (std::size_t k = 0; k < causes.size(); ++k) {
    for (const std::size_t i : links.dependents[causes[k]]) {
      if (tasks[i].state != run_state::queued || blocked[i]) continue;
      blocked[i] = true;
      causes.push_back(i);
    }
  }
  return blocked;
}

// The newest firing in [first, now], where `first` is one. By halving, because a year of seconds may lie
// between.
timestamp newest_firing(const config::cron_trigger& trigger, timestamp first, timestamp now) {
  timestamp newest = first;
  timestamp none_after = now;
  while (newest < none_after) {
    const timestamp middle = newest + (none_after - newest) / 2;
    const auto next = next_firing(trigger.expression, trigger.timezone, middle);
    if (next && *next <= now) {
      newest = *next;
    } else {
      none_after = middle;
    }
  }
  return newest;
}

}  // namespace

topic_decision decide(const config::topic_trigger& trigger, const topic_view& view, timestamp now) {
  using action = topic_decision::action;
  const std::int64_t waiting = view.last_offset - view.cursor;
  if (!view.may_start || waiting <= 0) return {action::wait};
  if (waiting >= trigger.max_events) return {action::claim, view.cursor + trigger.max_events};
  const timestamp at = view.oldest ? due(*view.oldest, trigger.max_wait, now) : now;
  if (at <= now) return {action::claim, view.last_offset};
  return {action::wait_until, 0, at};
}

open_decision decide(const config::topic_trigger& trigger, const open_view& view, timestamp now) {
  using action = open_decision::action;
  if (trigger.grace_period <= nanoseconds{0} || view.until - view.after >= trigger.max_events) {
    return {action::close};
  }
  if (view.last_offset > view.until) {
    return {action::extend, std::min(view.last_offset, view.after + trigger.max_events)};
  }
  const timestamp at = due(view.last_event, trigger.grace_period, now);
  if (at <= now) return {action::close};
  return {action::wait_until, 0, at};
}

admission admit(config::overlap_rule rule, std::int64_t queue_limit, const job_load& load) {
  const bool alone = load.running == 0 && load.queued == 0;
  const bool full = load.queued >= queue_limit;
  switch (rule) {
    case config::overlap_rule::queue:
      if (alone) return admission::start;
      return full ? admission::refuse : admission::queue;
    case config::overlap_rule::skip:
      return alone ? admission::start : admission::skip;
    case config::overlap_rule::allow:
      // Queued runs of such a job wait for a free slot of the machine.
      return load.queued > 0 && full ? admission::refuse : admission::start;
    case config::overlap_rule::replace:
      return alone ? admission::start : admission::replace;
  }
  return admission::queue;
}

nanoseconds backoff(const config::retry_rule& rule, int next, double jitter) {
  const nanoseconds pause = doubled(rule.backoff_first, next - 2, rule.backoff_limit);
  // As a part to take off, because the whole may be too large for an exact double.
  const double less = 1.0 - std::clamp(jitter, 0.5, 1.0);
  return pause - nanoseconds{static_cast<nanoseconds::rep>(static_cast<double>(pause.count()) * less)};
}

run_state after_failure(const config::retry_rule& rule, int attempt, const attempt_result& result) {
  if (attempt < rule.attempts) return run_state::retrying;
  return result.timed_out ? run_state::timed_out : run_state::failed;
}

run_state after_interruption(int interruptions) {
  return interruptions > interruption_limit ? run_state::failed : run_state::queued;
}

nanoseconds restart_pause(restart_state& state, nanoseconds lived) {
  constexpr seconds first{1};
  constexpr seconds limit{30};
  constexpr seconds healthy{10};
  if (lived >= healthy) state.failures = 0;
  return doubled(first, state.failures++, limit);
}

dag_step next_tasks(const config::job& job, const std::vector<task_record>& tasks) {
  const task_links links = link(job, tasks);
  const std::vector<bool> blocked = blocked_tasks(tasks, links);
  dag_step step;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (blocked[i]) {
      step.skip.push_back(tasks[i].name);
    } else if (tasks[i].state == run_state::queued && links.unmet[i] == 0) {
      step.start.push_back(tasks[i].name);
    }
  }
  return step;
}

std::vector<timestamp> missed_firings(const config::cron_trigger& trigger, timestamp last, timestamp now,
                                      std::size_t limit) {
  std::vector<timestamp> missed;
  if (trigger.missed == config::missed_policy::skip || limit == 0) return missed;
  auto next = next_firing(trigger.expression, trigger.timezone, last);
  if (!next || *next > now) return missed;
  if (trigger.missed == config::missed_policy::one) return {newest_firing(trigger, *next, now)};
  while (next && *next <= now && missed.size() < limit) {
    missed.push_back(*next);
    next = next_firing(trigger.expression, trigger.timezone, *next);
  }
  return missed;
}

timestamp next_every(const config::every_trigger& trigger, timestamp anchor, timestamp after) {
  const auto interval = std::max(std::chrono::ceil<microseconds>(trigger.interval), microseconds{1});
  const microseconds elapsed = after - anchor;
  // Division rounds towards zero; before the anchor (the clock was set back) it has to round down as well.
  const auto passed = elapsed / interval - (elapsed % interval < microseconds{0} ? 1 : 0);
  return anchor + interval * (passed + 1);
}

}  // namespace penstock::scheduler
