// The scheduler's decisions: the cases of the contract, then random histories against slow and obvious
// models.
#include <algorithm>
#include <deque>
#include <numeric>
#include <random>

#include <catch2/catch.hpp>

#include "scheduler/cron.hpp"
#include "scheduler/policy.hpp"
#include "tests/scheduler/noon.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using penstock::testing::noon;
using namespace std::chrono_literals;

namespace {

config::topic_trigger topic(std::int64_t max_events, nanoseconds max_wait, nanoseconds grace = 0s,
                            nanoseconds debounce = 0s) {
  return {"t", "", max_events, max_wait, grace, debounce};
}

// All of `events` count, and arrived at once.
topic_view all_count(const config::topic_trigger& t, std::int64_t cursor, std::int64_t last,
                     std::optional<timestamp> arrived) {
  const auto full = last - cursor >= t.max_events ? cursor + t.max_events : 0;
  return {.cursor = cursor, .last_offset = last, .matching = last - cursor, .full_at = full, .oldest = arrived,
          .newest = arrived};
}

using topic_action = topic_decision::action;
using open_action = open_decision::action;

}  // namespace

// ---- topic trigger ----

TEST_CASE("topic trigger: single decisions", "[policy]") {
  const auto t = topic(500, 2s);
  const auto after = [&t](std::int64_t cursor, std::int64_t last, nanoseconds age) {
    return decide(t, all_count(t, cursor, last, noon), noon + std::chrono::ceil<std::chrono::microseconds>(age));
  };
  CHECK(decide(t, all_count(t, 7, 7, {}), noon) == topic_decision{topic_action::wait});
  CHECK(after(0, 3, 0s) == topic_decision{topic_action::wait_until, 0, noon + 2s});
  CHECK(after(0, 3, 1999999us).what == topic_action::wait_until);
  CHECK(after(0, 3, 2s) == topic_decision{topic_action::claim, 3});
  CHECK(after(0, 3, 1h) == topic_decision{topic_action::claim, 3});
  CHECK(after(10, 510, 0s) == topic_decision{topic_action::claim, 510});
  CHECK(after(10, 9999, 0s) == topic_decision{topic_action::claim, 510});
  const auto at_once = topic(500, 0s);
  CHECK(decide(at_once, all_count(at_once, 10, 12, noon), noon) == topic_decision{topic_action::claim, 12});
  CHECK(decide(at_once, all_count(at_once, 10, 10, {}), noon).what == topic_action::wait);
}

TEST_CASE("topic trigger: what may not start waits, whatever there is", "[policy]") {
  const auto t = topic(5, 0s);
  auto view = all_count(t, 0, 500, noon - 1h);
  view.may_start = false;
  CHECK(decide(t, view, noon).what == topic_action::wait);
  view.closed = true;
  CHECK(decide(t, view, noon).what == topic_action::wait);
}

TEST_CASE("topic trigger: only events that count make a run; those between go with it", "[policy]") {
  const auto t = topic(3, 2s);
  // 100 events, of which two count.
  topic_view view{.cursor = 0, .last_offset = 100, .matching = 2, .oldest = noon, .newest = noon + 1s};
  CHECK(decide(t, view, noon + 1s) == topic_decision{topic_action::wait_until, 0, noon + 2s});
  CHECK(decide(t, view, noon + 2s) == topic_decision{topic_action::claim, 100});
  // A third counts, at offset 120, and a fourth behind it.
  view.last_offset = 150;
  view.matching = 4;
  view.full_at = 120;
  CHECK(decide(t, view, noon + 1s) == topic_decision{topic_action::claim, 120});
  // None does.
  CHECK(decide(t, {.cursor = 0, .last_offset = 100}, noon + 1h) == topic_decision{topic_action::wait});
}

TEST_CASE("topic trigger: a claim that cannot grow is made at once", "[policy]") {
  for (const auto& t : {topic(500, 2s), topic(500, 0s, 0s, 1h), topic(500, 2h, 0s, 1h)}) {
    auto view = all_count(t, 10, 13, noon);
    view.closed = true;
    CHECK(decide(t, view, noon) == topic_decision{topic_action::claim, 13});
    view.matching = 0;
    CHECK(decide(t, view, noon).what == topic_action::wait);
  }
}

