// Which runs retention deletes, and that it holds up nobody.
#include <map>
#include <set>

#include <catch2/catch.hpp>

#include "runtime/ulid.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

TEST_CASE("store: retention deletes what is old or one too many, and nothing that is needed", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  std::vector<std::string> all;
  for (int i = 0; i < 20; ++i)
    all.push_back(in_state(c, run_state::succeeded, i % 2 ? "odd" : "even", noon + 1min * i));
  const auto waiting = in_state(c, run_state::queued, "even", noon);
  auto dead = a_run("p", "even", noon);
  dead.input = {run_input::kind::inline_events, "", 0, 0, false, "{}\n", 1};
  dead.state = run_state::running;
  make(c, dead);
  c.await(c->finish_run({.run = dead.id, .state = run_state::failed, .at = noon}));

  SECTION("by age") {
    const auto gone = c.await(c->prune_runs(noon + 5min, 1000));
    CHECK(std::set(gone.begin(), gone.end()) == std::set(all.begin(), all.begin() + 5));
  }
  SECTION("by number, of each job") {
    const auto gone = c.await(c->prune_runs(noon - 1h, 8));
    CHECK(std::set(gone.begin(), gone.end()) == std::set(all.begin(), all.begin() + 4));
  }
  SECTION("both") {
    const auto gone = c.await(c->prune_runs(noon + 3min, 2));
    CHECK(std::set(gone.begin(), gone.end()) == std::set(all.begin(), all.begin() + 16));
    CHECK(gone.size() == 16);
  }
  SECTION("all") {
    CHECK(c.await(c->prune_runs(noon + 24h, 0)).size() == 20);
    CHECK(c.ask("SELECT count(*) FROM runs") == "2");
    CHECK(c.ask("SELECT count(*) FROM tasks") == "4");
    CHECK(c->load_input(dead.id) == "{}\n");
    CHECK(c.await(c->settle_dead_runs({dead.id})) == 1);
    CHECK(c.await(c->prune_runs(noon + 24h, 0)) == std::vector<std::string>{dead.id});
    CHECK(c.ask("SELECT count(*) FROM run_inputs") == "0");
    CHECK(c.ask("SELECT count(*) FROM run_counts") == "1");
  }
  CHECK(c->run(waiting));
  CHECK(counts_are_right(c));
  CHECK(c.ask("PRAGMA foreign_key_check").empty());
}

TEST_CASE("store: jobs with rules of their own go by these", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  std::map<std::string, std::vector<std::string>> of;
  for (int i = 0; i < 20; ++i) {
    for (const std::string job : {"plain", "few", "short", "long", "none"}) {
      of[job].push_back(in_state(c, i % 3 ? run_state::succeeded : run_state::failed, job, noon + 1min * i));
    }
  }
  const std::vector<history> own{{.pipeline = "p", .job = "few", .runs = 2},
                                 {.pipeline = "p", .job = "short", .before = noon + 18min},
                                 {.pipeline = "p", .job = "long", .runs = 1000, .before = noon - 1h},
                                 {.pipeline = "p", .job = "none", .runs = 0},
                                 {.pipeline = "q", .job = "plain", .runs = 0}};
  const auto gone = c.await(c->prune_runs(noon + 5min, 10, own));
  const auto kept = [&](const std::string& job) {
    const auto left = ids(c->runs({.pipeline = "p", .job = job}));
    return std::vector<std::string>(left.rbegin(), left.rend());
  };
  const auto newest = [&of](const std::string& job, int n) {
    return std::vector<std::string>(of[job].end() - n, of[job].end());
  };
  CHECK(kept("plain") == newest("plain", 10));
  CHECK(kept("few") == newest("few", 2));
  CHECK(kept("short") == newest("short", 2));
  CHECK(kept("long") == of["long"]);
  CHECK(kept("none").empty());
  CHECK(gone.size() == 66);
  CHECK(std::set(gone.begin(), gone.end()).size() == 66);
  CHECK(counts_are_right(c));
  CHECK(c.await(c->prune_runs(noon + 5min, 10, own)).empty());

  CHECK(c.await(c->prune_runs(noon + 15min, 1000)).size() == 15 + 5);  // without: the default for all
}

