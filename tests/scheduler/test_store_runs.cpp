// Runs in state.db: how they are made, which moves they may make, and their end.
#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

#include <catch2/catch.hpp>

#include "runtime/ulid.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;
using namespace std::string_literals;

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
  r.retry_of = "R";
  r.priority = 9;
  r.overlap_key = "k\0é"s;
  r.deadline_at = noon + 1h;
  r.input = {run_input::kind::topic, "t", 4, 9, true, "", 5, "event.n > 1"};
  r.params = R"({"a":"é\u0000"})";
  r.trace = {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=b, c=d e"};
  r.started_at = noon + 1us;
  r.tasks.front().attempt = 1;
  r.tasks.front().exit_code = -9;
  r.tasks.front().started_at = noon;
  r.tasks.front().output = R"({"rows":3})";
  r.tasks.back().item = "\"a\"";
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
  CHECK(found.retry_of == "R");
  CHECK(found.priority == 9);
  CHECK(found.overlap_key == r.overlap_key);
  CHECK(found.deadline_at == noon + 1h);
  CHECK(found.input.where == "event.n > 1");
  CHECK(found.trace == r.trace);
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
  const auto plain = c->run(make(c, a_run())).value();
  CHECK(plain.priority == 5);
  CHECK_FALSE(plain.deadline_at);
  REQUIRE(found.tasks.size() == 2);
  CHECK(found.tasks[0].name == "first");
  CHECK(found.tasks[0].exit_code == -9);
  CHECK(found.tasks[0].output == R"({"rows":3})");
  CHECK(found.tasks[0].item.empty());
  CHECK_FALSE(found.tasks[1].exit_code);
  CHECK(found.tasks[1].item == "\"a\"");
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

  CHECK(c->known_request({"the key", "p/j", "same"})->value().id == *made.begin());
  CHECK(c->known_request({"the key", "p/j", "same"})->value().existed);
  CHECK(c->known_request({"the key", "p/j", "other"})->error().code == errc::invalid);
  CHECK_FALSE(c->known_request({"the key", "p/k", "same"}));
  CHECK_FALSE(c->known_request({"another key", "p/j", "same"}));
  CHECK(c.await(request("other", "p/j")).error().code == errc::invalid);
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
  c.await(c->update_task(id, task("first", run_state::succeeded, 1, 0, "", noon + 1s, noon + 2s)));
  c.await(c->update_task(id, task("second", run_state::running, 1, {}, "", noon + 2s, {})));
  c.await(c->update_task(id, task("second", run_state::failed, 1, 3, "exit code 3", noon + 2s, noon + 3s)));
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

  const std::vector<task_record> end{task("second", run_state::succeeded, 2, 0, "", noon + 9s, noon + 10s)};
  auto follower = a_run("p", "after");
  follower.upstream_run = id;
  c.await(c->finish_run({.run = id,
                         .state = run_state::succeeded,
                         .at = noon + 10s,
                         .tasks = end,
                         .dependents = {{.run = follower}}}));
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
  c.await(c->update_task(id, task("first", run_state::running, 1, {}, "", noon, {})));
  c.await(c->finish_run({.run = id, .state = run_state::cancelled, .reason = "by request", .at = noon + 1s}));
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
      c.await(c->finish_run({.run = id,
                             .state = run_state::succeeded,
                             .at = noon,
                             .dependents = {{.run = a_run()}, {.run = follower}}})));
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
    c.await(c->extend_input(n.run.id, to, to - from, {"p", "j", "topic:t", from, to}));
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
          c.await(c->finish_run({.run = id, .state = to, .at = noon, .dependents = {{.run = a_run()}}}));
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
  c.await(c->update_task(id, task("first", run_state::succeeded, 1, 0, "", noon, noon)));
  const auto before = dump(c);
  const auto throws = [&c](asio::awaitable<void> work) {
    CHECK_THROWS_AS(c.await(std::move(work)), std::logic_error);
  };
  throws(c->start_attempt("no such run", 1, noon));
  throws(c->finish_run({.run = "no such run", .state = run_state::failed, .at = noon}));
  throws(c->finish_run({.run = id, .state = run_state::running, .at = noon}));
  throws(c->set_waiting(id, run_state::failed, "", {}));
  throws(c->update_task(id, task("no such task", run_state::running, 1, {}, "", {}, {})));
  throws(c->update_task(id, task("first", run_state::failed, 1, 1, "", noon, noon)));
  throws(c->update_task(over, task("first", run_state::running, 1, {}, "", noon, {})));
  throws(c->finish_run({.run = id,
                        .state = run_state::failed,
                        .at = noon,
                        .tasks = {task("first", run_state::failed, 1, 1, "", noon, noon)}}));
  throws(c->extend_input(id, 5, 5, {"p", "j", "topic:t", 0, 5}));
  auto r = a_run();
  r.state = run_state::skipped;  // without an end
  throws(c->create_runs({{.run = r}}));
  CHECK(dump(c) == before);
}