TEST_CASE("topic trigger: debounce waits for silence", "[policy]") {
  const auto view = [](timestamp oldest, timestamp newest) {
    return topic_view{.cursor = 0, .last_offset = 9, .matching = 9, .oldest = oldest, .newest = newest};
  };
  const auto until = [](timestamp at) { return topic_decision{topic_action::wait_until, 0, at}; };
  SECTION("for ever, if need be") {
    const auto t = topic(500, 0s, 0s, 5s);
    CHECK(decide(t, view(noon, noon + 1h), noon + 1h) == until(noon + 1h + 5s));
    CHECK(decide(t, view(noon, noon + 1h), noon + 1h + 5s - 1us) == until(noon + 1h + 5s));
    CHECK(decide(t, view(noon, noon + 1h), noon + 1h + 5s) == topic_decision{topic_action::claim, 9});
  }
  SECTION("until max_wait") {
    const auto t = topic(500, 20s, 0s, 5s);
    CHECK(decide(t, view(noon, noon), noon) == until(noon + 5s));
    CHECK(decide(t, view(noon, noon + 16s), noon + 16s) == until(noon + 20s));
    CHECK(decide(t, view(noon, noon + 16s), noon + 20s) == topic_decision{topic_action::claim, 9});
    CHECK(decide(t, view(noon, noon), noon + 5s) == topic_decision{topic_action::claim, 9});
  }
  SECTION("not when it is full") {
    const auto t = topic(500, 0s, 0s, 5s);
    CHECK(decide(t, all_count(t, 0, 700, noon), noon) == topic_decision{topic_action::claim, 500});
  }
  SECTION("nor for a stamp that the clock was set back from") {
    const auto t = topic(500, 0s, 0s, 5s);
    CHECK(decide(t, view(noon + 1h, noon + 2h), noon) == topic_decision{topic_action::claim, 9});
    CHECK(decide(t, view(noon, noon + 500ms), noon) == until(noon + 5s));
  }
  SECTION("without stamps at once") {
    CHECK(decide(topic(500, 0s, 0s, 5s), {.last_offset = 9, .matching = 9}, noon).what == topic_action::claim);
  }
}

TEST_CASE("topic trigger: a clock that was set back does not hold events", "[policy]") {
  for (const auto ahead : std::vector<nanoseconds>{1us, 500ms, 1s, 2s, 1min, 240h}) {
    auto now = noon;
    const auto oldest = noon + std::chrono::duration_cast<std::chrono::microseconds>(ahead);
    auto d = decide(topic(500, 2s), all_count(topic(500, 2s), 0, 3, oldest), now);
    int rounds = 0;
    while (d.what == topic_action::wait_until) {
      CHECK(d.at <= now + 2s);
      now = d.at;
      REQUIRE(++rounds < 10);
      d = decide(topic(500, 2s), all_count(topic(500, 2s), 0, 3, oldest), now);
    }
    CHECK(d == topic_decision{topic_action::claim, 3});
    CHECK(now <= noon + 3s);  // an arrival stamped up to a second ahead is waited for as such
  }
}

TEST_CASE("topic trigger: endless waits and tiny ones do not overflow", "[policy]") {
  const auto forever = nanoseconds::max();
  const auto three = all_count(topic(500, 2s), 0, 3, noon);
  CHECK(decide(topic(500, forever), three, noon).what == topic_action::wait_until);
  CHECK(decide(topic(500, forever, 0s, forever), three, noon).what == topic_action::wait_until);
  CHECK(decide(topic(500, 1ns), three, noon).at == noon + 1us);
  CHECK(decide(topic(500, 2s), all_count(topic(500, 2s), 0, 3, {}), noon).what == topic_action::claim);
}

namespace {

// A topic, its trigger and one run at a time, driven by decisions only: it looks again when an event arrives,
// when a run ends and when a decision asked for it, and at no other time.
struct simulation {
  config::topic_trigger trigger;
  std::vector<timestamp> arrivals;  // ascending; event i has offset i + 1
  nanoseconds run_length{};

  struct claim {
    timestamp at;
    std::int64_t events;
    bool operator==(const claim&) const = default;
  };
  std::vector<claim> claims{};

  std::int64_t arrived(timestamp now) const {
    return std::upper_bound(arrivals.begin(), arrivals.end(), now) - arrivals.begin();
  }

