// The timeline of a run: an entry for each change, in one statement with it, and never more than a page can hold.
#include <stdexcept>
#include <vector>

#include <catch2/catch.hpp>

#include "scheduler/policy.hpp"
#include "scheduler/store_timeline.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;
using namespace std::string_literals;

using entries = std::vector<timeline_entry>;

TEST_CASE("store: a timeline tells a run's life in order", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  auto r = a_run();
  r.trigger = trigger_kind::topic;
  r.input = {run_input::kind::topic, "orders", 0, 5, false, "", 5};
  r.waiting_reason = "another run of this job is active";
  make(c, r);
  c.await(c->set_waiting(r.id, run_state::queued, "pool 'db' has no free slot", {}, noon + 1s));
  c.await(c->set_waiting(r.id, run_state::queued, "pool 'db' has no free slot", {}, noon + 2s));  // nothing new
  c.await(c->start_attempt(r.id, 1, noon + 3s));
  c.await(c->set_waiting(r.id, run_state::retrying, "attempt 2 of 3 after: exit code 1", noon + 9s, noon + 4s));
  c.await(c->start_attempt(r.id, 2, noon + 9s));
  c.reopen();
  c.await(c->recover(noon + 10s));
  c.await(c->start_attempt(r.id, 2, noon + 11s));
  c.await(c->finish_run(
      {.run = r.id, .state = run_state::failed, .reason = "task first: exit code 1", .at = noon + 12s}));
  CHECK(c->timeline(r.id) ==
        entries{{noon, "queued", "made by topic trigger, 5 events of orders; waits: another run of this job is active"},
                {noon + 1s, "queued", "waits: pool 'db' has no free slot"},
                {noon + 3s, "running", "attempt 1"},
                {noon + 4s, "retrying", "attempt 2 of 3 after: exit code 1"},
                {noon + 9s, "running", "attempt 2"},
                {noon + 10s, "interrupted", "by a stop of the daemon; it waits again"},
                {noon + 11s, "running", "attempt 2"},
                {noon + 12s, "failed", "task first: exit code 1"}});
  CHECK(c->timeline("no such run").empty());
}

TEST_CASE("store: a timeline begins with what made the run", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto first = [&c](new_run n) {
    c.await(c->create_run(n)).value();
    REQUIRE(c->timeline(n.run.id).size() == 1);
    return c->timeline(n.run.id).front();
  };
  const auto made = [](trigger_kind by) {
    new_run n{.run = a_run()};
    n.run.trigger = by;
    return n;
  };
  auto n = made(trigger_kind::cron);
  n.run.scheduled_for = noon;
  n.run.state = run_state::running;
  n.run.attempt = 1;
  CHECK(first(n) == timeline_entry{noon, "running", "made by cron trigger for 2027-01-15T08:00:00.000000Z; attempt 1"});
  n = made(trigger_kind::backfill);
  n.run.scheduled_for = noon;
  CHECK(first(n).detail == "made by a backfill for 2027-01-15T08:00:00.000000Z");
  n = made(trigger_kind::topic);
  n.run.input = {run_input::kind::topic, "t", 0, 9, false, "", 1};
  CHECK(first(n).detail == "made by topic trigger, 1 event of t");
  n = made(trigger_kind::after);
  n.run.upstream_run = "U";
  n.run.state = run_state::skipped;
  n.run.ended_at = noon;
  n.run.reason = "another run of this job was active (on_overlap: skip)";
  CHECK(first(n) == timeline_entry{noon, "skipped",
                                   "made by after trigger, at the end of run U; another run of this job was active "
                                   "(on_overlap: skip)"});
  n = made(trigger_kind::file);
  n.files = {{"p", "j", "file:/in/*", "/in/a", "1"}, {"p", "j", "file:/in/*", "/in/b", "1"}};
  CHECK(first(n).detail == "made by file trigger, 2 files");
  n = made(trigger_kind::webhook);
  n.run.input = {run_input::kind::inline_events, "", 0, 0, false, "{}\n", 1};
  CHECK(first(n).detail == "made by webhook trigger, 1 event");
  n = made(trigger_kind::rest);
  CHECK(first(n).detail == "made by a request");
  n = made(trigger_kind::rest);
  n.run.retry_of = "R";
  CHECK(first(n).detail == "made by a request to repeat run R");
}

