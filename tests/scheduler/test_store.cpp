// state.db as a file, and the pipelines in it: opening, refusing, revisions.
#include <catch2/catch.hpp>

#include "runtime/ulid.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

TEST_CASE("store: a new folder gets an id, and keeps it", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto id = c->instance();
  CHECK(runtime::is_ulid(id));
  c.reopen();
  CHECK(c->instance() == id);
  CHECK(c.ask("SELECT group_concat(name) FROM migrations") == "1 first schema,2 jobs,3 traces,4 tokens and audit log");
}

TEST_CASE("store: a file of a newer version is refused and left alone", "[store]") {
  const testing::temp_dir dir;
  control(dir / "state.db").execute("INSERT INTO migrations VALUES ('99 from the future', 0)");
  CHECK_THROWS_WITH(control(dir / "state.db"), Catch::Contains("state.db") && Catch::Contains("newer") &&
                                                   Catch::Contains("99 from the future"));
}

TEST_CASE("store: a damaged file is refused by name", "[store]") {
  const testing::temp_dir dir;
  const auto file = dir / "state.db";
  {
    std::FILE* f = std::fopen(file.c_str(), "w");
    for (int i = 0; i < 1000; ++i) std::fputs("this is no database ", f);
    std::fclose(f);
  }
  CHECK_THROWS_WITH(control(file), Catch::Contains("state.db"));
}

TEST_CASE("store: a migration that was cut off has left nothing", "[store]") {
  const testing::temp_dir dir;
  const auto file = dir / "state.db";
  {
    // What a crash before the commit of the first migration leaves: the empty list of migrations.
    sqlite::connection db(file, sqlite::open_mode::read_write_create);
    db.execute(
        "CREATE TABLE migrations (name TEXT NOT NULL PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT");
  }
  control c(file);
  CHECK(runtime::is_ulid(c->instance()));
}

TEST_CASE("store: closed, it takes nothing more, and closing twice is fine", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  c->close();
  c->close();
  CHECK_THROWS(c.await(c->create_run({.run = a_run()})));
}

// ---- pipelines ----

namespace {

pipeline_record definition(const std::string& name, const std::string& text) {
  return {.name = name,
          .text = text,
          .media_type = "application/yaml",
          .origin = "rest",
          .etag = "\"x\"",
          .created_at = noon,
          .updated_at = noon};
}

}  // namespace

TEST_CASE("store: revisions count up, guard each other and outlive their pipeline", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto put = [&c](const pipeline_record& p, std::int64_t expected) {
    return c.await(c->put_pipeline(p, expected));
  };

  const std::string bytes("name: p\0\xff\n", 10);  // kept to the byte, whatever it is
  CHECK(put(definition("p", bytes), 0).value().revision == 1);
  CHECK(put(definition("p", "two"), 0).error().code == errc::precondition_failed);
  CHECK(put(definition("p", "two"), 2).error().code == errc::precondition_failed);
  auto later = definition("p", "two");
  later.created_at = later.updated_at = noon + 1h;
  CHECK(put(later, 1).value().revision == 2);
  CHECK(put(definition("other", "x"), 0).value().revision == 1);

  REQUIRE(c->pipelines().size() == 2);
  const auto current = c->pipelines().back();
  CHECK(current.name == "p");
  CHECK(current.text == "two");
  CHECK(current.revision == 2);
  CHECK(current.created_at == noon);
  CHECK(current.updated_at == noon + 1h);
  CHECK(c->revision("p", 1)->text == bytes);
  CHECK_FALSE(c->revision("p", 3));
  REQUIRE(c->revisions("p").size() == 2);
  CHECK(c->revisions("p").front().revision == 2);
  CHECK(c->revisions("p").front().text.empty());

  c.await(c->set_cursor("p", "j", "topic:t", 7));
  c.await(c->set_firing({"p", "j", "every:5m", noon}));
  c.await(c->remove_pipeline("p"));
  CHECK(c->pipelines().size() == 1);
  CHECK(c->revision("p", 2)->text == "two");
  CHECK_FALSE(c->cursor("p", "j", "topic:t"));
  CHECK_FALSE(c->last_firing("p", "j", "every:5m"));
  CHECK(put(definition("p", "again"), 2).error().code == errc::precondition_failed);
  CHECK(put(definition("p", "again"), 0).value().revision == 3);
}

TEST_CASE("store: of racing changes from one revision exactly one wins", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  std::vector<asio::awaitable<result<pipeline_record>>> racing;
  for (int i = 0; i < 50; ++i) racing.push_back(c->put_pipeline(definition("p", std::to_string(i)), 0));
  int won = 0;
  for (const auto& r : c.await_all(std::move(racing))) won += r ? 1 : 0;
  CHECK(won == 1);
  CHECK(c->revisions("p").size() == 1);
}

TEST_CASE("store: paused stays paused, over changes and restarts", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  c.await(c->put_pipeline(definition("p", "one"), 0)).value();
  c.await(c->set_paused("p", true));
  CHECK(c.await(c->put_pipeline(definition("p", "two"), 1)).value().paused);
  c.reopen();
  CHECK(c->pipelines().front().paused);
  c.await(c->set_paused("p", false));
  CHECK_FALSE(c->pipelines().front().paused);
}
