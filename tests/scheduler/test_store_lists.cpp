// Lists of runs: every filter against a plain search, paging, and a million rows.
#include <algorithm>
#include <random>
#include <set>

#include <catch2/catch.hpp>
#include <sqlite3.h>

#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

TEST_CASE("store: lists are newest first and take every filter", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  std::mt19937 random(1);
  const auto number = [&random](int n) { return std::uniform_int_distribution<>(0, n - 1)(random); };
  std::vector<run_record> all;
  std::vector<new_run> rows;
  for (int i = 0; i < 400; ++i) {
    auto r = a_run("p" + std::to_string(number(3)), "j" + std::to_string(number(3)), noon + 700us * i);
    r.state = static_cast<run_state>(number(8));
    if (is_final(r.state)) r.ended_at = r.created_at;
    all.insert(all.begin(), r);
    rows.push_back({.run = r});
  }
  c.await(c->create_runs(rows));
  for (int i = 0; i < 300; ++i) {
    run_filter f;
    if (number(2)) f.pipeline = "p" + std::to_string(number(4));
    if (number(2)) f.job = "j" + std::to_string(number(4));
    for (int k = number(4); k > 0; --k) f.states.push_back(static_cast<run_state>(number(8)));
    if (number(2)) f.since = noon + 100us * number(2800);
    if (number(2)) f.until = noon + 100us * number(2800);
    if (number(2)) f.before_id = all[static_cast<std::size_t>(number(400))].id;
    f.limit = static_cast<std::size_t>(number(2) ? number(20) : 1000);
    std::vector<std::string> expected;
    for (const auto& r : all) {
      const bool state =
          f.states.empty() || std::find(f.states.begin(), f.states.end(), r.state) != f.states.end();
      if ((f.pipeline.empty() || f.pipeline == r.pipeline) && (f.job.empty() || f.job == r.job) && state &&
          (!f.since || r.created_at >= *f.since) && (!f.until || r.created_at < *f.until) &&
          (f.before_id.empty() || r.id < f.before_id) && expected.size() < f.limit) {
        expected.push_back(r.id);
      }
    }
    CHECK(ids(c->runs(f)) == expected);
  }
  CHECK(counts_are_right(c));
}

TEST_CASE("store: paging gives every run exactly once while others are added and move on", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  auto latest = noon + 10min;
  for (const auto& filter : {run_filter{}, run_filter{.pipeline = "p"}, run_filter{.job = "j"}}) {
    const auto expected = [&] {
      for (int i = 0; i < 100; ++i) make(c, a_run("p", "j", noon + 1ms * i));
      auto everything = filter;
      everything.limit = 100'000;
      return ids(c->runs(everything));
    }();
    std::vector<std::string> found;
    run_filter f = filter;
    f.limit = 7;
    for (auto page = c->runs(f); !page.empty(); page = c->runs(f)) {
      for (const auto& r : page) found.push_back(r.id);
      f.before_id = page.back().id;
      make(c, a_run("p", "j", latest += 1ms));
      // One that has been shown and one that has not change their state: neither comes twice or gets lost.
      const auto unseen = expected.back();
      for (const auto& id : {page.front().id, unseen}) {
        if (c->run(id)->state == run_state::queued) c.await(c->start_attempt(id, 1, noon));
      }
    }
    CHECK(found == expected);
  }
}

namespace {

// What SQLite did for each statement of the connections opened since.
struct traced {
  std::string sql;
  int full_scan_steps;
  int sorts;
  int steps;
};
std::vector<traced>* traced_statements = nullptr;  // of this thread's connections only: the reader's

int remember(unsigned, void*, void* statement, void*) {
  auto* s = static_cast<sqlite3_stmt*>(statement);
  const auto take = [s](int what) { return sqlite3_stmt_status(s, what, 1); };
  if (traced_statements) {
    traced_statements->push_back({sqlite3_sql(s), take(SQLITE_STMTSTATUS_FULLSCAN_STEP), take(SQLITE_STMTSTATUS_SORT),
                                  take(SQLITE_STMTSTATUS_VM_STEP)});
  }
  return 0;
}

int watch_connection(sqlite3* db, const char**, const sqlite3_api_routines*) {
  return sqlite3_trace_v2(db, SQLITE_TRACE_PROFILE, remember, nullptr);
}

void fill_with_a_million(control& c) {
  c.execute(
      "PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; BEGIN;"
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)"
      " INSERT INTO runs (id, pipeline, job, revision, state, trigger_kind, waiting_reason, reason, attempt,"
      "  interruptions, scheduled_for, upstream_run, input_kind, input_topic, input_after, input_until, input_open,"
      "  input_events, params, created_at, started_at, ended_at, retry_at, timeline)"
      " SELECT printf('01%024d', i), 'p' || (i / 1000 % 20), 'j' || (i / 20000 % 5), 1,"
      "  CASE WHEN i % 100000 = 7 THEN 'queued' WHEN i % 100000 = 8 THEN 'running'"
      "       WHEN i % 1000 = 9 THEN 'failed' ELSE 'succeeded' END,"
      "  'rest', '', '', 1, 0, NULL, '', 'none', '', 0, 0, 0, 0, '{}', i, i, i, NULL, hex(zeroblob(200)) FROM n;"
      "UPDATE runs SET pipeline = 'rare', job = 'rarer' WHERE id IN (printf('01%024d', 5), printf('01%024d', "
      "6));"
      "DELETE FROM run_counts;"
      "INSERT INTO run_counts SELECT pipeline, job, state, count(*) FROM runs GROUP BY 1, 2, 3;"
      "COMMIT");
}

