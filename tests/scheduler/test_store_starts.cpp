// Starts of attempts that are stored late, or only with the end of the run: whatever the order, the rows are those of a
// start that was stored in time.
#include <catch2/catch.hpp>

#include "tests/runtime/file_size_limit.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::testing;
using namespace std::chrono_literals;

namespace {

const attempt_start start{1, noon + 1s};

run_end end_of(const std::string& id, run_state state) {
  run_end e{.run = id, .state = state, .reason = "because", .at = noon + 3s};
  e.tasks = {task("first", run_state::succeeded, 1, 0, "", noon + 1s, noon + 2s),
             task("second", state, 1, 3, "exit code 3", noon + 2s, noon + 3s)};
  e.started = start;
  return e;
}

// What became of a run, but for its id.
std::string story(control& c, const std::string& id) {
  const auto r = c->run(id).value();
  std::string all = std::string(token(r.state)) + " " + r.reason + " attempt " + std::to_string(r.attempt) + " " +
                    format_time(r.started_at.value()) + " " + format_time(r.ended_at.value());
  for (const auto& t : r.tasks) {
    all += "; " + t.name + " " + std::string(token(t.state)) + " " + std::to_string(t.attempt) + " " +
           format_time(t.started_at.value()) + " " + format_time(t.ended_at.value());
  }
  for (const auto& entry : c->timeline(id)) all += "\n" + format_time(entry.at) + " " + entry.what + " " + entry.detail;
  return all;
}

}  // namespace

TEST_CASE("store: a new run says when it is durable, and only then", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  std::vector<std::string> told;
  const auto telling = [&](const std::string& name, std::optional<idempotency> once = {}) {
    new_run made{.run = a_run(), .once = std::move(once)};
    made.durable = [&told, name] { told.push_back(name); };
    return made;
  };
  c.await(c->create_run(telling("alone")));
  c.await(c->create_runs({telling("first of two"), telling("second of two")}));
  const idempotency once{"key", "p/j", "same"};
  c.await(c->create_run(telling("once", once)));
  c.await(c->create_run(telling("again", once)));                           // exists already
  c.await(c->create_run(telling("other", idempotency{"key", "p/j", "x"})));  // refused
  auto twice = telling("twice");
  CHECK_THROWS(c.await(c->create_runs({twice, twice})));
  CHECK(told == std::vector<std::string>{"alone", "first of two", "second of two", "once"});
}

TEST_CASE("store: a start that comes with the end, before it or after it gives the same rows", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  for (const auto state : {run_state::succeeded, run_state::failed, run_state::cancelled, run_state::timed_out}) {
    const auto in_time = make(c, a_run());
    c.await(c->start_attempt(in_time, start.attempt, start.at));
    auto only_end = end_of(in_time, state);
    only_end.started.reset();
    c.await(c->finish_run(std::move(only_end)));

    const auto with_end = make(c, a_run());
    c.await(c->finish_run(end_of(with_end, state)));

    const auto before_end = make(c, a_run());
    c.await(c->start_attempts({{before_end, start}}));
    c.await(c->finish_run(end_of(before_end, state)));

    const auto after_end = make(c, a_run());
    c.await(c->finish_run(end_of(after_end, state)));
    c.await(c->start_attempts({{after_end, start}}));

    CHECK(story(c, with_end) == story(c, in_time));
    CHECK(story(c, before_end) == story(c, in_time));
    CHECK(story(c, after_end) == story(c, in_time));
  }
  CHECK(counts_are_right(c));
}

TEST_CASE("store: late starts are for what is queued", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  std::vector<late_start> all;
  for (const auto state : {run_state::running, run_state::retrying, run_state::succeeded, run_state::failed,
                           run_state::cancelled, run_state::timed_out, run_state::skipped}) {
    all.push_back({in_state(c, state), start});
  }
  const auto before = dump(c);
  c.await(c->start_attempts(all));
  CHECK(dump(c) == before);
  const auto queued = make(c, a_run());
  all.push_back({queued, start});
  c.await(c->start_attempts(all));
  CHECK(c->run(queued)->state == run_state::running);
  CHECK(c->run(queued)->attempt == 1);
  CHECK(c->run(queued)->started_at == start.at);
}

TEST_CASE("store: a run that never started cannot end as if it had", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  const auto id = make(c, a_run());
  auto end = end_of(id, run_state::succeeded);
  end.started.reset();
  CHECK_THROWS_AS(c.await(c->finish_run(std::move(end))), std::logic_error);
  CHECK(c->run(id)->state == run_state::queued);
}

TEST_CASE("store: it fails from a commit that failed to one that did not", "[store]") {
  const temp_dir dir;
  control c(dir / "state.db");
  CHECK_FALSE(c->failing());
  {
    const file_size_limit full(1000);
    CHECK_THROWS(make(c, a_run()));
    CHECK(c->failing());
  }
  make(c, a_run());
  CHECK_FALSE(c->failing());
}