  void by_decisions() {
    std::int64_t cursor = 0;
    timestamp now = arrivals.empty() ? noon : arrivals.front();
    std::optional<timestamp> running_until;
    for (;;) {
      if (running_until && *running_until <= now) running_until.reset();
      topic_view view = all_count(trigger, cursor, arrived(now), {});
      view.may_start = !running_until;
      if (view.matching > 0) {
        view.oldest = arrivals[static_cast<std::size_t>(cursor)];
        view.newest = arrivals[static_cast<std::size_t>(view.last_offset - 1)];
      }
      const auto d = decide(trigger, view, now);
      if (d.what == topic_action::claim) {
        claims.push_back({now, d.until - cursor});
        cursor = d.until;
        if (run_length > 0ns) running_until = now + std::chrono::ceil<std::chrono::microseconds>(run_length);
        continue;
      }
      std::optional<timestamp> next;
      const auto sooner = [&next](timestamp t) { next = next ? std::min(*next, t) : t; };
      if (d.what == topic_action::wait_until) sooner(d.at);
      if (running_until) sooner(*running_until);
      if (view.last_offset < std::ssize(arrivals))
        sooner(arrivals[static_cast<std::size_t>(view.last_offset)]);
      if (!next) return;
      REQUIRE(*next > now);
      now = *next;
    }
  }

  bool waited(std::int64_t cursor, timestamp now) const {
    const bool old = now - arrivals[static_cast<std::size_t>(cursor)] >= trigger.max_wait;
    if (trigger.debounce == 0s) return old;
    const bool silent = now - arrivals[static_cast<std::size_t>(arrived(now) - 1)] >= trigger.debounce;
    return silent || (trigger.max_wait > 0s && old);
  }

  // The rule itself, asked in every single millisecond.
  std::vector<claim> by_ticks(timestamp end) const {
    std::vector<claim> found;
    std::int64_t cursor = 0;
    timestamp free = noon;
    for (auto now = noon; now <= end; now += 1ms) {
      for (;;) {
        const auto waiting = arrived(now) - cursor;
        const bool enough = waiting >= trigger.max_events;
        if (now < free || waiting == 0 || (!enough && !waited(cursor, now))) break;
        const auto events = std::min(waiting, trigger.max_events);
        found.push_back({now, events});
        cursor += events;
        free = now + std::chrono::duration_cast<std::chrono::microseconds>(run_length);
      }
    }
    return found;
  }
};

std::vector<std::int64_t> sizes(const simulation& s) {
  std::vector<std::int64_t> all;
  for (const auto& c : s.claims) all.push_back(c.events);
  return all;
}

}  // namespace

TEST_CASE("topic trigger: 1,050 events at 500 are runs of 500, 500, 50", "[policy]") {
  simulation s{topic(500, 2s), std::vector<timestamp>(1050, noon), 300ms};
  s.by_decisions();
  CHECK(sizes(s) == std::vector<std::int64_t>{500, 500, 50});
  CHECK(s.claims.back().at == noon + 2s);
}

TEST_CASE("topic trigger: three events and max_wait 2s are one run, exactly at the first one's two seconds",
          "[policy]") {
  simulation s{topic(500, 2s), {noon, noon + 700ms, noon + 1900ms}, 1s};
  s.by_decisions();
  CHECK(s.claims == std::vector<simulation::claim>{{noon + 2s, 3}});
}

TEST_CASE("topic trigger: no event is no run", "[policy]") {
  simulation s{topic(500, 2s), {}, 1s};
  s.by_decisions();
  CHECK(s.claims.empty());
}

TEST_CASE("topic trigger: work longer than the interval runs back to back", "[policy]") {
  simulation s{topic(10, 0s), {}, 1s};
  for (int i = 0; i < 100; ++i) s.arrivals.push_back(noon + 100ms * i);
  s.by_decisions();
  for (std::size_t i = 1; i < s.claims.size(); ++i) CHECK(s.claims[i].at - s.claims[i - 1].at == 1s);
  const auto all = sizes(s);
  CHECK(std::accumulate(all.begin(), all.end(), std::int64_t{0}) == 100);
}

