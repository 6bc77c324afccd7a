// See policy.hpp.
#include "scheduler/policy.hpp"

#include <algorithm>
#include <chrono>
#include <variant>

#include <fmt/format.h>

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

microseconds interval_of(const config::every_trigger& trigger) {
  return std::max(std::chrono::ceil<microseconds>(trigger.interval), microseconds{1});
}

// The first time after `after` that `trigger` fires by itself.
std::optional<timestamp> known_firing(const config::trigger& trigger, timestamp after, timestamp anchor) {
  if (const auto* cron = std::get_if<config::cron_trigger>(&trigger)) {
    return next_firing(cron->expression, cron->timezone, after);
  }
  if (const auto* every = std::get_if<config::every_trigger>(&trigger)) return next_every(*every, anchor, after);
  const auto* at = std::get_if<config::at_trigger>(&trigger);
  if (at != nullptr && at->time > after) return at->time;
  return std::nullopt;
}

// Why the rule's exit codes forbid another attempt; empty: they do not.
std::string not_retried(const config::retry_rule& rule, std::optional<int> exit_code) {
  const auto holds = [exit_code](const std::vector<int>& codes) {
    return exit_code && std::find(codes.begin(), codes.end(), *exit_code) != codes.end();
  };
  if (holds(rule.not_exit_codes) || (exit_code && !rule.exit_codes.empty() && !holds(rule.exit_codes))) {
    return fmt::format("exit code {} is not retried", *exit_code);
  }
  if (rule.exit_codes.empty() || exit_code) return "";
  return rule.exit_codes.size() == 1 ? fmt::format("only exit code {} is retried", rule.exit_codes.front())
                                     : fmt::format("only exit codes {} are retried", fmt::join(rule.exit_codes, ", "));
}

}  // namespace

topic_decision decide(const config::topic_trigger& trigger, const topic_view& view, timestamp now) {
  using action = topic_decision::action;
  if (!view.may_start || view.matching <= 0) return {action::wait};
  if (view.full_at > 0) return {action::claim, view.full_at};
  if (view.closed) return {action::claim, view.last_offset};
  const bool debounced = trigger.debounce > nanoseconds{0};
  timestamp at = now;
  if (debounced && view.newest) at = due(*view.newest, trigger.debounce, now);
  if ((!debounced || trigger.max_wait > nanoseconds{0}) && view.oldest) {
    const timestamp latest = due(*view.oldest, trigger.max_wait, now);
    at = debounced ? std::min(at, latest) : latest;
  }
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

admission admit(config::overlap_rule rule, std::optional<std::int64_t> max_active, std::int64_t queue_limit,
                const job_load& load) {
  using config::overlap_rule;
  if (!max_active && rule != overlap_rule::allow) max_active = 1;
  const bool room = !max_active || load.active + load.waiting < *max_active;
  if (!room && rule == overlap_rule::skip) return admission::skip;
  if (!room && rule == overlap_rule::replace) return admission::replace;
  // With a queue of none, what finds room and nobody waiting may still start.
  const bool full = load.waiting >= queue_limit && !(room && load.waiting == 0);
  return full ? admission::refuse : admission::start_or_wait;
}

nanoseconds backoff(const config::retry_rule& rule, int next, double jitter) {
  const nanoseconds pause = doubled(rule.backoff_first, next - 2, rule.backoff_limit);
  const double part = 0.25 * std::clamp(jitter, 0.0, 1.0);
  const nanoseconds more{static_cast<nanoseconds::rep>(static_cast<double>(pause.count()) * part)};
  return more > rule.backoff_limit - pause ? rule.backoff_limit : pause + more;
}

bool retry_budget_state::take(const config::retry_budget& budget, timestamp now) {
  // What is further ahead than stamps can be was counted before the clock was set back.
  while (!made_.empty() && made_.back() > now + clock_tolerance) made_.pop_back();
  while (!made_.empty() && now - made_.front() >= budget.within) made_.pop_front();
  if (std::ssize(made_) >= budget.retries) return false;
  made_.push_back(made_.empty() ? now : std::max(now, made_.back()));
  return true;
}

failure_decision after_failure(const config::retry_rule& rule, int attempt, const attempt_result& result) {
  const run_state final_state = result.timed_out ? run_state::timed_out : run_state::failed;
  if (attempt >= rule.attempts) return {final_state};
  if (result.permanent) return {final_state, "it would fail again"};
  const std::string refused = not_retried(rule, result.exit_code);
  if (!refused.empty()) return {final_state, refused};
  return {run_state::retrying};
}

failure_decision after_failure(const config::retry_rule& rule, int attempt, const attempt_result& result,
                               retry_budget_state& budget, timestamp now) {
  const auto decided = after_failure(rule, attempt, result);
  if (decided.next != run_state::retrying || !rule.budget || budget.take(*rule.budget, now)) return decided;
  return {result.timed_out ? run_state::timed_out : run_state::failed,
          fmt::format("the retry budget of {} in {} is spent", rule.budget->retries,
                      format_duration(rule.budget->within))};
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

std::optional<timestamp> deadline_of(const config::job& job, timestamp created, std::optional<timestamp> scheduled) {
  if (!job.deadline) return std::nullopt;
  return scheduled.value_or(created) + std::chrono::ceil<microseconds>(*job.deadline);
}

timestamp late_at(const config::alert& alert, timestamp created, std::optional<timestamp> scheduled) {
  return scheduled.value_or(created) + std::chrono::ceil<microseconds>(alert.late_after);
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
  const auto interval = interval_of(trigger);
  const microseconds elapsed = after - anchor;
  // Division rounds towards zero; before the anchor (the clock was set back) it has to round down as well.
  const auto passed = elapsed / interval - (elapsed % interval < microseconds{0} ? 1 : 0);
  return anchor + interval * (passed + 1);
}

std::optional<timestamp> next_at(const config::at_trigger& trigger, std::optional<timestamp> last_fired) {
  if (last_fired && *last_fired >= trigger.time) return std::nullopt;
  return trigger.time;
}

std::vector<timestamp> firings_between(const config::cron_trigger& trigger, timestamp from, timestamp to,
                                       std::size_t limit) {
  std::vector<timestamp> times;
  auto next = next_firing(trigger.expression, trigger.timezone, from - microseconds{1});
  while (next && *next < to && times.size() <= limit) {
    times.push_back(*next);
    next = next_firing(trigger.expression, trigger.timezone, *next);
  }
  return times;
}

std::vector<timestamp> firings_between(const config::every_trigger& trigger, timestamp from, timestamp to,
                                       std::size_t limit) {
  std::vector<timestamp> times;
  for (auto next = from; next < to && times.size() <= limit; next += interval_of(trigger)) times.push_back(next);
  return times;
}

std::vector<timestamp> next_firings(const config::trigger& trigger, timestamp after, std::size_t count,
                                    std::optional<timestamp> anchor) {
  std::vector<timestamp> times;
  while (times.size() < count) {
    const auto next = known_firing(trigger, times.empty() ? after : times.back(), anchor.value_or(after));
    if (!next) break;
    times.push_back(*next);
  }
  return times;
}

}  // namespace penstock::scheduler