TEST_CASE("store: whatever stands in a detail comes back", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  for (const std::string& reason :
       {"two\nlines\tand \\n a tab\\"s, "\n\n\t\t"s, "a\0b"s, "\\0\\t\\\\"s, "é…"s, "\xff\xfe"s, ""s, "\r\n"s}) {
    const auto id = in_state(c, run_state::running);
    c.await(c->finish_run({.run = id, .state = run_state::failed, .reason = reason, .at = noon}));
    CHECK(c->timeline(id).back() == timeline_entry{noon, "failed", reason});
    CHECK(c->timeline(id).size() == 3);
  }
}

TEST_CASE("store: a long detail is cut, never within a character", "[store]") {
  for (const std::string& unit : {"x"s, "é"s, "…"s, "😀"s}) {
    std::string detail = "y";
    while (detail.size() < 5000) detail += unit;
    const auto back = rows::timeline_from(rows::timeline_line({noon, "failed", detail}));
    REQUIRE(back.size() == 1);
    const std::string& cut = back.front().detail;
    CHECK(cut.size() <= rows::detail_limit + 3);
    CHECK(cut.size() > rows::detail_limit - 4);
    CHECK(cut.substr(cut.size() - 3) == "…");
    CHECK((cut.size() - 1 - 3) % unit.size() == 0);
  }
  const std::string fits(rows::detail_limit, 'x');
  CHECK(rows::timeline_from(rows::timeline_line({noon, "failed", fits})).front().detail == fits);
}

TEST_CASE("store: a timeline is bounded, and its end always fits", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  for (const std::string& why : {"short"s, std::string(100'000, '\n')}) {
    const auto id = in_state(c, run_state::running);
    for (int i = 1; i <= 400; ++i) {
      c.await(c->set_waiting(id, run_state::retrying, why, {}, noon));
      c.await(c->start_attempt(id, i + 1, noon));
    }
    c.await(c->finish_run({.run = id, .state = run_state::failed, .reason = why, .at = noon + 1s}));
    const auto all = c->timeline(id);
    CHECK(all.size() < 600);
    CHECK(all.back().what == "failed");
    CHECK(all.back().at == noon + 1s);
    CHECK(all[all.size() - 2].what != "failed");
    CHECK(std::stoi(c.ask("SELECT length(CAST(timeline AS BLOB)) FROM runs WHERE id = '" + id + "'")) < 22'000);
    CHECK(c->run(id)->reason == why);  // the whole
  }
}

TEST_CASE("store: the timeline of a run that was interrupted too often ends with its failure", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  auto r = a_run();
  r.state = run_state::running;
  r.interruptions = interruption_limit;
  make(c, r);
  REQUIRE(c.await(c->recover(noon + 1s)).failed.size() == 1);
  CHECK(c->timeline(r.id) == entries{{noon, "running", "made by a request"},
                                     {noon + 1s, "interrupted", "by a stop of the daemon, once too often"},
                                     {noon + 1s, "failed", "interrupted 51 times by stops of the daemon"}});
}

TEST_CASE("store: a change that fails leaves no entry", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::succeeded);
  const auto before = c->timeline(id);
  CHECK_THROWS_AS(c.await(c->start_attempt(id, 2, noon)), std::logic_error);
  CHECK_THROWS_AS(c.await(c->set_waiting(id, run_state::retrying, "w", {}, noon)), std::logic_error);
  CHECK_THROWS_AS(c.await(c->finish_run({.run = id, .state = run_state::failed, .at = noon})), std::logic_error);
  CHECK(c->timeline(id) == before);
}

TEST_CASE("store: a damaged timeline is said to be one", "[store]") {
  for (const auto* text : {"no line", "1\tqueued\n", "x\tqueued\td\n", "1\tqueued\td\nrest", "\t\t\n", "1x\tq\td\n"}) {
    CHECK_THROWS_WITH(rows::timeline_from(text), Catch::Contains("damaged timeline"));
  }
}
