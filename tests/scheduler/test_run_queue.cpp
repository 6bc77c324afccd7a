// Which waiting run starts next: the rules one by one, then random histories against a model that keeps a plain list
// and looks at all of it each time, then what must always hold, then what it costs.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "scheduler/run_queue.hpp"
#include "tests/scheduler/noon.hpp"
#include "tests/scheduler/run_queue_model.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using penstock::testing::noon;
using namespace std::chrono_literals;

namespace {

constexpr nanoseconds never = nanoseconds::max();

queue_entry entry(const std::string& id, const std::string& pipeline = "p", const std::string& job = "j",
                  int priority = 5, timestamp since = noon, std::map<std::string, std::int64_t> pools = {},
                  const std::string& key = "") {
  return {id, pipeline, job, key, priority, since, std::move(pools)};
}

std::string all_next(run_queue& q, timestamp now = noon) {
  std::string ids;
  while (const auto id = q.next(now)) ids += (ids.empty() ? "" : " ") + *id;
  return ids;
}

// Each ends as soon as it has started.
std::string one_by_one(run_queue& q, timestamp now = noon) {
  std::string ids;
  while (const auto id = q.next(now)) {
    ids += (ids.empty() ? "" : " ") + *id;
    q.remove(*id);
  }
  return ids;
}

}  // namespace

// ---- the rules ----

TEST_CASE("run queue: nothing waits, nothing starts; unknown ids are ignored", "[run_queue]") {
  run_queue q(4, 1h);
  CHECK_FALSE(q.next(noon));
  q.remove("nobody");
  CHECK(q.why_waiting("nobody").empty());
  CHECK(q.active() == 0);
  CHECK(q.waiting() == 0);
  CHECK(q.free_slots("none") == 0);
}

TEST_CASE("run queue: first come, first served, in no more than the daemon's slots", "[run_queue]") {
  run_queue q(2, 1h);
  for (const auto* id : {"a", "b", "c", "d"}) q.wait(entry(id));
  CHECK(q.waiting() == 4);
  CHECK(all_next(q) == "a b");
  CHECK(q.active() == 2);
  CHECK(q.waiting() == 2);
  CHECK(q.why_waiting("a").empty());
  CHECK(q.why_waiting("c") == "all 2 run slots of the daemon are taken");
  q.remove("b");
  CHECK(q.why_waiting("c") == "runs that go before it are waiting");  // it could go; it was not asked for
  CHECK(all_next(q) == "c");
  q.remove("d");
  CHECK(q.waiting() == 0);
  q.remove("a");
  q.remove("c");
  CHECK(q.active() == 0);
  CHECK(all_next(q).empty());
}

TEST_CASE("run queue: priority goes first, within one whoever has waited longest", "[run_queue]") {
  run_queue q(1, never);
  q.wait(entry("low", "p", "j", 0));
  q.wait(entry("late", "p", "j", 9, noon + 2s));
  q.wait(entry("early", "p", "k", 9, noon + 1s));
  q.wait(entry("mid", "p", "k", 5));
  CHECK(one_by_one(q, noon + 10s) == "early late mid low");
}

TEST_CASE("run queue: among equals the pipeline that was served longest ago", "[run_queue]") {
  run_queue q(1, never);
  for (int i = 0; i < 3; ++i) {
    for (const auto* p : {"a", "b", "c"}) {
      // All of a have waited longest, then all of b.
      q.wait(entry(p + std::to_string(i), p, "j", 5, noon + 1s * (p[0] * 10 + i)));
    }
  }
  CHECK(one_by_one(q, noon + 1h) == "a0 b0 c0 a1 b1 c1 a2 b2 c2");

  SECTION("also when it comes back") {
    q.wait(entry("c3", "c"));
    q.wait(entry("a3", "a"));
    q.wait(entry("d0", "d"));
    CHECK(one_by_one(q, noon + 1h) == "d0 a3 c3");
  }
  SECTION("one that was forgotten counts as never served") {
    q.forget_pipeline("c");
    q.wait(entry("a3", "a"));
    q.wait(entry("c3", "c"));
    CHECK(one_by_one(q, noon + 1h) == "c3 a3");
  }
  SECTION("priority goes before turns") {
    q.wait(entry("a3", "a", "j", 5));
    q.wait(entry("c3", "c", "j", 6));
    CHECK(one_by_one(q, noon + 1h) == "c3 a3");
  }
}

