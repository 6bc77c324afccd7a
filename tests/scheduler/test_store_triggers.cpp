// What triggers must not do twice: files that runs have taken, and times that a schedule has made runs for.
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

file_claim a_file(const std::string& path, const std::string& stamp, const std::string& trigger = "file:in/*") {
  return {.pipeline = "p", .job = "j", .trigger = trigger, .path = path, .stamp = stamp};
}

std::string take(control& c, std::vector<file_claim> files) {
  new_run n{.run = a_run()};
  n.files = std::move(files);
  return c.await(c->create_run(n)).value().id;
}

// "PATH STAMP RUN" of each.
std::vector<std::string> shown(const std::vector<file_claim>& claims) {
  std::vector<std::string> all;
  for (const auto& f : claims) all.push_back(f.path + " " + f.stamp + " " + f.run);
  return all;
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("store: a file is taken with its run, once for each content", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto first = take(c, {a_file("/in/b", "1"), a_file("/in/a", "1")});
  CHECK(shown(c->taken_files("p", "j", "file:in/*")) == texts{"/in/a 1 " + first, "/in/b 1 " + first});
  CHECK(c->taken_files("p", "j", "file:in/*").front().pipeline == "p");
  CHECK(c->taken_files("p", "j", "file:in/*").front().trigger == "file:in/*");
  CHECK(c->taken_files("p", "k", "file:in/*").empty());

  const auto before = dump(c);
  CHECK_THROWS_AS(take(c, {a_file("/in/c", "1"), a_file("/in/a", "1")}), std::logic_error);
  CHECK_THROWS_AS(take(c, {a_file("/in/c", "1"), a_file("/in/c", "1")}), std::logic_error);
  std::vector<new_run> several(2);
  several[0].run = a_run();
  several[1].run = a_run();
  several[1].files = {a_file("/in/b", "1")};
  CHECK_THROWS_AS(c.await(c->create_runs(several)), std::logic_error);
  CHECK(dump(c) == before);

  const auto second = take(c, {a_file("/in/a", "2")});  // it was written anew
  CHECK(shown(c->taken_files("p", "j", "file:in/*")) == texts{"/in/a 2 " + second, "/in/b 1 " + first});
  CHECK(shown(c->files_of(first)) == texts{"/in/b 1 " + first});
  CHECK(shown(c->files_of(second)) == texts{"/in/a 2 " + second});
  const auto other = take(c, {a_file("/in/a", "2", "file:*")});  // another trigger's mark
  CHECK(shown(c->files_of(other)) == texts{"/in/a 2 " + other});
  CHECK(c->files_of("no such run").empty());
}

TEST_CASE("store: a request that is repeated takes no file", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  new_run n{.run = a_run()};
  n.once = idempotency{"key", "p/j", "f"};
  n.files = {a_file("/in/a", "1")};
  c.await(c->create_run(n)).value();
  const auto before = dump(c);
  n.run = a_run();
  CHECK(c.await(c->create_run(n)).value().existed);
  CHECK(dump(c) == before);
}

TEST_CASE("store: a forgotten file may be taken again; a newer one of its name is not forgotten", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto run = take(c, {a_file("/in/a", "1"), a_file("/in/b", "1")});
  const auto seen = c->taken_files("p", "j", "file:in/*");
  const auto newer = take(c, {a_file("/in/b", "2")});
  c.await(c->forget_files(seen));
  c.await(c->forget_files({a_file("/in/none", "1")}));
  CHECK(shown(c->taken_files("p", "j", "file:in/*")) == texts{"/in/b 2 " + newer});
  CHECK(c->files_of(run).empty());
  const auto again = take(c, {a_file("/in/a", "1")});
  CHECK(c->files_of(again).size() == 1);
}

TEST_CASE("store: marks of files outlive the run and go with the pipeline", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto run = take(c, {a_file("/in/a", "1")});
  auto other = a_file("/in/a", "1");
  other.pipeline = "q";
  take(c, {other});
  c.await(c->finish_run({.run = run, .state = run_state::skipped, .at = noon}));
  CHECK(c.await(c->prune_runs(noon + 1h, 0)).size() == 1);
  CHECK(c->taken_files("p", "j", "file:in/*").size() == 1);
  c.await(c->remove_pipeline("p"));
  CHECK(c->taken_files("p", "j", "file:in/*").empty());
  CHECK(c->taken_files("q", "j", "file:in/*").size() == 1);
}

TEST_CASE("store: what a run that goes on has taken stays taken when its pipeline is removed", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto over = take(c, {a_file("/in/a", "1")});
  const auto going_on = take(c, {a_file("/in/b", "1")});
  c.await(c->finish_run({.run = over, .state = run_state::skipped, .at = noon}));
  c.await(c->remove_pipeline("p"));
  CHECK(shown(c->taken_files("p", "j", "file:in/*")) == texts{"/in/b 1 " + going_on});
  CHECK_THROWS_AS(take(c, {a_file("/in/b", "1")}), std::logic_error);
  CHECK_NOTHROW(take(c, {a_file("/in/a", "1")}));
}

TEST_CASE("store: the times that a schedule made runs for", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto add = [&c](trigger_kind by, std::optional<timestamp> at, const std::string& job = "j") {
    auto r = a_run("p", job);
    r.trigger = by;
    r.scheduled_for = at;
    return make(c, r);
  };
  add(trigger_kind::cron, noon + 3h);
  add(trigger_kind::cron, noon);
  add(trigger_kind::backfill, noon + 1h);
  add(trigger_kind::every, noon + 1h);  // the same time: told once
  add(trigger_kind::at, noon + 2h);
  add(trigger_kind::rest, noon + 4h);   // repeats one by hand
  add(trigger_kind::rest, {});
  add(trigger_kind::cron, noon + 5h, "k");
  using times = std::vector<timestamp>;
  CHECK(c->scheduled_times("p", "j", noon, noon + 24h) == times{noon, noon + 1h, noon + 2h, noon + 3h});
  CHECK(c->scheduled_times("p", "j", noon + 1us, noon + 3h) == times{noon + 1h, noon + 2h});
  CHECK(c->scheduled_times("p", "k", noon, noon + 24h) == times{noon + 5h});
  CHECK(c->scheduled_times("p", "j", noon, noon).empty());

  sqlite::connection db(c.file(), sqlite::open_mode::read_only);
  sqlite::statement plan(db,
                         "EXPLAIN QUERY PLAN SELECT DISTINCT scheduled_for FROM runs WHERE pipeline = ?1 AND job = ?2"
                         " AND scheduled_for >= ?3 AND scheduled_for < ?4"
                         " AND trigger_kind IN ('cron', 'every', 'at', 'backfill') ORDER BY scheduled_for");
  REQUIRE(plan.step());
  CHECK_THAT(std::string(plan.text(3)), Catch::Contains("COVERING INDEX runs_for_time"));
  CHECK_FALSE(plan.step());
}
