// The alerts that wait for delivery: made with the end of a run or alone, each once, kept until settled.
#include <stdexcept>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

namespace {

alert_record an_alert(const std::string& run, const std::string& kind = "failure", int index = 0,
                      timestamp at = noon) {
  return {.id = runtime::make_ulid(at),
          .pipeline = "p",
          .job = "j",
          .run = run,
          .revision = 3,
          .index = index,
          .kind = kind,
          .payload = R"({"run":"é"})",
          .created_at = at};
}

std::vector<std::string> alert_ids(control& c, std::size_t limit = 1000) {
  std::vector<std::string> all;
  for (const auto& a : c->alerts(limit)) all.push_back(a.id);
  return all;
}

}  // namespace

TEST_CASE("store: an alert is stored with the end of its run and comes back whole", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  const auto a = an_alert(id);
  const auto b = an_alert(id, "failure", 1, noon + 1s);
  c.await(c->finish_run({.run = id, .state = run_state::failed, .at = noon, .alerts = {b, a}}));
  c.reopen();
  const auto found = c->alerts(10);
  REQUIRE(found.size() == 2);
  CHECK(found[0].id == a.id);  // oldest first
  CHECK(found[0].pipeline == "p");
  CHECK(found[0].job == "j");
  CHECK(found[0].run == id);
  CHECK(found[0].revision == 3);
  CHECK(found[0].index == 0);
  CHECK(found[0].kind == "failure");
  CHECK(found[0].payload == a.payload);
  CHECK(found[0].created_at == noon);
  CHECK(found[0].attempts == 0);
  CHECK(found[0].failure.empty());
  CHECK(found[1].index == 1);
  CHECK(alert_ids(c, 1) == std::vector<std::string>{a.id});
}

TEST_CASE("store: an end that cannot be stored leaves no alert", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto over = in_state(c, run_state::failed);
  const auto id = in_state(c, run_state::running);
  const auto before = dump(c);
  CHECK_THROWS_AS(
      c.await(c->finish_run({.run = over, .state = run_state::failed, .at = noon, .alerts = {an_alert(over)}})),
      std::logic_error);
  auto twice = an_alert(id, "failure", 1);
  const auto first = an_alert(id);
  twice.id = first.id;
  CHECK_THROWS(c.await(c->finish_run({.run = id, .state = run_state::failed, .at = noon, .alerts = {first, twice}})));
  CHECK(dump(c) == before);
}

TEST_CASE("store: a delivery that failed is remembered, one that worked ends it", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto a = an_alert(in_state(c, run_state::failed));
  const auto b = an_alert(in_state(c, run_state::failed), "failure", 0, noon + 1s);
  c.await(c->add_alert(b));
  c.await(c->add_alert(a));
  c.await(c->alert_failed(a.id, 3, "503"));
  c.await(c->alert_failed("no such alert", 1, ""));
  CHECK(c->alerts(10).front().attempts == 3);
  CHECK(c->alerts(10).front().failure == "503");
  c.await(c->settle_alert(a.id));
  c.await(c->settle_alert(a.id));
  c.await(c->settle_alert("no such alert"));
  CHECK(alert_ids(c) == std::vector<std::string>{b.id});
  CHECK(c.ask("SELECT count(*) FROM alerts") == "1");
}

TEST_CASE("store: a run is late once, also after the alert was delivered", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  const auto late = an_alert(id, "late");
  c.await(c->add_alert(late));
  c.await(c->add_alert(an_alert(id, "late")));
  CHECK(alert_ids(c) == std::vector<std::string>{late.id});
  c.await(c->add_alert(an_alert(id, "late", 1)));  // another of the job's alerts
  CHECK(alert_ids(c).size() == 2);
  c.await(c->settle_alert(late.id));
  c.reopen();
  c.await(c->add_alert(an_alert(id, "late")));
  CHECK(alert_ids(c).size() == 1);
  c.await(c->alert_failed(late.id, 9, "too late"));
  c.await(c->finish_run({.run = id, .state = run_state::failed, .at = noon + 1s, .alerts = {an_alert(id)}}));
  CHECK(alert_ids(c).size() == 2);  // a failure is another matter
}

TEST_CASE("store: alerts outlive their run, and what was settled goes with it", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::failed);
  const auto waiting = an_alert(id);
  const auto late = an_alert(id, "late");
  c.await(c->add_alert(waiting));
  c.await(c->add_alert(late));
  c.await(c->settle_alert(late.id));
  CHECK(c.ask("SELECT count(*) FROM alerts") == "2");
  CHECK(c.await(c->prune_runs(noon + 1h, 0)).size() == 1);
  CHECK(c.ask("SELECT count(*) FROM alerts") == "1");
  CHECK(alert_ids(c) == std::vector<std::string>{waiting.id});
  c.await(c->settle_alert(waiting.id));
  CHECK(c.ask("SELECT count(*) FROM alerts") == "0");
  const auto orphan = an_alert("no such run", "late");
  c.await(c->add_alert(orphan));
  c.await(c->settle_alert(orphan.id));
  CHECK(c.ask("SELECT count(*) FROM alerts") == "0");
}