TEST_CASE("run queue: whoever has waited for the ageing time goes before all priorities", "[run_queue]") {
  run_queue q(1, 60s);
  q.wait(entry("old", "p", "j", 0, noon));
  q.wait(entry("older", "p", "k", 1, noon - 1s));
  q.wait(entry("high", "p", "l", 9, noon + 30s));
  CHECK(q.next(noon + 60s - 1us) == "older");
  q.remove("older");
  CHECK(q.next(noon + 60s - 1us) == "high");
  q.remove("high");
  q.wait(entry("high", "p", "l", 9, noon + 30s));
  CHECK(q.next(noon + 60s) == "old");
  q.remove("old");
  CHECK(q.next(noon + 60s) == "high");
}

TEST_CASE("run queue: ageing of nothing is first come, first served; time does not run backwards", "[run_queue]") {
  run_queue at_once(1, 0s);
  at_once.wait(entry("low", "p", "j", 0, noon));
  at_once.wait(entry("high", "p", "k", 9, noon + 1s));
  CHECK(one_by_one(at_once, noon + 1s) == "low high");

  run_queue q(1, 60s);
  q.wait(entry("low", "p", "j", 0, noon));
  q.wait(entry("high", "p", "k", 9, noon + 59s));
  q.hold_pipeline("p", true);
  CHECK(all_next(q, noon + 60s).empty());
  q.hold_pipeline("p", false);
  CHECK(one_by_one(q, noon) == "low high");
}

TEST_CASE("run queue: a job's runs, its runs of one key, a pipeline's runs", "[run_queue]") {
  run_queue q(100, never);
  SECTION("one run of a job at a time; others do not wait for it") {
    q.limit_job("p", "j", std::nullopt, 1);
    for (const auto* id : {"a", "b"}) q.wait(entry(id));
    q.wait(entry("c", "p", "k"));
    CHECK(all_next(q) == "a c");
    CHECK(q.why_waiting("b") == "another run of this job is active");
    q.remove("c");
    CHECK(all_next(q).empty());
    q.remove("a");
    CHECK(all_next(q) == "b");
  }
  SECTION("by key") {
    q.limit_job("p", "j", std::nullopt, 1);
    for (const auto* id : {"a1", "a2", "b1", "b2"}) q.wait(entry(id, "p", "j", 5, noon, {}, {id[0]}));
    CHECK(all_next(q) == "a1 b1");
    CHECK(q.why_waiting("b2") == "another run of this job and overlap key is active");
    q.remove("b1");
    CHECK(all_next(q) == "b2");
  }
  SECTION("by key and by job") {
    q.limit_job("p", "j", 3, 2);
    for (const auto* id : {"a1", "a2", "a3", "b1", "b2"}) q.wait(entry(id, "p", "j", 5, noon, {}, {id[0]}));
    CHECK(all_next(q) == "a1 a2 b1");
    CHECK(q.why_waiting("a3") == "2 runs of this job and overlap key are active, its max_active");
    CHECK(q.why_waiting("b2") == "3 runs of this job are active, its max_active");
    q.limit_job("p", "j", 2, 2);
    CHECK(q.why_waiting("b2") == "3 runs of this job are active, its max_active is 2");
    q.limit_job("p", "j", 1, std::nullopt);
    q.remove("a1");
    q.remove("b1");
    CHECK(q.why_waiting("b2") == "another run of this job is active");
    CHECK(all_next(q).empty());
    q.limit_job("p", "j", std::nullopt, std::nullopt);
    CHECK(all_next(q) == "a3 b2");
  }
  SECTION("by pipeline") {
    q.limit_pipeline("p", 2);
    for (const auto* id : {"a", "b", "c"}) q.wait(entry(id, "p", id));
    q.wait(entry("other", "r"));
    CHECK(all_next(q) == "a other b");
    CHECK(q.why_waiting("c") == "2 runs of this pipeline are active, its max_active");
    q.limit_pipeline("p", 1);
    q.remove("a");
    CHECK(all_next(q).empty());
    CHECK(q.why_waiting("c") == "another run of this pipeline is active");
    q.limit_pipeline("p", std::nullopt);
    CHECK(all_next(q) == "c");
  }
  SECTION("no room at all") {
    q.limit_job("p", "j", 0, std::nullopt);
    q.wait(entry("a"));
    CHECK(all_next(q).empty());
    CHECK(q.why_waiting("a") == "0 runs of this job are active, its max_active");
  }
}

