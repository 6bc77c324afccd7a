// The scheduler's decisions: the cases of the contract, then random histories against slow and obvious
// models.
#include <algorithm>
#include <deque>
#include <numeric>
#include <random>

#include <catch2/catch.hpp>

#include "scheduler/cron.hpp"
#include "scheduler/policy.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace std::chrono_literals;

namespace {

const timestamp start = from_micros(1'800'000'000'000'000);

config::topic_trigger topic(std::int64_t max_events, nanoseconds max_wait, nanoseconds grace = 0s) {
  return {"t", max_events, max_wait, grace};
}

using topic_action = topic_decision::action;
using open_action = open_decision::action;

}  // namespace

// ---- topic trigger ----

TEST_CASE("topic trigger: single decisions", "[policy]") {
  const auto t = topic(500, 2s);
  CHECK(decide(t, topic_view{7, 7, {}, true}, start) == topic_decision{topic_action::wait});
  CHECK(decide(t, topic_view{0, 3, start, true}, start) ==
        topic_decision{topic_action::wait_until, 0, start + 2s});
  CHECK(decide(t, topic_view{0, 3, start, true}, start + 1999999us).what == topic_action::wait_until);
  CHECK(decide(t, topic_view{0, 3, start, true}, start + 2s) == topic_decision{topic_action::claim, 3});
  CHECK(decide(t, topic_view{0, 3, start, true}, start + 1h) == topic_decision{topic_action::claim, 3});
  CHECK(decide(t, topic_view{10, 510, start, true}, start) == topic_decision{topic_action::claim, 510});
  CHECK(decide(t, topic_view{10, 9999, start, true}, start) == topic_decision{topic_action::claim, 510});
  CHECK(decide(topic(500, 0s), topic_view{10, 12, start, true}, start) ==
        topic_decision{topic_action::claim, 12});
  CHECK(decide(topic(500, 0s), topic_view{10, 10, {}, true}, start).what == topic_action::wait);
}

TEST_CASE("topic trigger: what may not start waits, whatever there is", "[policy]") {
  CHECK(decide(topic(5, 0s), topic_view{0, 500, start - 1h, false}, start).what == topic_action::wait);
}

TEST_CASE("topic trigger: a clock that was set back does not hold events", "[policy]") {
  for (const auto ahead : std::vector<nanoseconds>{1us, 500ms, 1s, 2s, 1min, 240h}) {
    auto now = start;
    const auto oldest = start + std::chrono::duration_cast<std::chrono::microseconds>(ahead);
    auto d = decide(topic(500, 2s), topic_view{0, 3, oldest, true}, now);
    int rounds = 0;
    while (d.what == topic_action::wait_until) {
      CHECK(d.at <= now + 2s);
      now = d.at;
      REQUIRE(++rounds < 10);
      d = decide(topic(500, 2s), topic_view{0, 3, oldest, true}, now);
    }
    CHECK(d == topic_decision{topic_action::claim, 3});
    CHECK(now <= start + 3s);  // an arrival stamped up to a second ahead is waited for as such
  }
}

TEST_CASE("topic trigger: endless waits and tiny ones do not overflow", "[policy]") {
  const auto forever = nanoseconds::max();
  CHECK(decide(topic(500, forever), topic_view{0, 3, start, true}, start).what == topic_action::wait_until);
  CHECK(decide(topic(500, 1ns), topic_view{0, 3, start, true}, start).at == start + 1us);
  CHECK(decide(topic(500, 2s), topic_view{0, 3, {}, true}, start).what == topic_action::claim);
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
    timestamp now = arrivals.empty() ? start : arrivals.front();
    std::optional<timestamp> running_until;
    for (;;) {
      if (running_until && *running_until <= now) running_until.reset();
      topic_view view{cursor, arrived(now), {}, !running_until};
      if (view.last_offset > cursor) view.oldest = arrivals[static_cast<std::size_t>(cursor)];
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

  // The rule itself, asked in every single millisecond.
  std::vector<claim> by_ticks(timestamp end) const {
    std::vector<claim> found;
    std::int64_t cursor = 0;
    timestamp free = start;
    for (auto now = start; now <= end; now += 1ms) {
      for (;;) {
        const auto waiting = arrived(now) - cursor;
        const bool enough = waiting >= trigger.max_events;
        const bool old = waiting > 0 && now - arrivals[static_cast<std::size_t>(cursor)] >= trigger.max_wait;
        if (now < free || (!enough && !old)) break;
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
  simulation s{topic(500, 2s), std::vector<timestamp>(1050, start), 300ms};
  s.by_decisions();
  CHECK(sizes(s) == std::vector<std::int64_t>{500, 500, 50});
  CHECK(s.claims.back().at == start + 2s);
}

TEST_CASE("topic trigger: three events and max_wait 2s are one run, exactly at the first one's two seconds",
          "[policy]") {
  simulation s{topic(500, 2s), {start, start + 700ms, start + 1900ms}, 1s};
  s.by_decisions();
  CHECK(s.claims == std::vector<simulation::claim>{{start + 2s, 3}});
}

TEST_CASE("topic trigger: no event is no run", "[policy]") {
  simulation s{topic(500, 2s), {}, 1s};
  s.by_decisions();
  CHECK(s.claims.empty());
}

TEST_CASE("topic trigger: work longer than the interval runs back to back", "[policy]") {
  simulation s{topic(10, 0s), {}, 1s};
  for (int i = 0; i < 100; ++i) s.arrivals.push_back(start + 100ms * i);
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
    simulation s{topic(number(1, 30), 1ms * (number(0, 3) ? number(0, 400) : 0)), {}, 1ms * number(0, 300)};
    auto t = start;
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
  CHECK(decide(t, open_view{0, 3, 3, start}, start) == open_decision{open_action::wait_until, 0, start + 5s});
  CHECK(decide(t, open_view{0, 3, 4, start}, start + 4s) == open_decision{open_action::extend, 4});
  CHECK(decide(t, open_view{0, 4, 4, start + 4s}, start + 5s) ==
        open_decision{open_action::wait_until, 0, start + 9s});
  CHECK(decide(t, open_view{0, 4, 4, start + 4s}, start + 9s).what == open_action::close);
}

TEST_CASE("grace period: a run never grows beyond max_events", "[policy]") {
  const auto t = topic(100, 0s, 5s);
  CHECK(decide(t, open_view{50, 140, 500, start}, start) == open_decision{open_action::extend, 150});
  CHECK(decide(t, open_view{50, 150, 500, start}, start).what == open_action::close);
  CHECK(decide(topic(100, 0s), open_view{0, 3, 500, start}, start).what == open_action::close);
}

TEST_CASE("grace period: an event that came at its last moment still joins", "[policy]") {
  CHECK(decide(topic(100, 0s, 5s), open_view{0, 3, 4, start}, start + 1h) ==
        open_decision{open_action::extend, 4});
}

TEST_CASE("grace period: a clock that was set back does not hold the run open", "[policy]") {
  CHECK(decide(topic(100, 0s, 5s), open_view{0, 3, 3, start + 1h}, start).what == open_action::close);
  CHECK(decide(topic(100, 0s, 5s), open_view{0, 3, 3, start + 1ms}, start).at <= start + 5s);
}

// ---- overlap ----

TEST_CASE("overlap rules", "[policy]") {
  using config::overlap_rule;
  CHECK(admit(overlap_rule::queue, 10, {0, 0}) == admission::start);
  CHECK(admit(overlap_rule::queue, 10, {1, 0}) == admission::queue);
  CHECK(admit(overlap_rule::queue, 10, {0, 1}) == admission::queue);  // in order, behind the one that waits
  CHECK(admit(overlap_rule::queue, 10, {1, 9}) == admission::queue);
  CHECK(admit(overlap_rule::queue, 10, {1, 10}) == admission::refuse);
  CHECK(admit(overlap_rule::queue, 0, {0, 0}) == admission::start);
  CHECK(admit(overlap_rule::queue, 0, {1, 0}) == admission::refuse);
  CHECK(admit(overlap_rule::skip, 10, {0, 0}) == admission::start);
  CHECK(admit(overlap_rule::skip, 10, {1, 0}) == admission::skip);
  CHECK(admit(overlap_rule::skip, 10, {0, 1}) == admission::skip);
  CHECK(admit(overlap_rule::allow, 10, {0, 0}) == admission::start);
  CHECK(admit(overlap_rule::allow, 10, {1000, 3}) == admission::start);
  CHECK(admit(overlap_rule::allow, 10, {1000, 10}) == admission::refuse);
  CHECK(admit(overlap_rule::allow, 0, {5, 0}) == admission::start);
  CHECK(admit(overlap_rule::replace, 10, {0, 0}) == admission::start);
  CHECK(admit(overlap_rule::replace, 10, {1, 0}) == admission::replace);
  CHECK(admit(overlap_rule::replace, 10, {1, 99}) == admission::replace);
}

// ---- attempts ----

TEST_CASE("the pause before an attempt doubles up to its limit", "[policy]") {
  const config::retry_rule rule{10, 10s, 5min};
  const std::vector<nanoseconds> expected{10s, 20s, 40s, 80s, 160s, 300s, 300s};
  for (int next = 2; next < 9; ++next) {
    CHECK(backoff(rule, next, 1.0) == expected[static_cast<std::size_t>(next - 2)]);
    CHECK(backoff(rule, next, 0.5) == expected[static_cast<std::size_t>(next - 2)] / 2);
  }
  CHECK(backoff(rule, 1'000'000'000, 1.0) == 5min);
  CHECK(backoff(rule, 2, 7.0) == 10s);
  CHECK(backoff(rule, 2, -1.0) == 5s);
  CHECK(backoff({3, 0s, 0s}, 1'000'000'000, 1.0) == 0s);
  CHECK(backoff({3, 10min, 5min}, 2, 1.0) == 5min);
  CHECK(backoff({99, 1ns, nanoseconds::max()}, 99, 0.5) <= nanoseconds::max());
  CHECK(backoff({99, 1ns, nanoseconds::max()}, 99, 1.0) > 0ns);
}

TEST_CASE("after a failure: another attempt while there are some", "[policy]") {
  const config::retry_rule rule{3, 1s, 1s};
  CHECK(after_failure(rule, 1, {}) == run_state::retrying);
  CHECK(after_failure(rule, 2, {true, "slow"}) == run_state::retrying);
  CHECK(after_failure(rule, 3, {}) == run_state::failed);
  CHECK(after_failure(rule, 3, {true, "slow"}) == run_state::timed_out);
  CHECK(after_failure(rule, 4, {}) == run_state::failed);
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

// ---- task DAG ----

namespace {

config::job job_of(const std::vector<std::pair<std::string, std::vector<std::string>>>& tasks) {
  config::job j;
  for (const auto& [name, needs] : tasks) j.tasks.push_back({name, config::command{}, needs, {}});
  return j;
}

std::vector<task_record> records(const config::job& j, const std::vector<run_state>& states) {
  std::vector<task_record> all;
  for (std::size_t i = 0; i < j.tasks.size(); ++i)
    all.push_back({.name = j.tasks[i].name, .state = states[i]});
  return all;
}

using names = std::vector<std::string>;

}  // namespace

TEST_CASE("tasks start when all they need has succeeded", "[policy]") {
  // Written backwards, on purpose.
  const auto j = job_of({{"report", {"left", "right"}}, {"left", {"get"}}, {"right", {"get"}}, {"get", {}}});
  using enum run_state;
  const auto step = [&j](const std::vector<run_state>& states) { return next_tasks(j, records(j, states)); };
  CHECK(step({queued, queued, queued, queued}).start == names{"get"});
  CHECK(step({queued, queued, queued, running}).start.empty());
  CHECK(step({queued, queued, queued, succeeded}).start == names{"left", "right"});
  CHECK(step({queued, succeeded, running, succeeded}).start.empty());
  CHECK(step({queued, succeeded, succeeded, succeeded}).start == names{"report"});
  CHECK(step({succeeded, succeeded, succeeded, succeeded}).start.empty());
}

TEST_CASE("what needs a task that ended otherwise is skipped, all the way", "[policy]") {
  const auto j = job_of({{"d", {"c"}}, {"c", {"b"}}, {"b", {"a"}}, {"a", {}}, {"other", {}}});
  using enum run_state;
  for (const auto otherwise : {failed, cancelled, timed_out, skipped}) {
    const auto step = next_tasks(j, records(j, {queued, queued, queued, otherwise, queued}));
    CHECK(step.skip == names{"d", "c", "b"});
    CHECK(step.start == names{"other"});
  }
  CHECK(next_tasks(j, records(j, {queued, queued, queued, retrying, running})).skip.empty());
}

TEST_CASE("tasks: random DAGs in random order always end, each task once and after its needs", "[policy]") {
  std::mt19937 random(11);
  const auto number = [&random](int low, int high) {
    return std::uniform_int_distribution<>(low, high)(random);
  };
  for (int round = 0; round < 100; ++round) {
    const int count = round == 0 ? 1000 : number(1, 40);
    std::vector<std::pair<std::string, std::vector<std::string>>> tasks;
    for (int i = 0; i < count; ++i) {
      std::vector<std::string> needs;
      for (int k = i == 0 ? 0 : number(0, 3); k > 0; --k) {
        const auto need = "t" + std::to_string(number(std::max(0, i - 5), i - 1));
        if (std::find(needs.begin(), needs.end(), need) == needs.end()) needs.push_back(need);
      }
      tasks.emplace_back("t" + std::to_string(i), needs);
    }
    std::shuffle(tasks.begin(), tasks.end(), random);
    const auto j = job_of(tasks);
    auto all = records(j, std::vector<run_state>(tasks.size(), run_state::queued));
    const auto find = [&all](const std::string& name) {
      return std::find_if(all.begin(), all.end(), [&](const task_record& t) { return t.name == name; });
    };
    for (int steps = 0;; ++steps) {
      REQUIRE(steps <= count);
      const auto step = next_tasks(j, all);
      if (step.start.empty() && step.skip.empty()) break;
      for (const auto& name : step.skip) {
        CHECK(find(name)->state == run_state::queued);
        find(name)->state = run_state::skipped;
      }
      for (const auto& name : step.start) {
        CHECK(find(name)->state == run_state::queued);
        find(name)->state = number(0, 9) ? run_state::succeeded : run_state::failed;
      }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto& needs = j.tasks[i].needs;
      const bool all_good = std::all_of(
          needs.begin(), needs.end(), [&](const auto& n) { return find(n)->state == run_state::succeeded; });
      CHECK(all_good == (all[i].state == run_state::succeeded || all[i].state == run_state::failed));
      CHECK(!all_good == (all[i].state == run_state::skipped));
    }
  }
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
  CHECK(next_every(t, start, start) == start + 10min);
  CHECK(next_every(t, start, start + 1us) == start + 10min);
  CHECK(next_every(t, start, start + 10min - 1us) == start + 10min);
  CHECK(next_every(t, start, start + 10min) == start + 20min);
  CHECK(next_every(t, start, start + 1000h + 1s) == start + 1000h + 10min);
  CHECK(next_every({nanoseconds::max()}, start, start) > start);
  CHECK(next_every({1ns}, start, start + 5us) == start + 6us);
}

TEST_CASE(
    "every: always later, by no more than the interval, and on the grid; also when the clock was set back",
    "[policy]") {
  std::mt19937_64 random(5);
  for (int i = 0; i < 10'000; ++i) {
    const auto interval =
        std::chrono::microseconds(std::uniform_int_distribution<std::int64_t>(1, 1'000'000)(random));
    const auto after = start + std::chrono::microseconds(std::uniform_int_distribution<std::int64_t>(
                                   -5'000'000, 5'000'000)(random));
    const auto next = next_every({interval}, start, after);
    CHECK(next > after);
    CHECK(next <= after + interval);
    CHECK((next - start) % interval == 0us);
  }
}