void check_plans(control& c, const std::vector<traced>& statements) {
  sqlite::connection db(c.file(), sqlite::open_mode::read_only);
  std::set<std::string> seen;
  for (const auto& t : statements) {
    if (!seen.insert(t.sql).second) continue;
    sqlite::statement plan(db, "EXPLAIN QUERY PLAN " + t.sql);
    while (plan.step()) {
      INFO(t.sql << "\n" << plan.text(3));
      CHECK(plan.text(3).find("SCAN runs") == std::string_view::npos);
      CHECK(plan.text(3).find("TEMP B-TREE") == std::string_view::npos);
    }
  }
}

}  // namespace

TEST_CASE("store: with a million runs every list goes through an index", "[store][slow]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  fill_with_a_million(c);
  std::vector<traced> seen;
  REQUIRE(sqlite3_auto_extension(reinterpret_cast<void (*)()>(watch_connection)) == SQLITE_OK);
  CHECK(c->instance().size() == 26);  // opens the reader
  sqlite3_cancel_auto_extension(reinterpret_cast<void (*)()>(watch_connection));
  traced_statements = &seen;

  using enum run_state;
  const auto middle = c.ask("SELECT printf('01%024d', 500000)");
  std::vector<run_filter> filters{
      {},
      {.before_id = middle},
      {.pipeline = "p3"},
      {.pipeline = "rare"},
      {.job = "j2"},
      {.job = "rarer"},
      {.pipeline = "p3", .job = "j2", .before_id = middle},
      {.pipeline = "p3", .job = "j2", .states = {failed}},
      {.states = {queued, running, retrying}},
      {.states = {failed}, .before_id = middle},
      {.states = {succeeded}},
      {.states = {timed_out}},
      {.pipeline = "p3", .states = {queued, running, retrying}},
      {.job = "j2", .states = {cancelled}},
      {.since = from_micros(0), .until = from_micros(0) + 24h * 365},
      {.pipeline = "nothing"},
  };
  for (unsigned with = 0; with < 64; ++with) {  // every combination
    run_filter f;
    if (with & 1) f.pipeline = "p3";
    if (with & 2) f.job = "j2";
    if (with & 4) f.states = {succeeded, failed};
    if (with & 8) f.since = from_micros(200'000);
    if (with & 16) f.until = from_micros(900'000);
    if (with & 32) f.before_id = middle;
    filters.push_back(f);
  }
  for (const auto& f : filters) {
    seen.clear();
    const auto page = c->runs(f);
    INFO("pipeline " << f.pipeline << " job " << f.job << " states " << f.states.size());
    int steps = 0;
    for (const auto& t : seen) {
      steps += t.steps;
      CHECK(t.full_scan_steps <= 200);  // run_counts by job is a walk, runs never
      CHECK(t.sorts == 0);
      CHECK(t.sql.find("timeline") == std::string::npos);
    }
    CHECK(!seen.empty());
    CHECK(steps < 30'000);
    check_plans(c, seen);
    if (f.pipeline == "rare" || f.job == "rarer") CHECK(page.size() == 2);
  }
  seen.clear();
  CHECK(c->count_by_state("", "").at("queued") == 10);
  CHECK(c->count_by_state("rare", "rarer").at("succeeded") == 2);
  CHECK(c->run(middle));
  CHECK(c->dead_runs("", "", 50).empty());
  CHECK(c->dead_runs("p3", "", 50).empty());
  for (const auto& t : seen) CHECK(t.steps < 10'000);
  traced_statements = nullptr;

  CHECK(c.await(c->recover(noon)).unfinished.size() == 20);
  CHECK(counts_are_right(c));
}