TEST_CASE("run queue: pools", "[run_queue]") {
  run_queue q(100, never);
  q.limit_pool("db", 2);
  CHECK(q.free_slots("db") == 2);
  for (const auto* id : {"a", "b", "c"}) q.wait(entry(id, id, "j", 5, noon, {{"db", 1}}));
  q.wait(entry("none", "r"));
  CHECK(all_next(q) == "a b none");
  CHECK(q.free_slots("db") == 0);
  CHECK(q.why_waiting("c") == "pool 'db' has no free slot (2 of 2 taken)");
  q.limit_pool("db", 1);
  CHECK(q.free_slots("db") == 0);
  CHECK(q.why_waiting("c") == "pool 'db' has no free slot (2 of 1 taken)");
  q.remove("a");
  CHECK(all_next(q).empty());
  q.remove("b");
  CHECK(all_next(q) == "c");

  q.wait(entry("big", "p", "j", 5, noon, {{"db", 3}, {"unused", 0}}));
  CHECK(q.why_waiting("big") == "pool 'db' has 1 slot, 3 are needed");
  q.limit_pool("db", 3);
  CHECK(q.why_waiting("big") == "pool 'db' has 2 of 3 slots free, 3 are needed");
  q.limit_pool("db", std::nullopt);
  CHECK(q.why_waiting("big") == "there is no pool 'db'");
  CHECK(all_next(q).empty());
  q.limit_pool("db", 4);
  CHECK(all_next(q) == "big");
  CHECK(q.free_slots("db") == 0);
  q.remove("big");
  CHECK(q.free_slots("db") == 3);
}

TEST_CASE("run queue: a small run passes a large one that lacks slots, until that has aged", "[run_queue]") {
  run_queue q(100, 60s);
  q.limit_pool("db", 4);
  q.wait(entry("s1", "a", "j", 5, noon, {{"db", 1}}));
  q.wait(entry("s2", "a", "j", 5, noon, {{"db", 1}}));
  CHECK(all_next(q) == "s1 s2");
  q.wait(entry("large", "b", "j", 5, noon + 1s, {{"db", 3}}));
  q.wait(entry("s3", "a", "j", 9, noon + 2s, {{"db", 1}}));
  CHECK(all_next(q, noon + 2s) == "s3");
  q.wait(entry("s4", "a", "j", 9, noon + 3s, {{"db", 1}}));
  q.wait(entry("elsewhere", "a", "k", 0, noon + 3s));
  q.wait(entry("s0", "c", "j", 0, noon, {{"db", 1}}));  // has waited longer still
  CHECK(all_next(q, noon + 61s) == "s0 elsewhere");
  q.remove("s0");
  CHECK_FALSE(q.start_now(entry("s5", "a", "j", 9, noon + 61s, {{"db", 1}}), noon + 61s));
  CHECK(q.why_waiting("s4") == "runs that go before it are waiting");
  q.remove("s1");
  CHECK(all_next(q, noon + 61s).empty());
  q.remove("s2");
  CHECK(all_next(q, noon + 61s) == "large");
  q.remove("s3");
  CHECK(all_next(q, noon + 61s) == "s4");
}