TEST_CASE("topic trigger: random histories agree with asking every millisecond", "[policy]") {
  std::mt19937 random(7);
  const auto number = [&random](int low, int high) {
    return std::uniform_int_distribution<>(low, high)(random);
  };
  for (int round = 0; round < 200; ++round) {
    const auto debounce = 1ms * (number(0, 2) ? 0 : number(1, 200));
    simulation s{topic(number(1, 30), 1ms * (number(0, 3) ? number(0, 400) : 0), 0s, debounce), {},
                 1ms * number(0, 300)};
    auto t = noon;
    for (int i = number(0, 150); i > 0; --i) {
      s.arrivals.push_back(t);
      t += 1ms * (number(0, 4) ? 0 : number(0, 120));
    }
    s.by_decisions();
    CHECK(s.claims == s.by_ticks(t + 50s));
  }
}

// ---- open runs ----

TEST_CASE("grace period: an event inside it joins, silence closes", "[policy]") {
  const auto t = topic(100, 0s, 5s);
  CHECK(decide(t, open_view{0, 3, 3, noon}, noon) == open_decision{open_action::wait_until, 0, noon + 5s});
  CHECK(decide(t, open_view{0, 3, 4, noon}, noon + 4s) == open_decision{open_action::extend, 4});
  CHECK(decide(t, open_view{0, 4, 4, noon + 4s}, noon + 5s) ==
        open_decision{open_action::wait_until, 0, noon + 9s});
  CHECK(decide(t, open_view{0, 4, 4, noon + 4s}, noon + 9s).what == open_action::close);
}

TEST_CASE("grace period: a run never grows beyond max_events", "[policy]") {
  const auto t = topic(100, 0s, 5s);
  CHECK(decide(t, open_view{50, 140, 500, noon}, noon) == open_decision{open_action::extend, 150});
  CHECK(decide(t, open_view{50, 150, 500, noon}, noon).what == open_action::close);
  CHECK(decide(topic(100, 0s), open_view{0, 3, 500, noon}, noon).what == open_action::close);
}

TEST_CASE("grace period: an event that came at its last moment still joins", "[policy]") {
  CHECK(decide(topic(100, 0s, 5s), open_view{0, 3, 4, noon}, noon + 1h) ==
        open_decision{open_action::extend, 4});
}

TEST_CASE("grace period: a clock that was set back does not hold the run open", "[policy]") {
  CHECK(decide(topic(100, 0s, 5s), open_view{0, 3, 3, noon + 1h}, noon).what == open_action::close);
  CHECK(decide(topic(100, 0s, 5s), open_view{0, 3, 3, noon + 1ms}, noon).at <= noon + 5s);
}

// ---- overlap ----

TEST_CASE("overlap rules", "[policy]") {
  using config::overlap_rule;
  using enum admission;
  constexpr std::nullopt_t unset = std::nullopt;
  struct row {
    overlap_rule rule;
    std::optional<std::int64_t> max_active;
    std::int64_t queue_limit;
    job_load load;
    admission expected;
  };
  const std::vector<row> table{
      {overlap_rule::queue, unset, 10, {0, 0}, start_or_wait},
      {overlap_rule::queue, unset, 10, {1, 0}, start_or_wait},
      {overlap_rule::queue, unset, 10, {1, 9}, start_or_wait},
      {overlap_rule::queue, unset, 10, {1, 10}, refuse},
      {overlap_rule::queue, unset, 10, {0, 10}, refuse},
      {overlap_rule::queue, 4, 10, {3, 10}, refuse},  // it would not start before those
      // A queue of none: only what need not wait for others of its job.
      {overlap_rule::queue, unset, 0, {0, 0}, start_or_wait},
      {overlap_rule::queue, unset, 0, {1, 0}, refuse},
      {overlap_rule::queue, unset, 0, {0, 1}, refuse},
      {overlap_rule::queue, 2, 0, {1, 0}, start_or_wait},
      {overlap_rule::queue, 2, 0, {2, 0}, refuse},
      {overlap_rule::skip, unset, 10, {0, 0}, start_or_wait},
      {overlap_rule::skip, unset, 10, {1, 0}, skip},
      {overlap_rule::skip, unset, 10, {0, 1}, skip},
      {overlap_rule::skip, unset, 0, {0, 0}, start_or_wait},
      {overlap_rule::skip, 3, 10, {1, 1}, start_or_wait},
      {overlap_rule::skip, 3, 10, {2, 1}, skip},
      {overlap_rule::skip, 3, 1, {1, 1}, refuse},
      {overlap_rule::allow, unset, 10, {1000, 3}, start_or_wait},
      {overlap_rule::allow, unset, 10, {1000, 10}, refuse},
      {overlap_rule::allow, unset, 0, {5, 0}, start_or_wait},
      {overlap_rule::allow, 2, 10, {2, 3}, start_or_wait},
      {overlap_rule::allow, 2, 0, {2, 0}, refuse},
      {overlap_rule::replace, unset, 10, {0, 0}, start_or_wait},
      {overlap_rule::replace, unset, 10, {1, 0}, replace},
      {overlap_rule::replace, unset, 10, {1, 99}, replace},
      {overlap_rule::replace, 2, 10, {1, 0}, start_or_wait},
      {overlap_rule::replace, 2, 10, {1, 1}, replace},
      {overlap_rule::replace, 9, 1, {1, 1}, refuse},
  };
  for (std::size_t i = 0; i < table.size(); ++i) {
    INFO("row " << i);
    const auto& r = table[i];
    CHECK(admit(r.rule, r.max_active, r.queue_limit, r.load) == r.expected);
  }
}

