// A data folder of the first schema, with something in every table, opened by this version.
#include <algorithm>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/scheduler/first_schema.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

namespace {

void make_first_schema(const std::filesystem::path& file) {
  sqlite::connection db(file, sqlite::open_mode::read_write_create);
  db.execute("CREATE TABLE migrations (name TEXT NOT NULL PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT");
  db.execute(first_schema);
  db.execute(
      "INSERT INTO migrations VALUES ('1 first schema', 7);"
      "INSERT INTO data_folder VALUES ('01J00000000000000000000000');"
      "INSERT INTO revisions VALUES ('p', 1, 'name: p', 'application/yaml', 'rest', 'e', 1, 2);"
      "INSERT INTO pipelines VALUES ('p', 1, 0);"
      "INSERT INTO trigger_cursors VALUES ('p', 'j', 'topic:t', 3);"
      "INSERT INTO schedules VALUES ('p', 'j', 'every:5m', 1800000000000000);"
      "INSERT INTO idempotency_keys VALUES ('p/j', 'key', 'f', '01QUEUED000000000000000000', 1)");
}

// Id, state, trigger, more columns from scheduled_for to input_events.
void add_first_run(const std::filesystem::path& file, const std::string& id, const std::string& state,
                   const std::string& trigger, const std::string& middle, const std::string& times) {
  sqlite::connection db(file, sqlite::open_mode::read_write_create);
  db.execute("INSERT INTO runs VALUES ('" + id + "', 'p', 'j', 1, '" + state + "', '" + trigger +
             "', '', '', 1, 0, " + middle + ", '{\"a\":1}', " + times + ")");
  db.execute("INSERT INTO tasks VALUES ('" + id + "', 'main', 0, 'succeeded', 1, 0, '', 1, 2)");
}

std::string schema_of(const std::filesystem::path& file) {
  sqlite::connection db(file, sqlite::open_mode::read_only);
  return rows_of(db, "sqlite_master");
}

}  // namespace

TEST_CASE("store: a folder of the first schema is taken over with all that is in it", "[store]") {
  const temp_dir dir;
  const auto file = dir / "state.db";
  make_first_schema(file);
  const std::string queued = "01QUEUED000000000000000000", running = "01RUNNING00000000000000000";
  const std::string failed = "01FAILED000000000000000000", done = "01SUCCEEDED000000000000000";
  const std::string none = "'', 'none', '', 0, 0, 0, 0";
  add_first_run(file, queued, "queued", "rest", "NULL, '', 'inline_events', '', 0, 0, 0, 1", "1, NULL, NULL, NULL");
  add_first_run(file, running, "running", "topic", "NULL, '', 'topic', 't', 0, 3, 1, 3", "1, 1, NULL, NULL");
  add_first_run(file, failed, "failed", "after", "NULL, 'U', 'topic', 't', 0, 3, 0, 3", "1, 1, 2, NULL");
  add_first_run(file, done, "succeeded", "cron", "1800000000000000, " + none, "1, 1, 2, NULL");
  {
    sqlite::connection db(file, sqlite::open_mode::read_write_create);
    db.execute("INSERT INTO run_inputs VALUES ('" + queued + "', X'7B7D'); INSERT INTO dead_runs VALUES ('" + failed +
               "', 'p')");
  }

  control c(file);
  CHECK(c->instance() == "01J00000000000000000000000");
  CHECK(c.ask("SELECT applied_at FROM migrations WHERE name = '1 first schema'") == "7");
  CHECK(c.ask("SELECT count(*) FROM migrations") == "4");
  CHECK(c->runs({}).size() == 4);
  CHECK(counts_are_right(c));
  CHECK(c.ask("PRAGMA integrity_check") == "ok");
  CHECK(c.ask("PRAGMA foreign_key_check").empty());

  const auto r = c->run(done).value();
  CHECK(r.trigger == trigger_kind::cron);
  CHECK(r.scheduled_for == noon);
  CHECK(r.params == "{\"a\":1}");
  CHECK(r.priority == 5);
  CHECK(r.overlap_key.empty());
  CHECK(r.retry_of.empty());
  CHECK(r.input.where.empty());
  CHECK(r.trace == trace_context{});
  CHECK_FALSE(r.deadline_at);
  REQUIRE(r.tasks.size() == 1);
  CHECK(r.tasks[0].exit_code == 0);
  CHECK(r.tasks[0].output.empty());
  CHECK(r.tasks[0].item.empty());
  CHECK(c->timeline(done).empty());
  CHECK(c->scheduled_times("p", "j", noon, noon + 1s) == std::vector<timestamp>{noon});
  CHECK(ids(c->dead_runs("", "", 10)) == std::vector<std::string>{failed});
  CHECK(c->load_input(queued) == "{}");
  CHECK(c->cursor("p", "j", "topic:t") == 3);
  CHECK(c->last_firing("p", "j", "every:5m") == noon);
  CHECK(c->known_request({"key", "p/j", "f"})->value().id == queued);
  CHECK(c->pipelines().size() == 1);

  CHECK(c.await(c->recover(noon)).unfinished.size() == 2);
  c.await(c->start_attempt(running, 1, noon));
  c.await(c->finish_run({.run = running, .state = run_state::succeeded, .at = noon + 1s}));
  CHECK(c->timeline(running) ==
        std::vector<timeline_entry>{{noon, "interrupted", "by a stop of the daemon; it waits again"},
                                    {noon, "running", "attempt 1"},
                                    {noon + 1s, "succeeded", ""}});
  c.reopen();
  CHECK(c.ask("SELECT count(*) FROM migrations") == "4");
}

TEST_CASE("store: a folder that was taken over has the schema of a new one", "[store]") {
  const temp_dir dir;
  make_first_schema(dir / "old.db");
  const control old(dir / "old.db");
  const control fresh(dir / "new.db");
  const auto texts = [](const std::filesystem::path& file) {
    sqlite::connection db(file, sqlite::open_mode::read_only);
    sqlite::statement s(db, "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1");
    std::vector<std::string> all;
    while (s.step()) all.emplace_back(s.text(0));
    return all;
  };
  CHECK(texts(dir / "old.db") == texts(dir / "new.db"));
}

TEST_CASE("store: a second migration that was cut off has left the first schema", "[store]") {
  const temp_dir dir;
  const auto file = dir / "state.db";
  make_first_schema(file);
  const auto before = schema_of(file);
  {
    sqlite::connection db(file, sqlite::open_mode::read_write_create);
    // What stands in the way of its last statement.
    db.execute("CREATE TRIGGER run_forgotten AFTER DELETE ON runs BEGIN SELECT 1; END");
  }
  CHECK_THROWS_WITH(control(file), Catch::Contains("state.db") && Catch::Contains("run_forgotten"));
  {
    sqlite::connection db(file, sqlite::open_mode::read_write_create);
    db.execute("DROP TRIGGER run_forgotten");
  }
  CHECK(schema_of(file) == before);
  control c(file);
  CHECK(c.ask("SELECT count(*) FROM migrations") == "4");
}

TEST_CASE("store: a folder of a newer version stays as it is, also when it is of the first schema", "[store]") {
  const temp_dir dir;
  const auto file = dir / "state.db";
  make_first_schema(file);
  {
    sqlite::connection db(file, sqlite::open_mode::read_write_create);
    db.execute("INSERT INTO migrations VALUES ('3 from the future', 8)");
  }
  const auto before = schema_of(file);
  CHECK_THROWS_WITH(control(file), Catch::Contains("newer") && Catch::Contains("3 from the future"));
  CHECK(schema_of(file) == before);
}