TEST_CASE("run queue: one that can never have its slots keeps none from others", "[run_queue]") {
  run_queue q(100, 60s);
  q.limit_pool("db", 2);
  q.wait(entry("impossible", "b", "j", 5, noon, {{"db", 3}}));
  q.wait(entry("gone", "b", "k", 5, noon, {{"db", 1}, {"gone", 1}}));
  q.wait(entry("s", "a", "j", 5, noon + 1s, {{"db", 1}}));
  CHECK(all_next(q, noon + 1h) == "s");
  q.limit_pool("db", 3);
  q.wait(entry("s2", "a", "j", 5, noon + 1h, {{"db", 1}}));
  CHECK(all_next(q, noon + 1h).empty());  // now it can
  q.remove("s");
  CHECK(all_next(q, noon + 1h) == "impossible");
}

TEST_CASE("run queue: a run keeps slots of its pools only if nothing else holds it up", "[run_queue]") {
  run_queue q(100, 60s);
  q.limit_pool("db", 1);
  q.limit_pool("net", 1);
  q.limit_job("b", "j", std::nullopt, 1);
  q.wait(entry("first", "b", "j", 5, noon, {{"net", 1}}));
  CHECK(all_next(q) == "first");
  q.wait(entry("both", "b", "j", 5, noon, {{"db", 1}, {"net", 1}}));
  q.wait(entry("s1", "a", "j", 5, noon + 1h, {{"db", 1}}));
  CHECK(all_next(q, noon + 1h) == "s1");  // `both` waits for its job, too
  q.remove("s1");
  q.limit_job("b", "j", std::nullopt, 2);
  q.wait(entry("s2", "a", "j", 5, noon + 1h, {{"db", 1}}));
  CHECK(all_next(q, noon + 1h).empty());  // db is kept for it while it waits for net
  q.remove("first");
  CHECK(all_next(q, noon + 1h) == "both");
}

TEST_CASE("run queue: within a job and key order is kept, even if the pools needed differ", "[run_queue]") {
  run_queue q(100, 60s);
  q.limit_pool("db", 0);
  q.wait(entry("old", "p", "j", 5, noon, {{"db", 1}}));
  q.wait(entry("new", "p", "j", 5, noon + 1s));
  CHECK(all_next(q, noon + 1s).empty());
  CHECK(q.why_waiting("new") == "runs that go before it are waiting");
  q.wait(entry("urgent", "p", "j", 9, noon + 2s));
  CHECK(all_next(q, noon + 2s) == "urgent");
  q.wait(entry("urgent2", "p", "j", 9, noon + 2s));
  CHECK(all_next(q, noon + 60s).empty());  // the old one has aged
  q.remove("old");
  CHECK(all_next(q, noon + 60s) == "urgent2 new");
}

TEST_CASE("run queue: held pipelines and a held queue", "[run_queue]") {
  run_queue q(100, 60s);
  q.wait(entry("a", "p"));
  q.wait(entry("b", "r"));
  q.hold_pipeline("p", true);
  CHECK(q.why_waiting("a") == "the pipeline is paused");
  CHECK(all_next(q) == "b");
  CHECK_FALSE(q.start_now(entry("c", "p"), noon));
  q.hold_pipeline("p", false);
  CHECK(all_next(q) == "a");
  q.wait(entry("d", "r"));
  q.hold_all();
  CHECK(all_next(q).empty());
  CHECK_FALSE(q.start_now(entry("e", "p"), noon));
  CHECK(q.why_waiting("d") == "the daemon is stopping");
  q.remove("a");
  CHECK(q.active() == 1);
}

