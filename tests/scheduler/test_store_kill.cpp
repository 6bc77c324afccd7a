// state.db against kill -9 of another process of this very program that makes runs as fast as it can; what it left is
// then opened again and has to add up.
#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <random>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/ulid.hpp"
#include "tests/scheduler/store_control.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

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
      run_end end{.run = id, .state = run_state::succeeded, .at = wall_now()};
      end.dependents = std::move(followers);
      co_await s.finish_run(std::move(end));
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
    for (const auto& r : c.await(c->recover(wall_now())).unfinished) CHECK(r.state == run_state::queued);
  }
}