// ---- attempts ----

namespace {

config::retry_rule retry(int attempts, nanoseconds first, nanoseconds limit) {
  config::retry_rule r;
  r.attempts = attempts;
  r.backoff_first = first;
  r.backoff_limit = limit;
  return r;
}

attempt_result exited(int code) {
  attempt_result r;
  r.exit_code = code;
  return r;
}

}  // namespace

TEST_CASE("the pause before an attempt doubles up to its limit", "[policy]") {
  const auto rule = retry(10, 10s, 5min);
  const std::vector<nanoseconds> expected{10s, 20s, 40s, 80s, 160s, 300s, 300s};
  for (int next = 2; next < 9; ++next) {
    const auto stated = expected[static_cast<std::size_t>(next - 2)];
    CHECK(backoff(rule, next, 0.0) == stated);
    CHECK(backoff(rule, next, 1.0) == std::min<nanoseconds>(5min, stated * 5 / 4));
    for (const double jitter : {0.001, 0.3, 0.5, 0.999}) {
      CHECK(backoff(rule, next, jitter) >= stated);
      CHECK(backoff(rule, next, jitter) <= std::min<nanoseconds>(5min, stated * 5 / 4));
    }
  }
  CHECK(backoff(rule, 2, 0.4) == 11s);
  CHECK(backoff(rule, 1'000'000'000, 0.0) == 5min);
  CHECK(backoff(rule, 2, 7.0) == 12500ms);
  CHECK(backoff(rule, 2, -1.0) == 10s);
  CHECK(backoff(retry(3, 0s, 0s), 1'000'000'000, 1.0) == 0s);
  CHECK(backoff(retry(3, 10min, 5min), 2, 1.0) == 5min);
  CHECK(backoff(retry(99, 1ns, nanoseconds::max()), 99, 0.5) == nanoseconds::max());
  CHECK(backoff(retry(99, nanoseconds::max(), nanoseconds::max()), 2, 1.0) == nanoseconds::max());
}

TEST_CASE("after a failure: another attempt while there are some", "[policy]") {
  const auto rule = retry(3, 1s, 1s);
  const attempt_result late{.timed_out = true, .reason = "slow"};
  CHECK(after_failure(rule, 1, {}) == failure_decision{run_state::retrying, ""});
  CHECK(after_failure(rule, 2, late) == failure_decision{run_state::retrying, ""});
  CHECK(after_failure(rule, 3, {}) == failure_decision{run_state::failed, ""});
  CHECK(after_failure(rule, 3, late) == failure_decision{run_state::timed_out, ""});
  CHECK(after_failure(rule, 4, {}) == failure_decision{run_state::failed, ""});
}

TEST_CASE("after a failure: some are not tried again", "[policy]") {
  auto rule = retry(3, 1s, 1s);
  CHECK(after_failure(rule, 1, {.permanent = true}) == failure_decision{run_state::failed, "it would fail again"});
  CHECK(after_failure(rule, 3, {.permanent = true}).not_retried.empty());  // no attempt was left
  SECTION("by exit codes that are") {
    rule.exit_codes = {75, 76};
    CHECK(after_failure(rule, 1, exited(76)).next == run_state::retrying);
    CHECK(after_failure(rule, 1, exited(2)) == failure_decision{run_state::failed, "exit code 2 is not retried"});
    CHECK(after_failure(rule, 1, {}) ==
          failure_decision{run_state::failed, "only exit codes 75, 76 are retried"});
    rule.exit_codes = {75};
    CHECK(after_failure(rule, 1, {.timed_out = true}) ==
          failure_decision{run_state::timed_out, "only exit code 75 is retried"});
  }
  SECTION("by exit codes that are not") {
    rule.not_exit_codes = {2};
    CHECK(after_failure(rule, 1, exited(1)).next == run_state::retrying);
    CHECK(after_failure(rule, 1, exited(2)) == failure_decision{run_state::failed, "exit code 2 is not retried"});
    CHECK(after_failure(rule, 1, {}).next == run_state::retrying);
    rule.exit_codes = {2, 3};
    CHECK(after_failure(rule, 1, exited(2)).next == run_state::failed);
    CHECK(after_failure(rule, 1, exited(3)).next == run_state::retrying);
  }
}

TEST_CASE("after a failure: the job's budget of retries", "[policy]") {
  auto rule = retry(100, 1s, 1s);
  retry_budget_state state;
  CHECK(after_failure(rule, 1, {}, state, noon).next == run_state::retrying);  // there is none
  rule.budget = config::retry_budget{2, 1h};
  const failure_decision spent{run_state::failed, "the retry budget of 2 in 1h is spent"};
  CHECK(after_failure(rule, 1, {}, state, noon).next == run_state::retrying);
  CHECK(after_failure(rule, 100, {}, state, noon).next == run_state::failed);            // takes nothing from it
  CHECK(after_failure(rule, 1, {.permanent = true}, state, noon).next == run_state::failed);  // neither does this
  CHECK(after_failure(rule, 1, {}, state, noon + 30min).next == run_state::retrying);
  CHECK(after_failure(rule, 1, {}, state, noon + 30min) == spent);
  CHECK(after_failure(rule, 1, {.timed_out = true}, state, noon + 59min).next == run_state::timed_out);
  CHECK(after_failure(rule, 1, {}, state, noon + 1h - 1us) == spent);
  CHECK(after_failure(rule, 1, {}, state, noon + 1h).next == run_state::retrying);
  CHECK(after_failure(rule, 1, {}, state, noon + 1h) == spent);
  // The clock is set back: what was counted then says nothing about now.
  CHECK(after_failure(rule, 1, {}, state, noon - 24h).next == run_state::retrying);
  rule.budget->retries = 0;
  CHECK(after_failure(rule, 1, {}, state, noon + 100h).not_retried == "the retry budget of 0 in 1h is spent");
}

TEST_CASE("a retry budget is never exceeded in any stretch of its length, and spent where it may be", "[policy]") {
  std::mt19937 random(9);
  const auto number = [&random](int low, int high) { return std::uniform_int_distribution<>(low, high)(random); };
  for (int round = 0; round < 50; ++round) {
    const config::retry_budget budget{number(1, 8), 1s * number(1, 60)};
    retry_budget_state state;
    std::vector<timestamp> made;
    auto now = noon;
    for (int i = 0; i < 400; ++i) {
      now += 100ms * number(0, 100);
      const auto recent = std::count_if(made.begin(), made.end(), [&](timestamp t) { return now - t < budget.within; });
      const bool may = recent < budget.retries;
      REQUIRE(state.take(budget, now) == may);
      if (may) made.push_back(now);
    }
  }
}

TEST_CASE("an interrupted run is queued again, but not for ever", "[policy]") {
  CHECK(after_interruption(1) == run_state::queued);
  CHECK(after_interruption(interruption_limit) == run_state::queued);
  CHECK(after_interruption(interruption_limit + 1) == run_state::failed);
}

TEST_CASE("flows restart after 1 s doubling to 30 s, and afresh after a healthy time", "[policy]") {
  restart_state state;
  for (const auto expected : std::vector<nanoseconds>{1s, 2s, 4s, 8s, 16s, 30s, 30s, 30s}) {
    CHECK(restart_pause(state, 9999ms) == expected);
  }
  CHECK(restart_pause(state, 10s) == 1s);
  CHECK(restart_pause(state, 0s) == 2s);
}

// ---- time limits ----

TEST_CASE("deadlines and lateness count from when a run was due, else from when it was made", "[policy]") {
  config::job j;
  CHECK_FALSE(deadline_of(j, noon, noon));
  j.deadline = 10min;
  CHECK(deadline_of(j, noon, std::nullopt) == noon + 10min);
  CHECK(deadline_of(j, noon, noon - 1min) == noon + 9min);
  j.deadline = 1ns;
  CHECK(deadline_of(j, noon, std::nullopt) == noon + 1us);
  j.deadline = nanoseconds::max();
  CHECK(*deadline_of(j, noon, std::nullopt) > noon);

  config::alert a;
  a.late_after = 1h;
  CHECK(late_at(a, noon, std::nullopt) == noon + 1h);
  CHECK(late_at(a, noon, noon - 2h) == noon - 1h);
}

// ---- schedules ----

TEST_CASE("missed firings: skip, one, all", "[policy]") {
  config::cron_trigger t{config::parse_cron("0 * * * *").value(), "UTC", config::missed_policy::skip};
  const auto last = parse_time("2026-01-01T00:00:00Z").value();
  const auto now = last + 3h + 10min;
  CHECK(missed_firings(t, last, now, 100).empty());
  t.missed = config::missed_policy::one;
  CHECK(missed_firings(t, last, now, 100) == std::vector<timestamp>{last + 3h});
  CHECK(missed_firings(t, last, last + 1h, 100) == std::vector<timestamp>{last + 1h});  // (last, now]
  CHECK(missed_firings(t, last, last + 59min, 100).empty());
  CHECK(missed_firings(t, last, last - 24h, 100).empty());
  CHECK(missed_firings(t, last, now, 0).empty());
  t.missed = config::missed_policy::all;
  CHECK(missed_firings(t, last, now, 100) == std::vector<timestamp>{last + 1h, last + 2h, last + 3h});
  CHECK(missed_firings(t, last, now, 2) == std::vector<timestamp>{last + 1h, last + 2h});
  CHECK(missed_firings(t, last, last - 24h, 100).empty());
}

TEST_CASE("missed firings: one is the newest of all, and is found without counting ten years of seconds",
          "[policy]") {
  std::mt19937 random(3);
  const auto last = parse_time("2026-03-20T00:00:00Z").value();
  for (const auto* text : {"* * * * *", "*/7 2,3 * * *", "0 0 1 * *", "30 2 * * sun", "5 4 3 2 *"}) {
    config::cron_trigger t{config::parse_cron(text).value(), "Europe/Madrid", config::missed_policy::all};
    for (int i = 0; i < 20; ++i) {
      const auto now = last + 1s * std::uniform_int_distribution<>(0, 40 * 86'400)(random);
      t.missed = config::missed_policy::all;
      const auto all = missed_firings(t, last, now, 1'000'000);
      t.missed = config::missed_policy::one;
      const auto one = missed_firings(t, last, now, 1'000'000);
      REQUIRE(one.size() == std::min<std::size_t>(all.size(), 1));
      if (!all.empty()) CHECK(one.front() == all.back());
    }
  }
  const config::cron_trigger dense{config::parse_cron("* * 3 * * *").value(), "UTC",
                                   config::missed_policy::one};
  const auto now = parse_time("2036-03-20T12:00:00Z").value();
  CHECK(missed_firings(dense, last, now, 10) ==
        std::vector<timestamp>{parse_time("2036-03-20T03:59:59Z").value()});
}

TEST_CASE("every: multiples of the interval after the anchor", "[policy]") {
  const config::every_trigger t{10min};
  CHECK(next_every(t, noon, noon) == noon + 10min);
  CHECK(next_every(t, noon, noon + 1us) == noon + 10min);
  CHECK(next_every(t, noon, noon + 10min - 1us) == noon + 10min);
  CHECK(next_every(t, noon, noon + 10min) == noon + 20min);
  CHECK(next_every(t, noon, noon + 1000h + 1s) == noon + 1000h + 10min);
  CHECK(next_every({nanoseconds::max()}, noon, noon) > noon);
  CHECK(next_every({1ns}, noon, noon + 5us) == noon + 6us);
}

TEST_CASE(
    "every: always later, by no more than the interval, and on the grid; also when the clock was set back",
    "[policy]") {
  std::mt19937_64 random(5);
  for (int i = 0; i < 10'000; ++i) {
    const auto interval =
        std::chrono::microseconds(std::uniform_int_distribution<std::int64_t>(1, 1'000'000)(random));
    const auto after = noon + std::chrono::microseconds(std::uniform_int_distribution<std::int64_t>(
                                   -5'000'000, 5'000'000)(random));
    const auto next = next_every({interval}, noon, after);
    CHECK(next > after);
    CHECK(next <= after + interval);
    CHECK((next - noon) % interval == 0us);
  }
}

TEST_CASE("at: once, also when its time has passed, and again when the definition has a later one", "[policy]") {
  const config::at_trigger t{noon};
  CHECK(next_at(t, std::nullopt) == noon);
  CHECK_FALSE(next_at(t, noon));
  CHECK_FALSE(next_at(t, noon + 1h));
  CHECK(next_at(t, noon - 1h) == noon);
}

TEST_CASE("backfill: the times of a range, and one more than allowed at most", "[policy]") {
  using times = std::vector<timestamp>;
  const auto day = parse_time("2026-01-01T00:00:00Z").value();
  const config::cron_trigger hourly{config::parse_cron("0 * * * *").value(), "UTC", config::missed_policy::skip};
  CHECK(firings_between(hourly, day, day + 3h, 100) == times{day, day + 1h, day + 2h});
  CHECK(firings_between(hourly, day + 1us, day + 2h + 1us, 100) == times{day + 1h, day + 2h});
  CHECK(firings_between(hourly, day, day, 100).empty());
  CHECK(firings_between(hourly, day + 3h, day, 100).empty());
  CHECK(firings_between(hourly, day + 1min, day + 1h, 100).empty());
  CHECK(firings_between(hourly, day, day + 3h, 3).size() == 3);
  CHECK(firings_between(hourly, day, day + 4h, 3).size() == 4);
  CHECK(firings_between(hourly, day, day + 24h * 3650, 3).size() == 4);
  CHECK(firings_between(hourly, day, day + 24h, 0).size() == 1);

  // A day with 23 hours, and one with 25: each hour that is shown counts once.
  const config::cron_trigger madrid{config::parse_cron("0 * * * *").value(), "Europe/Madrid", {}};
  const auto spring = parse_time("2026-03-29T00:00:00+01:00").value();
  CHECK(firings_between(madrid, spring, spring + 23h, 100).size() == 23);
  const auto autumn = parse_time("2026-10-25T00:00:00+02:00").value();
  CHECK(firings_between(madrid, autumn, autumn + 25h, 100).size() == 24);

  const config::every_trigger quarter{15min};
  CHECK(firings_between(quarter, day + 1s, day + 30min, 100) == times{day + 1s, day + 1s + 15min});
  CHECK(firings_between(quarter, day, day + 30min, 100) == times{day, day + 15min});
  CHECK(firings_between(quarter, day, day + 30min + 1us, 100).size() == 3);
  CHECK(firings_between(quarter, day, day, 100).empty());
  CHECK(firings_between(quarter, day, day + 30min, 1).size() == 2);
  CHECK(firings_between({1ns}, day, day + 24h, 10).size() == 11);
  CHECK(firings_between({nanoseconds::max()}, day, day + 24h, 10) == times{day});
}

TEST_CASE("plans: the next times of a trigger that are known beforehand", "[policy]") {
  using times = std::vector<timestamp>;
  const auto day = parse_time("2026-01-01T00:00:00Z").value();
  const config::cron_trigger six{config::parse_cron("0 6 * * *").value(), "UTC", config::missed_policy::skip};
  CHECK(next_firings(six, day, 2) == times{day + 6h, day + 30h});
  CHECK(next_firings(six, day + 6h, 1) == times{day + 30h});
  CHECK(next_firings(six, day, 0).empty());
  const config::every_trigger ten{10min};
  CHECK(next_firings(ten, day, 3) == times{day + 10min, day + 20min, day + 30min});
  CHECK(next_firings(ten, day, 2, day - 1min) == times{day + 9min, day + 19min});
  CHECK(next_firings(config::at_trigger{day}, day - 1us, 5) == times{day});
  CHECK(next_firings(config::at_trigger{day}, day, 5).empty());
  CHECK(next_firings(config::after_trigger{}, day, 5).empty());
  CHECK(next_firings(config::webhook_trigger{}, day, 5).empty());
  CHECK(next_firings(topic(1, 0s), day, 5).empty());
}