TEST_CASE("run queue: starting at once", "[run_queue]") {
  run_queue q(3, 60s);
  q.limit_job("p", "j", std::nullopt, 1);
  CHECK(q.start_now(entry("a"), noon));
  CHECK(q.active() == 1);
  CHECK_FALSE(q.start_now(entry("b"), noon));
  CHECK(q.waiting() == 0);
  CHECK(q.why_waiting("b").empty());
  q.wait(entry("b"));
  // b cannot start, so it is not in the way.
  CHECK(q.start_now(entry("c", "p", "k"), noon));
  q.remove("a");
  // b can, and goes before it.
  CHECK_FALSE(q.start_now(entry("d", "p", "k"), noon));
  CHECK_FALSE(q.start_now(entry("e"), noon));
  // By priority it goes before b.
  CHECK(q.start_now(entry("f", "p", "k", 6), noon));
  CHECK(all_next(q) == "b");
  CHECK_FALSE(q.start_now(entry("g", "r"), noon));
  // An id that is known is that of an attempt that ended.
  CHECK(q.start_now(entry("b"), noon));
  CHECK(q.active() == 3);
  q.wait(entry("b"));
  CHECK(q.active() == 2);
  CHECK(q.waiting() == 1);
}

TEST_CASE("run queue: a pipeline that is forgotten leaves its entries without limits", "[run_queue]") {
  run_queue q(9, never);
  q.limit_pipeline("p", 1);
  q.limit_job("p", "j", 1, 1);
  q.hold_pipeline("p", true);
  for (const auto* id : {"a", "b", "c"}) q.wait(entry(id));
  CHECK(all_next(q).empty());
  q.forget_pipeline("p");
  q.forget_pipeline("nobody");
  CHECK(all_next(q) == "a b c");
}

// ---- against the model ----

namespace {

// A queue and its model, fed the same.
class random_history {
 public:
  explicit random_history(std::uint32_t seed) : random_(seed) {
    most_ = number(1, 8);
    ageing_ = number(0, 3) ? nanoseconds(1s * number(1, 100)) : nanoseconds(0s);
    fast_ = std::make_unique<run_queue>(most_, ageing_);
    slow_ = {most_, ageing_};
    for (int i = 0; i < 3; ++i) set_pool(pool_name());
  }

  void step() {
    now_ += 100ms * number(0, 20);
    const int what = number(0, 99);
    if (what < 35) {
      add();
    } else if (what < 45) {
      const auto e = made();
      CHECK(fast_->start_now(e, now_) == slow_.start_now(e, now_));
    } else if (what < 70) {
      if (!slow_.active.empty()) remove(slow_.active[index(slow_.active.size())].id);
    } else if (what < 73) {
      if (!slow_.line.empty()) remove(slow_.line[index(slow_.line.size())].e.id);
    } else if (what < 80) {
      change_a_limit();
    } else {
      drain();
    }
    if (slow_.line.size() > 120) {
      while (slow_.line.size() > 30) remove(slow_.line[index(slow_.line.size())].e.id);
    }
    compare();
  }

  std::size_t started = 0;

 private:
  int number(int low, int high) { return std::uniform_int_distribution<>(low, high)(random_); }
  std::size_t index(std::size_t size) { return static_cast<std::size_t>(number(0, static_cast<int>(size) - 1)); }
  std::string pool_name() { return "pool" + std::to_string(number(0, 3)); }
  std::string pipeline_name() { return "p" + std::to_string(number(0, 3)); }
  std::string job_name() { return "j" + std::to_string(number(0, 2)); }
  std::optional<std::int64_t> limit() {
    if (number(0, 3) == 0) return std::nullopt;
    return number(0, 9) ? number(1, 5) : 0;
  }

