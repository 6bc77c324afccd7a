// What state.db says about runs after the daemon was cut off, and about those that failed for good.
#include <map>

#include <catch2/catch.hpp>

#include "scheduler/policy.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

TEST_CASE("store: recovery queues what was cut off and touches nothing else", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  using enum run_state;
  std::map<run_state, std::string> made;
  auto at = noon;
  for (const auto s : {queued, running, retrying, succeeded, failed, cancelled, timed_out, skipped}) {
    made[s] = in_state(c, s, "j", at += 1s);
  }
  c.await(c->update_task(made[running], task("first", succeeded, 1, 0, "", noon, noon)));
  c.await(c->update_task(made[running], task("second", running, 1, {}, "", noon, {})));
  c.reopen();
  const auto recovered = c.await(c->recover(noon + 1h));
  const auto& found = recovered.unfinished;
  CHECK(recovered.failed.empty());
  CHECK(ids(found) == std::vector<std::string>{made[queued], made[running], made[retrying]});
  for (const auto& r : found) CHECK(r.state == queued);

  CHECK(found[0].interruptions == 0);
  CHECK(found[1].interruptions == 1);
  CHECK(found[1].attempt == 0);  // the attempt that was cut off does not count
  REQUIRE(found[1].tasks.size() == 2);
  CHECK(found[1].tasks[0].state == succeeded);
  CHECK(found[1].tasks[1].state == queued);
  CHECK(found[2].interruptions == 0);  // a pause is no attempt that was cut off
  CHECK(found[2].attempt == 1);        // this one had failed by itself
  CHECK(found[2].retry_at);            // and pauses until then
  for (const auto s : {succeeded, failed, cancelled, timed_out, skipped}) {
    CHECK(c->run(made[s])->state == s);
    CHECK(c->run(made[s])->interruptions == 0);
  }
  c.await(c->start_attempt(made[running], 1, noon + 1h));
  CHECK(counts_are_right(c));
}

TEST_CASE("store: a run that is interrupted again and again fails in the end, as a dead letter", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  auto r = a_run();
  r.input = {run_input::kind::topic, "t", 0, 3, false, "", 3};
  make(c, r);
  for (int i = 0; i < interruption_limit; ++i) {
    c.await(c->start_attempt(r.id, 1, noon));
    REQUIRE(c.await(c->recover(noon)).unfinished.size() == 1);
  }
  c.await(c->start_attempt(r.id, 1, noon));
  const auto end = c.await(c->recover(noon + 1s));
  CHECK(end.unfinished.empty());
  REQUIRE(ids(end.failed) == std::vector<std::string>{r.id});
  const auto found = c->run(r.id).value();
  CHECK(end.failed.front().state == run_state::failed);  // as it is stored now
  CHECK(end.failed.front().reason == found.reason);
  CHECK(end.failed.front().tasks.size() == 2);
  CHECK(found.state == run_state::failed);
  CHECK(found.ended_at == noon + 1s);
  CHECK_THAT(found.reason, Catch::Contains("interrupted 51 times"));
  CHECK(is_final(found.tasks[0].state));
  CHECK(c->count_dead_runs() == 1);
}

// ---- dead letters ----

TEST_CASE("store: failed runs with an input are dead letters until settled", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  std::vector<std::string> dead;
  auto at = noon;
  for (const auto* pipeline : {"p", "q", "p"}) {
    for (const auto state :
         {run_state::failed, run_state::timed_out, run_state::cancelled, run_state::succeeded}) {
      for (const auto kind : {run_input::kind::none, run_input::kind::inline_events}) {
        auto r = a_run(pipeline, "j", at += 1ms);
        r.input.type = kind;
        r.state = run_state::running;
        make(c, r);
        c.await(c->finish_run({.run = r.id, .state = state, .reason = "broken", .at = at}));
        const bool failed = state == run_state::failed || state == run_state::timed_out;
        if (failed && kind != run_input::kind::none) dead.push_back(r.id);
      }
    }
  }
  CHECK(dead.size() == 6);
  CHECK(c->count_dead_runs() == 6);
  CHECK(ids(c->dead_runs("", "", 100)) == dead);
  CHECK(ids(c->dead_runs("", dead[1], 2)) == std::vector<std::string>{dead[2], dead[3]});
  CHECK(ids(c->dead_runs("q", "", 100)) == std::vector<std::string>{dead[2], dead[3]});
  CHECK(ids(c->dead_runs("p", dead[0], 2)) == std::vector<std::string>{dead[1], dead[4]});
  CHECK(c->dead_runs("p", "", 1).front().reason == "broken");

  CHECK(c.await(c->settle_dead_runs({dead[0], dead[1], dead[1], "no such run"})) == 2);
  CHECK(c->count_dead_runs() == 4);
  CHECK(c->run(dead[0]));
}