TEST_CASE("store: dead letters count among the runs that are kept, but stay", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  std::vector<std::string> all;
  for (int i = 0; i < 2000; ++i) {  // more dead ones in a row than a portion holds
    auto r = a_run("p", "j", noon + 1ms * i);
    r.state = run_state::running;
    if (i < 1200) r.input = {run_input::kind::topic, "t", i, i + 1, false, "", 1};
    make(c, r);
    c.await(c->finish_run({.run = r.id, .state = run_state::failed, .at = r.created_at}));
    all.push_back(r.id);
  }
  CHECK(c->count_dead_runs() == 1200);
  auto gone = c.await(c->prune_runs(noon - 1h, 900));
  CHECK(gone.empty());  // the 1,100 oldest are too many, and all dead letters
  gone = c.await(c->prune_runs(noon - 1h, 300));
  CHECK(gone == std::vector<std::string>(all.begin() + 1200, all.begin() + 1700));
  gone = c.await(c->prune_runs(noon + 1h, 900));
  CHECK(gone.size() == 300);
  CHECK(c.ask("SELECT count(*) FROM runs") == "1200");
  CHECK(counts_are_right(c));
}

TEST_CASE("store: retention passes over thousands of jobs", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  std::vector<new_run> rows;
  std::vector<history> own;
  for (int i = 0; i < 3000; ++i) {
    for (int k = 0; k < 3; ++k) {
      auto r = a_run("p" + std::to_string(i / 100), "j" + std::to_string(i % 100), noon + 1s * k);
      r.tasks.clear();
      r.state = k == 1 ? run_state::cancelled : run_state::succeeded;
      r.ended_at = r.created_at;
      rows.push_back({.run = r});
    }
    if (i % 2) own.push_back({.pipeline = rows.back().run.pipeline, .job = rows.back().run.job, .runs = 1});
  }
  c.await(c->create_runs(rows));
  CHECK(c.await(c->prune_runs(noon + 500ms, 1000, own)).size() == 3000 + 1500);
  CHECK(c.ask("SELECT count(*) FROM runs WHERE created_at = " + std::to_string(to_micros(noon))) == "0");
  CHECK(c.ask("SELECT count(*) FROM runs") == "4500");
  CHECK(counts_are_right(c));
}

TEST_CASE("store: an idempotency key outlives a run that was one too many, but not for ever", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  new_run n{.run = a_run()};
  n.run.state = run_state::skipped;
  n.run.ended_at = noon;
  n.once = idempotency{"key", "p/j", "f"};
  const auto id = c.await(c->create_run(n)).value().id;
  CHECK(c.await(c->prune_runs(noon - 1h, 0)).size() == 1);
  n.run.id = runtime::make_ulid(noon);
  CHECK(c.await(c->create_run(n)).value().existed);
  CHECK(c.await(c->create_run(n)).value().id == id);
  c.await(c->prune_runs(noon + 1h, 0));
  CHECK_FALSE(c.await(c->create_run(n)).value().existed);
}

TEST_CASE("store: retention works in portions, with the commits of others in between", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  std::vector<new_run> rows;
  for (int i = 0; i < 3300; ++i) {
    auto r = a_run("p", "j", noon + 1us * i);
    r.state = run_state::succeeded;
    r.ended_at = r.created_at;
    rows.push_back({.run = r});
  }
  c.await(c->create_runs(rows));
  bool pruned = false;
  int made_meanwhile = 0;
  const auto prune = [](store& s, bool& done) -> asio::awaitable<int> {
    const auto gone = co_await s.prune_runs(noon - 1h, 100);
    done = true;
    co_return static_cast<int>(gone.size());
  };
  const auto others = [](store& s, const bool& done, int& made) -> asio::awaitable<int> {
    while (!done) {
      new_run n;
      n.run = a_run("q", "k", noon + 1h);
      auto work = s.create_run(std::move(n));
      co_await std::move(work);
      ++made;
    }
    co_return made;
  };
  std::vector<asio::awaitable<int>> both;
  both.push_back(prune(*c.operator->(), pruned));
  both.push_back(others(*c.operator->(), pruned, made_meanwhile));
  CHECK(c.await_all(std::move(both)).front() == 3200);
  CHECK(made_meanwhile >= 5);
  CHECK(c.ask("SELECT count(*) FROM runs WHERE job = 'j'") == "100");
  CHECK(counts_are_right(c));
}