  queue_entry made() {
    queue_entry e{"e" + std::to_string(++ids_), pipeline_name(), job_name(), number(0, 1) ? "" : "k", number(0, 9), {}};
    e.since = now_ - 1s * (number(0, 4) ? 0 : number(-5, 50));
    // Those of a job mostly need the same.
    std::mt19937 of_job(static_cast<std::uint32_t>(std::hash<std::string>{}(e.pipeline + e.job)));
    auto& chooses = number(0, 5) ? of_job : random_;
    const auto any = [&chooses](int low, int high) { return std::uniform_int_distribution<>(low, high)(chooses); };
    for (int i = any(0, 2); i > 0; --i) e.pools["pool" + std::to_string(any(0, 3))] = any(1, 3);
    return e;
  }
  void add() {
    const auto e = made();
    fast_->wait(e);
    slow_.wait(e);
  }
  void remove(std::string id) {
    fast_->remove(id);
    slow_.remove(id);
  }
  void set_pool(const std::string& name) {
    const auto slots = number(0, 9) ? std::optional<std::int64_t>(number(1, 7) % 7) : std::nullopt;
    fast_->limit_pool(name, slots);
    slow_.pools[name] = slots;
  }
  void change_a_limit() {
    const auto p = pipeline_name();
    switch (number(0, 4)) {
      case 0: set_pool(pool_name()); break;
      case 1: {
        const auto most = limit();
        fast_->limit_pipeline(p, most);
        slow_.pipelines[p] = most;
        break;
      }
      case 2: {
        const auto j = job_name();
        const auto most = limit();
        const auto of_key = limit();
        fast_->limit_job(p, j, most, of_key);
        slow_.jobs[{p, j}] = {most, of_key};
        break;
      }
      case 3: {
        const bool hold = number(0, 4) == 0;
        fast_->hold_pipeline(p, hold);
        hold ? static_cast<void>(slow_.held.insert(p)) : static_cast<void>(slow_.held.erase(p));
        break;
      }
      default:
        if (number(0, 4) != 0) break;
        fast_->forget_pipeline(p);
        slow_.pipelines.erase(p);
        slow_.held.erase(p);
        slow_.served.erase(p);
        for (int j = 0; j < 3; ++j) slow_.jobs.erase({p, "j" + std::to_string(j)});
    }
  }
  void drain() {
    for (int most = number(1, 10); most > 0; --most) {
      const auto before = slow_.line;
      const auto used = slow_.active;
      const auto id = fast_->next(now_);
      REQUIRE(id == slow_.next(now_));
      if (!id) return;
      ++started;
      check_order(before, slow_.active.back());
      check_limits(slow_.active.back());
    }
  }
  // Nothing of the same job, key and priority that has waited longer was passed.
  static void check_order(const std::vector<model_queue::waiting>& before, const queue_entry& e) {
    const auto mine = std::find_if(before.begin(), before.end(), [&e](const auto& w) { return w.e.id == e.id; });
    CHECK(std::none_of(before.begin(), before.end(), [&](const auto& w) {
      return model_queue::same_lane(w.e, e) && w.e.priority == e.priority && model_queue::older(w, *mine);
    }));
  }
  // What has just started is within all limits.
  void check_limits(const queue_entry& e) {
    CHECK(std::ssize(slow_.active) <= most_);
    const auto within = [](const std::optional<std::int64_t>& most, std::int64_t n) { return !most || n <= *most; };
    CHECK(within(slow_.pipelines[e.pipeline], slow_.count([&](const auto& a) { return a.pipeline == e.pipeline; })));
    const auto& [job, key] = slow_.jobs[{e.pipeline, e.job}];
    CHECK(within(job, slow_.count([&](const auto& a) { return a.pipeline == e.pipeline && a.job == e.job; })));
    CHECK(within(key, slow_.count([&](const auto& a) { return model_queue::same_lane(a, e); })));
    for (const auto& [pool, need] : e.pools) CHECK(slow_.free(pool) >= 0);
  }
  void compare() {
    REQUIRE(fast_->active() == std::ssize(slow_.active));
    REQUIRE(fast_->waiting() == std::ssize(slow_.line));
    const auto pool = pool_name();
    CHECK(fast_->free_slots(pool) == std::max<std::int64_t>(slow_.free(pool), 0));
    if (!slow_.line.empty()) {
      const auto& e = slow_.line[index(slow_.line.size())].e;
      CHECK_THAT(fast_->why_waiting(e.id), Catch::Matchers::StartsWith(slow_.why(e)));
      CHECK_FALSE(fast_->why_waiting(e.id).empty());
    }
    if (!slow_.active.empty()) CHECK(fast_->why_waiting(slow_.active.front().id).empty());
  }

