// Tasks that fan out, outputs, and what is written of ten thousand tasks when a run ends.
#include <chrono>
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

std::vector<task_record> instances(const std::string& task, int count) {
  std::vector<task_record> all;
  for (int i = 0; i < count; ++i) {
    all.push_back({.name = task + "[" + std::to_string(i) + "]", .item = std::to_string(i)});
  }
  return all;
}

std::vector<std::string> names(const std::vector<task_record>& tasks) {
  std::vector<std::string> all;
  for (const auto& t : tasks) all.push_back(t.name);
  return all;
}

// Counts the changed rows of `tasks` from now on.
void count_task_writes(control& c) {
  c.execute(
      "CREATE TABLE written (n INTEGER); INSERT INTO written VALUES (0);"
      "CREATE TRIGGER task_written AFTER UPDATE ON tasks BEGIN UPDATE written SET n = n + 1; END");
}

}  // namespace

TEST_CASE("store: instances stand behind the tasks, with their items", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  c.await(c->add_tasks(id, instances("first", 12)));
  c.await(c->add_tasks(id, {}));
  c.await(c->add_tasks(id, instances("second", 2)));
  auto expected = names(a_run().tasks);
  for (const auto& t : instances("first", 12)) expected.push_back(t.name);
  for (const auto& t : instances("second", 2)) expected.push_back(t.name);
  const auto tasks = c->run(id)->tasks;
  CHECK(names(tasks) == expected);
  CHECK(tasks[13].item == "11");
  CHECK(tasks[13].state == run_state::queued);
}

TEST_CASE("store: instances that make no sense change nothing", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  const auto over = in_state(c, run_state::failed);
  c.await(c->add_tasks(id, instances("first", 2)));
  const auto before = dump(c);
  CHECK_THROWS_AS(c.await(c->add_tasks("no such run", instances("first", 2))), std::logic_error);
  CHECK_THROWS_AS(c.await(c->add_tasks(over, instances("first", 2))), std::logic_error);
  CHECK_THROWS_AS(c.await(c->add_tasks(id, instances("first", 3))), std::logic_error);  // two of them are there
  CHECK_THROWS_AS(c.await(c->add_tasks(id, {{.name = "x"}, {.name = "x"}})), std::logic_error);
  CHECK(dump(c) == before);
}

TEST_CASE("store: the next attempt keeps what succeeded, with its output, and repeats the rest", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  c.await(c->add_tasks(id, instances("second", 3)));
  auto good = task("first", run_state::succeeded, 1, 0, "", noon, noon + 1s);
  good.output = R"({"files":["a","b","c"]})";
  c.await(c->update_task(id, good));
  auto second = task("second", run_state::running, 1, {}, "", noon, {});
  c.await(c->update_task(id, second));
  auto one = task("second[0]", run_state::succeeded, 1, 0, "", noon, noon + 2s);
  one.output = R"({"rows":1})";
  one.item = "something else";  // is fixed
  c.await(c->update_task(id, one));
  auto two = task("second[1]", run_state::failed, 1, 3, "exit code 3", noon, noon + 2s);
  two.output = R"({"rows":0})";
  c.await(c->update_task(id, two));
  second.state = run_state::failed;
  second.ended_at = noon + 3s;
  second.reason = "1 of 3 failed";
  c.await(c->update_task(id, second));
  c.await(c->update_task(id, task("second[2]", run_state::skipped, 0, {}, "the attempt ended", {}, noon + 3s)));
  c.await(c->set_waiting(id, run_state::retrying, "attempt 2", noon + 9s, noon + 3s));
  c.await(c->start_attempt(id, 2, noon + 9s));

  const auto tasks = c->run(id)->tasks;
  REQUIRE(tasks.size() == 5);
  CHECK(tasks[0].state == run_state::succeeded);
  CHECK(tasks[0].output == good.output);
  CHECK(tasks[2].state == run_state::succeeded);
  CHECK(tasks[2].output == one.output);
  CHECK(tasks[2].item == "0");
  for (const int i : {1, 3, 4}) {
    const auto& t = tasks[static_cast<std::size_t>(i)];
    INFO(t.name);
    CHECK(t.state == run_state::queued);
    CHECK(t.output.empty());
    CHECK(t.reason.empty());
    CHECK_FALSE(t.exit_code);
    CHECK_FALSE(t.started_at);
    CHECK_FALSE(t.ended_at);
  }
  CHECK(tasks[3].attempt == 1);
  CHECK(tasks[3].item == "1");
}

