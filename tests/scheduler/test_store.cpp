// state.db against crashes, races, illegal moves and size. "Killed" means kill -9 of another process of this
// very program that makes runs as fast as it can; what it left is then opened again and has to add up.
#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <map>
#include <random>
#include <set>
#include <signal.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <sqlite3.h>

#include "runtime/sqlite.hpp"
#include "runtime/ulid.hpp"
#include "scheduler/policy.hpp"
#include "scheduler/store.hpp"
#include "tests/temp_dir.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace std::chrono_literals;
namespace sqlite = penstock::runtime::sqlite;

namespace {

const timestamp noon = from_micros(1'800'000'000'000'000);

// A store with its threads: this one is the control thread.
class control {
 public:
  explicit control(std::filesystem::path file) : file_(std::move(file)) { open(); }

  void open() { store_ = std::make_unique<store>(file_, thread_.get_executor()); }
  void reopen() {
    store_.reset();
    open();
  }
  store* operator->() { return store_.get(); }
  const std::filesystem::path& file() const { return file_; }

  template <class T>
  T await(asio::awaitable<T> work) {
    auto done = asio::co_spawn(io_, std::move(work), asio::use_future);
    run();
    return done.get();
  }

  // All at once; the results in order.
  template <class T>
  std::vector<T> await_all(std::vector<asio::awaitable<T>> work) {
    std::vector<std::future<T>> done;
    for (auto& one : work) done.push_back(asio::co_spawn(io_, std::move(one), asio::use_future));
    run();
    std::vector<T> results;
    for (auto& one : done) results.push_back(one.get());
    return results;
  }

  // The only value of a query, by a connection of its own.
  std::string ask(const std::string& sql) {
    sqlite::connection db(file_, sqlite::open_mode::read_only);
    sqlite::statement s(db, sql);
    return s.step() ? std::string(s.text(0)) : "";
  }
  void execute(const std::string& sql) {
    sqlite::connection db(file_, sqlite::open_mode::read_write_create);
    db.execute(sql);
  }

 private:
  void run() {
    io_.restart();
    io_.run();
  }

  std::filesystem::path file_;
  asio::io_context io_;
  asio::thread_pool thread_{1};
  std::unique_ptr<store> store_;
};

run_record a_run(const std::string& pipeline = "p", const std::string& job = "j", timestamp at = noon) {
  run_record r;
  r.id = runtime::make_ulid(at);
  r.pipeline = pipeline;
  r.job = job;
  r.revision = 1;
  r.created_at = at;
  r.tasks = {{.name = "first"}, {.name = "second"}};
  return r;
}

std::string make(control& c, run_record r) {
  return c.await(c->create_run({.run = std::move(r)})).value().id;
}

std::string in_state(control& c, run_state state, const std::string& job = "j", timestamp at = noon) {
  const auto id = make(c, a_run("p", job, at));
  if (state == run_state::queued) return id;
  if (state == run_state::skipped) {
    c.await(c->finish_run(id, state, "overlap", at + 1s, {}, {}));
    return id;
  }
  c.await(c->start_attempt(id, 1, at));
  if (state == run_state::retrying) {
    c.await(c->set_waiting(id, state, "attempt 2", at + 10s));
  } else if (state != run_state::running) {
    c.await(c->finish_run(id, state, "because", at + 1s, {}, {}));
  }
  return id;
}

std::vector<std::string> ids(const std::vector<run_record>& runs) {
  std::vector<std::string> all;
  for (const auto& r : runs) all.push_back(r.id);
  return all;
}

// All of the database as text, but for the page counters: two equal ones mean that nothing was changed.
std::string dump(control& c) {
  std::string all;
  for (const auto* table : {"runs", "tasks", "run_inputs", "run_counts", "dead_runs", "idempotency_keys",
                            "trigger_cursors", "schedules", "pipelines", "revisions"}) {
    sqlite::connection db(c.file(), sqlite::open_mode::read_only);
    sqlite::statement s(db, std::string("SELECT * FROM ") + table);
    sqlite::statement columns(db, std::string("SELECT count(*) FROM pragma_table_info('") + table + "')");
    columns.step();
    const auto width = static_cast<int>(columns.integer(0));
    all.append(table).append(":\n");
    while (s.step()) {
      for (int i = 0; i < width; ++i) all.append(s.is_null(i) ? "NULL" : s.text(i)).append("|");
      all += "\n";
    }
  }
  return all;
}

// The counters that triggers keep are what counting gives.
bool counts_are_right(control& c) {
  return c.ask(
             "SELECT count(*) FROM (SELECT pipeline, job, state, count(*) AS n FROM runs GROUP BY 1, 2, 3) "
             "AS r"
             " FULL JOIN (SELECT * FROM run_counts WHERE runs > 0) AS k USING (pipeline, job, state)"
             " WHERE r.n IS NOT k.runs") == "0";
}

}  // namespace

// ---- the file ----

TEST_CASE("store: a new folder gets an id, and keeps it", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto id = c->instance();
  CHECK(runtime::is_ulid(id));
  c.reopen();
  CHECK(c->instance() == id);
  CHECK(c.ask("SELECT count(*) FROM migrations") == "1");
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

// ---- making runs ----

TEST_CASE("store: a run comes back as it was made", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  auto r = a_run();
  r.state = run_state::running;
  r.trigger = trigger_kind::every;
  r.waiting_reason = "w";
  r.reason = "r";
  r.attempt = 2;
  r.interruptions = 3;
  r.scheduled_for = noon - 1us;
  r.upstream_run = "U";
  r.input = {run_input::kind::topic, "t", 4, 9, true, "", 5};
  r.params = R"({"a":"é\u0000"})";
  r.started_at = noon + 1us;
  r.tasks.front().attempt = 1;
  r.tasks.front().exit_code = -9;
  r.tasks.front().started_at = noon;
  make(c, r);
  const auto found = c->run(r.id).value();
  CHECK(found.state == r.state);
  CHECK(found.trigger == r.trigger);
  CHECK(found.waiting_reason == "w");
  CHECK(found.reason == "r");
  CHECK(found.attempt == 2);
  CHECK(found.interruptions == 3);
  CHECK(found.scheduled_for == r.scheduled_for);
  CHECK(found.upstream_run == "U");
  CHECK(found.input.type == run_input::kind::topic);
  CHECK(found.input.topic == "t");
  CHECK(found.input.after == 4);
  CHECK(found.input.until == 9);
  CHECK(found.input.open);
  CHECK(found.input.events == 5);
  CHECK(found.params == r.params);
  CHECK(found.created_at == noon);
  CHECK(found.started_at == r.started_at);
  CHECK_FALSE(found.ended_at);
  CHECK_FALSE(found.retry_at);
  REQUIRE(found.tasks.size() == 2);
  CHECK(found.tasks[0].name == "first");
  CHECK(found.tasks[0].exit_code == -9);
  CHECK_FALSE(found.tasks[1].exit_code);
  CHECK_FALSE(c->run("no such run"));
}

TEST_CASE("store: a thousand tasks keep the definition's order", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  auto r = a_run();
  r.tasks.clear();
  for (int i = 1000; i > 0; --i) r.tasks.push_back({.name = "t" + std::to_string(i)});
  make(c, r);
  const auto found = c->run(r.id).value();
  REQUIRE(found.tasks.size() == 1000);
  CHECK(std::equal(found.tasks.begin(), found.tasks.end(), r.tasks.begin(),
                   [](const auto& a, const auto& b) { return a.name == b.name; }));
}

TEST_CASE("store: inline input is kept to the byte and apart from lists", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  auto r = a_run();
  r.input.type = run_input::kind::inline_events;
  r.input.ndjson = std::string("{}\n\0\xfe\n", 6);
  r.input.events = 2;
  make(c, r);
  CHECK(c->load_input(r.id) == r.input.ndjson);
  CHECK(c->run(r.id)->input.ndjson.empty());
  CHECK(c->load_input("other").empty());
}

TEST_CASE("store: run, cursor, schedule and key are stored together or not at all", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto claim = [](std::int64_t from, std::int64_t to) {
    new_run n{.run = a_run()};
    n.run.input = {run_input::kind::topic, "t", from, to, false, "", to - from};
    n.cursor = cursor_move{"p", "j", "topic:t", from, to};
    n.schedule = schedule_move{"p", "j", "cron:@daily", noon};
    n.once = idempotency{"key " + std::to_string(to), "p/j", "f"};
    return n;
  };
  const auto untouched = dump(c);
  CHECK_THROWS_AS(c.await(c->create_run(claim(0, 5))), std::logic_error);  // no such cursor yet
  CHECK(dump(c) == untouched);

  c.await(c->set_cursor("p", "j", "topic:t", 0));
  c.await(c->create_run(claim(0, 5))).value();
  CHECK(c->cursor("p", "j", "topic:t") == 5);
  CHECK(c->last_firing("p", "j", "cron:@daily") == noon);
  CHECK(c->cursors() == std::vector<std::pair<std::string, std::int64_t>>{{"p/job/j/topic:t", 5}});

  const auto before = dump(c);
  CHECK_THROWS_AS(c.await(c->create_run(claim(0, 6))), std::logic_error);  // claimed already
  CHECK_THROWS_AS(c.await(c->create_run(claim(6, 7))), std::logic_error);  // a gap
  CHECK_THROWS_AS(c.await(c->create_run(claim(5, 4))), std::logic_error);  // backwards
  auto taken = claim(5, 8);
  taken.run.id = c->runs({}).front().id;
  CHECK_THROWS(c.await(c->create_run(taken)));
  CHECK_THROWS_AS(c.await(c->create_runs({claim(5, 6), claim(6, 9), claim(8, 10)})), std::logic_error);
  CHECK(dump(c) == before);

  c.await(c->create_runs({claim(5, 6), claim(6, 9)}));
  CHECK(c->cursor("p", "j", "topic:t") == 9);
  CHECK(c->runs({}).size() == 3);
}

TEST_CASE("store: failing pieces in a shared commit do not take others with them", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  std::vector<asio::awaitable<bool>> all;
  const auto attempt = [](store& s, new_run n) -> asio::awaitable<bool> {
    try {
      const auto made = co_await s.create_run(std::move(n));
      co_return made.has_value();
    } catch (const std::logic_error&) {
      co_return false;
    }
  };
  for (int i = 0; i < 300; ++i) {
    new_run n{.run = a_run()};
    if (i % 3 == 0) n.cursor = cursor_move{"p", "j", "none", 0, 1};
    all.push_back(attempt(*c.operator->(), std::move(n)));
  }
  const auto results = c.await_all(std::move(all));
  CHECK(std::count(results.begin(), results.end(), true) == 200);
  CHECK(c.ask("SELECT count(*) FROM runs") == "200");
  CHECK(c.ask("SELECT count(*) FROM tasks") == "400");
  CHECK(counts_are_right(c));
}

TEST_CASE("store: a hundred requests with one key are one run", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto request = [&c](const std::string& fingerprint, const std::string& scope) {
    new_run n{.run = a_run()};
    n.once = idempotency{"the key", scope, fingerprint};
    return c->create_run(std::move(n));
  };
  std::vector<asio::awaitable<result<store::created>>> racing;
  for (int i = 0; i < 100; ++i) racing.push_back(request("same", "p/j"));
  const auto results = c.await_all(std::move(racing));
  std::set<std::string> made;
  int fresh = 0;
  for (const auto& r : results) {
    made.insert(r.value().id);
    fresh += r->existed ? 0 : 1;
  }
  CHECK(made.size() == 1);
  CHECK(fresh == 1);
  CHECK(ids(c->runs({})) == std::vector<std::string>{*made.begin()});

  CHECK(c.await(request("other", "p/j")).error().code == errc::conflict);
  c.reopen();
  CHECK(c.await(request("same", "p/j")).value().existed);
  CHECK_FALSE(c.await(request("other", "p/k")).value().existed);  // another job's key
}

// ---- the life of a run ----

TEST_CASE("store: attempts, tasks and the end", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto id = make(c, a_run());
  c.await(c->set_waiting(id, run_state::queued, "another run is active", {}));
  CHECK(c->run(id)->waiting_reason == "another run is active");

  c.await(c->start_attempt(id, 1, noon + 1s));
  CHECK(c->run(id)->state == run_state::running);
  CHECK(c->run(id)->waiting_reason.empty());
  c.await(c->update_task(id, {"first", run_state::succeeded, 1, 0, "", noon + 1s, noon + 2s}));
  c.await(c->update_task(id, {"second", run_state::running, 1, {}, "", noon + 2s, {}}));
  c.await(c->update_task(id, {"second", run_state::failed, 1, 3, "exit code 3", noon + 2s, noon + 3s}));
  c.await(c->set_waiting(id, run_state::retrying, "attempt 2 of 3", noon + 9s));
  CHECK(c->run(id)->retry_at == noon + 9s);

  c.await(c->start_attempt(id, 2, noon + 9s));
  auto r = c->run(id).value();
  CHECK(r.attempt == 2);
  CHECK(r.started_at == noon + 1s);
  CHECK_FALSE(r.retry_at);
  CHECK(r.tasks[0].state == run_state::succeeded);
  CHECK(r.tasks[1].state == run_state::queued);
  CHECK(r.tasks[1].reason.empty());
  CHECK_FALSE(r.tasks[1].exit_code);
  CHECK(r.tasks[1].attempt == 1);

  const std::vector<task_record> end{{"second", run_state::succeeded, 2, 0, "", noon + 9s, noon + 10s}};
  auto follower = a_run("p", "after");
  follower.upstream_run = id;
  c.await(c->finish_run(id, run_state::succeeded, "", noon + 10s, end, {{.run = follower}}));
  r = c->run(id).value();
  CHECK(r.state == run_state::succeeded);
  CHECK(r.ended_at == noon + 10s);
  CHECK(r.tasks[1].attempt == 2);
  CHECK(c->run(follower.id)->upstream_run == id);
  CHECK(c->count_by_state("p", "j") == std::map<std::string, std::int64_t>{{"succeeded", 1}});
  CHECK(counts_are_right(c));
}

TEST_CASE("store: the end of a run leaves no task unfinished", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  c.await(c->update_task(id, {"first", run_state::running, 1, {}, "", noon, {}}));
  c.await(c->finish_run(id, run_state::cancelled, "by request", noon + 1s, {}, {}));
  const auto tasks = c->run(id)->tasks;
  CHECK(tasks[0].state == run_state::cancelled);
  CHECK(tasks[1].state == run_state::skipped);
  CHECK(tasks[0].ended_at == noon + 1s);
}

TEST_CASE("store: an end whose followers cannot be made is no end", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  const auto before = dump(c);
  auto follower = a_run();
  follower.id = id;
  CHECK_THROWS(
      c.await(c->finish_run(id, run_state::succeeded, "", noon, {}, {{.run = a_run()}, {.run = follower}})));
  CHECK(dump(c) == before);
}

TEST_CASE("store: an open input grows with its cursor until it is closed", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  c.await(c->set_cursor("p", "j", "topic:t", 0));
  new_run n{.run = a_run()};
  n.run.state = run_state::running;
  n.run.input = {run_input::kind::topic, "t", 0, 3, true, "", 3};
  n.cursor = cursor_move{"p", "j", "topic:t", 0, 3};
  c.await(c->create_run(n)).value();
  const auto grow = [&](std::int64_t from, std::int64_t to) {
    c.await(c->extend_input(n.run.id, to, {"p", "j", "topic:t", from, to}));
  };
  grow(3, 8);
  CHECK(c->run(n.run.id)->input.until == 8);
  CHECK(c->run(n.run.id)->input.events == 8);
  CHECK(c->cursor("p", "j", "topic:t") == 8);

  auto before = dump(c);
  CHECK_THROWS_AS(grow(3, 9), std::logic_error);
  CHECK_THROWS_AS(grow(8, 7), std::logic_error);
  CHECK(dump(c) == before);
  c.await(c->close_input(n.run.id));
  before = dump(c);
  CHECK_THROWS_AS(grow(8, 9), std::logic_error);
  CHECK(dump(c) == before);
  CHECK_FALSE(c->run(n.run.id)->input.open);
}

TEST_CASE("store: every illegal move throws and changes nothing", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  using enum run_state;
  for (const auto from : {queued, running, retrying, succeeded, failed, cancelled, timed_out, skipped}) {
    for (const auto to : {queued, running, retrying, succeeded, failed, cancelled, timed_out, skipped}) {
      const auto id = in_state(c, from);
      const auto before = dump(c);
      INFO(token(from) << " -> " << token(to));
      const auto move = [&] {
        if (to == running) {
          c.await(c->start_attempt(id, 2, noon));
        } else if (is_final(to)) {
          c.await(c->finish_run(id, to, "", noon, {}, {{.run = a_run()}}));
        } else {
          c.await(c->set_waiting(id, to, "w", {}));
        }
      };
      if (may_become(from, to) || (from == to && (to == queued || to == retrying))) {
        CHECK_NOTHROW(move());
        CHECK(c->run(id)->state == to);
      } else {
        CHECK_THROWS_AS(move(), std::logic_error);
        CHECK(dump(c) == before);
      }
    }
  }
  CHECK(counts_are_right(c));
}

TEST_CASE("store: moves that make no sense throw and change nothing", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  const auto over = in_state(c, run_state::succeeded);
  c.await(c->update_task(id, {"first", run_state::succeeded, 1, 0, "", noon, noon}));
  const auto before = dump(c);
  const auto throws = [&c](asio::awaitable<void> work) {
    CHECK_THROWS_AS(c.await(std::move(work)), std::logic_error);
  };
  throws(c->start_attempt("no such run", 1, noon));
  throws(c->finish_run("no such run", run_state::failed, "", noon, {}, {}));
  throws(c->finish_run(id, run_state::running, "", noon, {}, {}));
  throws(c->set_waiting(id, run_state::failed, "", {}));
  throws(c->update_task(id, {"no such task", run_state::running, 1, {}, "", {}, {}}));
  throws(c->update_task(id, {"first", run_state::failed, 1, 1, "", noon, noon}));
  throws(c->update_task(over, {"first", run_state::running, 1, {}, "", noon, {}}));
  throws(c->finish_run(id, run_state::failed, "", noon, {{"first", run_state::failed, 1, 1, "", noon, noon}},
                       {}));
  throws(c->extend_input(id, 5, {"p", "j", "topic:t", 0, 5}));
  auto r = a_run();
  r.state = run_state::skipped;  // without an end
  throws(c->create_runs({{.run = r}}));
  CHECK(dump(c) == before);
}

// ---- recovery ----

TEST_CASE("store: recovery queues what was cut off and touches nothing else", "[store]") {
  const testing::temp_dir dir;
  control c(dir / "state.db");
  using enum run_state;
  std::map<run_state, std::string> made;
  auto at = noon;
  for (const auto s : {queued, running, retrying, succeeded, failed, cancelled, timed_out, skipped}) {
    made[s] = in_state(c, s, "j", at += 1s);
  }
  c.await(c->update_task(made[running], {"first", succeeded, 1, 0, "", noon, noon}));
  c.await(c->update_task(made[running], {"second", running, 1, {}, "", noon, {}}));
  c.reopen();
  const auto found = c.await(c->recover(noon + 1h));
  CHECK(ids(found) == std::vector<std::string>{made[queued], made[running], made[retrying]});
  for (const auto& r : found) CHECK(r.state == queued);

  CHECK(found[0].interruptions == 0);
  CHECK(found[1].interruptions == 1);
  CHECK(found[1].attempt == 0);  // the attempt that was cut off does not count
  REQUIRE(found[1].tasks.size() == 2);
  CHECK(found[1].tasks[0].state == succeeded);
  CHECK(found[1].tasks[1].state == queued);
  CHECK(found[2].interruptions == 1);
  CHECK(found[2].attempt == 1);  // this one had failed by itself
  CHECK_FALSE(found[2].retry_at);
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
    REQUIRE(c.await(c->recover(noon)).size() == 1);
  }
  c.await(c->start_attempt(r.id, 1, noon));
  CHECK(c.await(c->recover(noon + 1s)).empty());
  const auto found = c->run(r.id).value();
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
        c.await(c->finish_run(r.id, state, "broken", at, {}, {}));
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

// ---- lists ----

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
std::vector<traced>* trace = nullptr;  // of this thread's connections only: the reader's

int remember(unsigned, void*, void* statement, void*) {
  auto* s = static_cast<sqlite3_stmt*>(statement);
  const auto take = [s](int what) { return sqlite3_stmt_status(s, what, 1); };
  if (trace) {
    trace->push_back({sqlite3_sql(s), take(SQLITE_STMTSTATUS_FULLSCAN_STEP), take(SQLITE_STMTSTATUS_SORT),
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
      " INSERT INTO runs SELECT printf('01%024d', i), 'p' || (i / 1000 % 20), 'j' || (i / 20000 % 5), 1,"
      "  CASE WHEN i % 100000 = 7 THEN 'queued' WHEN i % 100000 = 8 THEN 'running'"
      "       WHEN i % 1000 = 9 THEN 'failed' ELSE 'succeeded' END,"
      "  'rest', '', '', 1, 0, NULL, '', 'none', '', 0, 0, 0, 0, '{}', i, i, i, NULL FROM n;"
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
  trace = &seen;

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
  for (const auto& f : filters) {
    seen.clear();
    const auto page = c->runs(f);
    INFO("pipeline " << f.pipeline << " job " << f.job << " states " << f.states.size());
    int steps = 0;
    for (const auto& t : seen) {
      steps += t.steps;
      CHECK(t.full_scan_steps <= 200);  // run_counts by job is a walk, runs never
      CHECK(t.sorts == 0);
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
  trace = nullptr;

  CHECK(c.await(c->recover(noon)).size() == 20);
  CHECK(counts_are_right(c));
}

// ---- retention ----

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
  c.await(c->finish_run(dead.id, run_state::failed, "", noon, {}, {}));

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

// ---- kill -9 ----

namespace {

constexpr const char* file_variable = "PENSTOCK_TEST_STATE_FILE";
constexpr int progress_descriptor = 9;
constexpr int kill_jobs = 4;

// Claims a random number of events again and again, and takes each run through its states. Never ends by
// itself.
asio::awaitable<void> claim_for_ever(store& s, std::string job) {
  std::mt19937 random(static_cast<unsigned>(::getpid()));
  std::int64_t cursor = s.cursor("p", job, "topic:t").value();
  for (int n = 0;; ++n) {
    const auto until = cursor + std::uniform_int_distribution<>(1, 7)(random);
    new_run next{.run = a_run("p", job, wall_now())};
    next.run.input = {run_input::kind::topic, "t", cursor, until, false, "", until - cursor};
    next.cursor = cursor_move{"p", job, "topic:t", cursor, until};
    const std::string id = next.run.id;
    co_await s.create_run(std::move(next));
    cursor = until;
    co_await s.start_attempt(id, 1, wall_now());
    if (n % 3) {
      auto after = a_run("p", job + "-after", wall_now());
      after.upstream_run = id;
      std::vector<new_run> followers(1);
      followers.front().run = std::move(after);
      co_await s.finish_run(id, run_state::succeeded, "", wall_now(), {}, std::move(followers));
    }
    if (::write(progress_descriptor, ".", 1) != 1) ::_exit(1);
  }
}

// Another process of this program, in the test below, until that many steps were done.
void run_and_kill(const std::filesystem::path& file, int steps) {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], progress_descriptor);
  const std::string variable = std::string(file_variable) + "=" + file.string();
  std::vector<char*> environment;
  for (char** e = environ; *e; ++e) environment.push_back(*e);
  environment.push_back(const_cast<char*>(variable.c_str()));
  environment.push_back(nullptr);
  std::string program = "/proc/self/exe";
  std::string test = "store: makes runs until it is killed";
  char* const arguments[] = {program.data(), test.data(), nullptr};
  pid_t child = 0;
  REQUIRE(::posix_spawn(&child, program.c_str(), &actions, nullptr, arguments, environment.data()) == 0);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  char dot = 0;
  int seen = 0;
  while (seen < steps && ::read(ends[0], &dot, 1) == 1) ++seen;
  CHECK(seen == steps);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ends[0]);
}

}  // namespace

TEST_CASE("store: makes runs until it is killed", "[.]") {
  const char* const file = std::getenv(file_variable);
  if (!file) return;  // it is only there to be the other process of the test below
  asio::io_context io;
  asio::thread_pool thread(1);
  store s(file, thread.get_executor());
  for (int i = 0; i < kill_jobs; ++i) {
    asio::co_spawn(io, claim_for_ever(s, "j" + std::to_string(i)),
                   [](const std::exception_ptr&) { ::_exit(2); });
  }
  io.run();
}

TEST_CASE("store: after kill -9 every event belongs to exactly one run", "[store][slow]") {
  const testing::temp_dir dir;
  std::mt19937 random(99);
  {
    control c(dir / "state.db");
    for (int i = 0; i < kill_jobs; ++i) c.await(c->set_cursor("p", "j" + std::to_string(i), "topic:t", 0));
  }
  for (int round = 0; round < 15; ++round) {
    run_and_kill(dir / "state.db", std::uniform_int_distribution<>(1, 200)(random));
    control c(dir / "state.db");
    CHECK(c.ask("PRAGMA integrity_check") == "ok");
    CHECK(c.ask("PRAGMA foreign_key_check").empty());
    CHECK(counts_are_right(c));
    CHECK(c.ask("SELECT count(*) FROM runs LEFT JOIN tasks ON run = id GROUP BY id HAVING count(name) <> 2")
              .empty());
    for (int i = 0; i < kill_jobs; ++i) {
      const std::string job = "j" + std::to_string(i);
      auto claims = c->runs({.pipeline = "p", .job = job, .limit = 1'000'000});
      std::sort(claims.begin(), claims.end(),
                [](const auto& a, const auto& b) { return a.input.after < b.input.after; });
      std::int64_t claimed = 0;
      std::int64_t succeeded = 0;
      for (const auto& r : claims) {
        CHECK(r.input.after == claimed);
        claimed = r.input.until;
        succeeded += r.state == run_state::succeeded ? 1 : 0;
      }
      CHECK(c->cursor("p", job, "topic:t") == claimed);
      CHECK(c.ask("SELECT count(*) FROM runs WHERE job = '" + job + "-after'") == std::to_string(succeeded));
    }
    for (const auto& r : c.await(c->recover(wall_now()))) CHECK(r.state == run_state::queued);
  }
}