  std::mt19937 random_;
  std::int64_t most_ = 1;
  nanoseconds ageing_{};
  timestamp now_ = noon;
  int ids_ = 0;
  std::unique_ptr<run_queue> fast_;
  model_queue slow_{};
};

}  // namespace

TEST_CASE("run queue: random histories agree with looking at everything each time", "[run_queue][slow]") {
  std::size_t started = 0;
  for (std::uint32_t seed = 1; seed <= 24; ++seed) {
    random_history h(seed);
    for (int i = 0; i < 1'500; ++i) {
      INFO("seed " << seed << ", step " << i);
      h.step();
    }
    started += h.started;
  }
  CHECK(started > 4'000);  // the histories were not all standstill
}

// ---- what must always hold ----

TEST_CASE("run queue: under a steady load of urgent runs none waits much longer than the ageing time", "[run_queue]") {
  std::mt19937 random(5);
  const auto number = [&random](int low, int high) { return std::uniform_int_distribution<>(low, high)(random); };
  constexpr auto ageing = 60s;
  run_queue q(1, ageing);
  std::map<std::string, queue_entry> waiting;
  int ids = 0;
  const auto add = [&](int priority, timestamp now) {
    const auto e = entry("e" + std::to_string(++ids), "p" + std::to_string(number(0, 2)), "j", priority, now);
    q.wait(e);
    waiting[e.id] = e;
  };
  std::optional<std::string> active;
  std::map<int, int> starts;
  for (auto now = noon; now < noon + 3'000s; now += 1s) {  // each runs for a second
    if (active) q.remove(*active);
    while (waiting.size() < 12) add(number(0, 9) < 9 ? 9 : number(0, 8), now);
    active = q.next(now);
    REQUIRE(active);
    ++starts[waiting.at(*active).priority];
    waiting.erase(*active);
    // Everything older than it starts before it: there are never more than that.
    for (const auto& [id, e] : waiting) CHECK(now - e.since <= ageing + 12s);
  }
  CHECK(starts[9] > 2'000);
  for (int p = 0; p < 9; ++p) CHECK(starts[p] > 0);
}

TEST_CASE("run queue: a run that needs most of its pools starts among a stream of small ones", "[run_queue]") {
  constexpr auto ageing = 60s;
  run_queue q(100, ageing);
  q.limit_pool("db", 4);
  q.limit_pool("net", 2);
  q.wait(entry("large", "large", "j", 0, noon, {{"db", 3}, {"net", 2}}));
  std::deque<std::pair<timestamp, std::string>> ends;
  int ids = 0;
  std::optional<timestamp> started;
  std::mt19937 random(3);
  for (auto now = noon; now < noon + 200s && !started; now += 500ms) {
    for (const auto& [at, id] : ends) {
      if (at <= now) q.remove(id);
    }
    std::erase_if(ends, [now](const auto& e) { return e.first <= now; });
    while (q.waiting() < 10) {
      const bool db = std::uniform_int_distribution<>(0, 1)(random) == 0;
      ++ids;
      q.wait(entry("s" + std::to_string(ids), "small", "j" + std::to_string(ids % 5), 9, now,
                   {{db ? "db" : "net", 1}}));
    }
    while (const auto id = q.next(now)) {
      if (*id == "large") started = now;
      const auto length = 500ms * std::uniform_int_distribution<>(1, 10)(random);
      ends.emplace_back(now + length, *id);
    }
  }
  REQUIRE(started);
  CHECK(*started > noon + 50s);  // it did not just find a gap
  CHECK(*started <= noon + ageing + 11s);
}

// ---- what it costs ----

namespace {

// Steps for 1,000 runs of a job that may run, each of which waits, starts and ends.
std::uint64_t cost_of_turns(run_queue& q) {
  const auto before = q.steps();
  for (int i = 0; i < 1'000; ++i) {
    const auto id = "turn" + std::to_string(i);
    if (i % 2) {
      REQUIRE(q.start_now(entry(id, "free", "job", i % 10), noon));
    } else {
      q.wait(entry(id, "free", "job", i % 10));
      REQUIRE(q.next(noon) == id);
    }
    REQUIRE_FALSE(q.next(noon));
    q.remove(id);
  }
  return q.steps() - before;
}

std::uint64_t cost_when_empty() {
  run_queue q(64, 1h);
  q.wait(entry("other", "p"));
  q.hold_pipeline("p", true);
  return cost_of_turns(q);
}

}  // namespace

TEST_CASE("run queue: 100,000 entries that cannot start cost nothing", "[run_queue]") {
  constexpr int many = 100'000;
  run_queue q(64, 1h);
  SECTION("behind their job's limit") {
    for (int i = 0; i < 100; ++i) q.limit_job("p", "j" + std::to_string(i), std::nullopt, 0);
    for (int i = 0; i < many; ++i) q.wait(entry(std::to_string(i), "p", "j" + std::to_string(i % 100), i % 10));
  }
  SECTION("each with a key of its own, of a job that is full") {
    q.limit_job("p", "j", 0, 1);
    for (int i = 0; i < many; ++i) q.wait(entry(std::to_string(i), "p", "j", 5, noon, {}, std::to_string(i)));
  }
  SECTION("each a job of its own, in a pipeline that is full") {
    q.limit_pipeline("p", 0);
    for (int i = 0; i < many; ++i) q.wait(entry(std::to_string(i), "p", std::to_string(i)));
  }
  SECTION("in many pipelines, behind a pool") {
    q.limit_pool("db", 0);
    for (int i = 0; i < many; ++i) {
      q.wait(entry(std::to_string(i), std::to_string(i % 1'000), std::to_string(i % 7), 5, noon, {{"db", 1}}));
    }
  }
  SECTION("that have aged, behind a pool") {
    q.limit_pool("db", 1);
    for (int i = 0; i < many; ++i) {
      q.wait(entry(std::to_string(i), std::to_string(i % 1'000), "j", 5, noon - 2h, {{"db", 2}}));
    }
  }
  CHECK(q.waiting() == many);
  CHECK_FALSE(q.next(noon));
  CHECK(cost_of_turns(q) < 2 * cost_when_empty());
  // And each comes off the list by itself.
  const auto before = q.steps();
  for (int i = 0; i < many; ++i) q.remove(std::to_string(i));
  CHECK(q.waiting() == 0);
  CHECK(q.steps() - before < 20ULL * many);
}

TEST_CASE("run queue: 100,000 entries that start one after the other behind a pool", "[run_queue]") {
  constexpr int many = 100'000;
  run_queue q(64, 1h);
  q.limit_pool("db", 3);
  for (int i = 0; i < many; ++i) {
    q.wait(entry(std::to_string(i), std::to_string(i % 500), std::to_string(i % 7), i % 10, noon, {{"db", 1}}));
  }
  const auto before = q.steps();
  std::set<std::string> started;
  while (const auto id = q.next(noon)) {
    started.insert(*id);
    q.remove(*id);
  }
  CHECK(std::ssize(started) == many);
  CHECK(q.steps() - before < 60ULL * many);
}