TEST_CASE("store: instances survive a stop of the daemon", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  c.await(c->add_tasks(id, instances("first", 3)));
  auto one = task("first[0]", run_state::succeeded, 1, 0, "", noon, noon);
  one.output = "{}";
  c.await(c->update_task(id, one));
  c.await(c->update_task(id, task("first[1]", run_state::running, 1, {}, "", noon, {})));
  c.reopen();
  const auto found = c.await(c->recover(noon + 1h)).unfinished;
  REQUIRE(found.size() == 1);
  const auto& tasks = found.front().tasks;
  REQUIRE(tasks.size() == 5);
  CHECK(tasks[2].state == run_state::succeeded);
  CHECK(tasks[2].output == "{}");
  CHECK(tasks[3].state == run_state::queued);
  CHECK(tasks[3].item == "1");
  CHECK_FALSE(tasks[3].started_at);
}

TEST_CASE("store: the end of a run writes the tasks that changed, and no others", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  c.await(c->add_tasks(id, instances("second", 10'000)));
  const auto stored = [&] { return c->run(id)->tasks; };
  auto tasks = stored();
  for (auto& t : tasks) {
    t.state = run_state::succeeded;
    t.attempt = 1;
    t.started_at = noon;
    t.ended_at = noon + 1s;
    t.exit_code = 0;
    t.output = R"({"n":)" + t.item + "0}";
  }
  {
    sqlite::connection db(c.file(), sqlite::open_mode::read_write_create);
    sqlite::statement write(db,
                            "UPDATE tasks SET state = 'succeeded', attempt = 1, started_at = ?1, ended_at = ?2,"
                            " exit_code = 0, output = '{\"n\":' || item || '0}' WHERE position < 9000");
    write.bind(1, to_micros(noon)).bind(2, to_micros(noon + 1s)).run();
  }
  count_task_writes(c);

  SECTION("all at the end") {
    c.await(c->finish_run({.run = id, .state = run_state::succeeded, .at = noon + 2s, .tasks = tasks}));
    CHECK(c.ask("SELECT n FROM written") == "1002");
    const auto after = stored();
    REQUIRE(after.size() == tasks.size());
    for (std::size_t i : {0UL, 5'000UL, 9'500UL, 10'001UL}) CHECK(after[i].output == tasks[i].output);
  }
  SECTION("a difference in each thing that counts") {
    tasks[0].attempt = 2;
    tasks[1].exit_code.reset();
    tasks[2].reason = "r";
    tasks[3].output = "{}";
    tasks[4].started_at.reset();
    tasks[5].ended_at = noon;
    tasks[6].item = "x";  // does not
    c.await(c->finish_run({.run = id, .state = run_state::succeeded, .at = noon + 2s, .tasks = tasks}));
    CHECK(c.ask("SELECT n FROM written") == "1008");
    CHECK(stored()[3].output == "{}");
  }
  SECTION("some never told of") {
    tasks.resize(9'500);
    c.await(c->finish_run({.run = id, .state = run_state::failed, .reason = "r", .at = noon + 2s, .tasks = tasks}));
    CHECK(c.ask("SELECT n FROM written") == "1002");
    CHECK(stored().back().state == run_state::skipped);
    CHECK(stored().back().reason == "the run ended");
  }
}

TEST_CASE("store: a task may not be told twice of two ends", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = in_state(c, run_state::running);
  const auto before = dump(c);
  run_end end{.run = id, .state = run_state::failed, .at = noon};
  end.tasks = {task("first", run_state::succeeded, 1, 0, "", noon, noon),
               task("first", run_state::failed, 1, 1, "", noon, noon)};
  CHECK_THROWS_AS(c.await(c->finish_run(end)), std::logic_error);
  end.tasks = {task("nobody", run_state::succeeded, 1, 0, "", noon, noon)};
  CHECK_THROWS_AS(c.await(c->finish_run(end)), std::logic_error);
  CHECK(dump(c) == before);
}
