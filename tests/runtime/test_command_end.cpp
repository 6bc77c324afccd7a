// Graceful ends, timeouts and cancels: TERM, grace, KILL, and nobody is left.
#include <fstream>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/runtime/command_world.hpp"

namespace test_command_end {

using namespace penstock;
using namespace penstock::testing;

TEST_CASE("command: TERM ignored by it and its children: all are gone after the grace", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto options = w.sh("trap '' TERM; tail -f /dev/null & tail -f /dev/null & echo $$ > " + ready.path() + "; wait; wait");
  options.grace = 100ms;
  auto run = w.make(std::move(options));
  auto ended = w.start(*run);
  const auto pid = ready.read_line();
  run->cancel();
  const auto outcome = ended.get();
  CHECK(outcome.end == command_end::cancelled);
  CHECK(outcome.signal == SIGKILL);
  CHECK(outcome.forced);
  CHECK(outcome.reason ==
        "cancelled; ended by SIGKILL; 3 processes of its group had to be killed after 100ms grace");
  CHECK(group_is_gone(pid));
  CHECK(contains(w.log(), " - cancelled: sending SIGTERM\n"));
  CHECK(contains(w.log(), " - sending SIGKILL to 3 processes after 100ms grace\n"));
}

TEST_CASE("command: it takes SIGTERM and ends in its own way", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  // Busy, because a shell that is just forking loses the SIGTERM of the child.
  auto run = w.make(
      w.sh("trap 'echo cleaned up; exit 7' TERM; echo $$ > " + ready.path() + "; while :; do :; done"));
  auto ended = w.start(*run);
  const auto pid = ready.read_line();
  run->cancel();
  const auto outcome = ended.get();
  CHECK(outcome.end == command_end::cancelled);
  CHECK(outcome.exit_code == 7);
  CHECK_FALSE(outcome.forced);
  CHECK(outcome.reason == "cancelled; exit code 7");
  CHECK(contains(w.log(), " o cleaned up\n"));
  CHECK(group_is_gone(pid));
}

TEST_CASE("command: end of input comes before SIGTERM", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  // SIGTERM is ignored: only the end of its input can end it.
  auto options = w.sh("trap '' TERM; echo up > " + ready.path() + "; cat; echo input ended");
  made_source::record record;
  const auto strand = w.strand();
  auto input = std::make_unique<made_source>(record, strand, 2, 10);
  input->endless();
  options.input = std::move(input);
  auto run = w.make(std::move(options), strand);
  auto ended = w.start(*run);
  ready.read_line();
  run->cancel();
  const auto outcome = ended.get();
  CHECK(outcome.end == command_end::cancelled);
  CHECK(outcome.exit_code == 0);
  CHECK_FALSE(outcome.forced);
  CHECK(contains(w.log(), " o input ended\n"));
}

TEST_CASE("command: a stopped process wakes up for its end", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto run = w.make(w.sh("echo $$ > " + ready.path() + "; exec tail -f /dev/null"));
  auto ended = w.start(*run);
  const pid_t pid = std::stoi(ready.read_line());
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  siginfo_t stopped{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(pid), &stopped, WSTOPPED) == 0);
  run->cancel();
  const auto outcome = ended.get();
  CHECK(outcome.signal == SIGTERM);
  CHECK_FALSE(outcome.forced);
}

TEST_CASE("command: a stopped process that ignores SIGTERM is killed", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto options = w.sh("trap '' TERM; echo $$ > " + ready.path() + "; exec tail -f /dev/null");
  options.grace = 0s;
  auto run = w.make(std::move(options));
  auto ended = w.start(*run);
  const pid_t pid = std::stoi(ready.read_line());
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  siginfo_t stopped{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(pid), &stopped, WSTOPPED) == 0);
  run->cancel();
  const auto outcome = ended.get();
  CHECK(outcome.signal == SIGKILL);
  CHECK(outcome.forced);
}

TEST_CASE("command: the timeout counts from the spawn", "[command_run]") {
  world w;
  auto options = w.sh("tail -f /dev/null & tail -f /dev/null");
  options.timeout = 50ms;
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::timed_out);
  CHECK(outcome.signal == SIGTERM);
  CHECK(outcome.reason == "timed out after 50ms; ended by SIGTERM");
  CHECK_FALSE(outcome.ok());

  options = w.sh("exit 0");
  options.timeout = std::chrono::nanoseconds::max();
  CHECK(w.run(std::move(options)).ok());
}

TEST_CASE("command: a timeout that is over at once", "[command_run]") {
  world w;
  auto options = w.sh("trap '' TERM; while :; do :; done");
  options.timeout = 0ns;
  options.grace = 0s;
  CHECK(w.run(std::move(options)).end == command_end::timed_out);
}

TEST_CASE("command: what it leaves in its group ends with it", "[command_run]") {
  world w;
  // A child, and a grandchild whose parent has gone.
  const auto outcome = w.run(w.sh("echo $$ > pid; tail -f /dev/null & (tail -f /dev/null & exit 0); exit 0"));
  CHECK(outcome.ok());
  CHECK_FALSE(outcome.forced);
  CHECK(outcome.reason.empty());
  CHECK(contains(w.log(), "left 2 processes of its group behind: sending SIGTERM\n"));
  std::string pid;
  std::getline(std::ifstream(w.dir / "work" / "pid"), pid);
  CHECK(group_is_gone(pid));
}

TEST_CASE("command: what it leaves in its group and ignores SIGTERM is killed", "[command_run]") {
  world w;
  auto options = w.sh("echo $$ > pid; trap '' TERM; for i in 1 2 3 4 5; do tail -f /dev/null & done; exit 4");
  options.grace = 50ms;
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::exited);
  CHECK(outcome.exit_code == 4);
  CHECK(outcome.forced);
  CHECK(outcome.reason == "exit code 4; 5 processes of its group had to be killed after 50ms grace");
  std::string pid;
  std::getline(std::ifstream(w.dir / "work" / "pid"), pid);
  CHECK(group_is_gone(pid));
}

TEST_CASE("command: zombies of its group do not stay", "[command_run]") {
  world w;
  // Two hundred orphans end while their group's leader runs on; they are this process's to reap.
  CHECK(w.run(w.sh("i=0; while [ $i -lt 200 ]; do (true & exit 0); i=$((i+1)); done")).ok());
}

TEST_CASE("command: the last words of the background are in the log", "[command_run]") {
  world w;
  CHECK(w.run(w.sh("(trap 'echo last words; exit' TERM; echo up > up; while :; do :; done) & while [ ! -s up "
                   "]; do :; done"))
            .ok());
  CHECK(contains(w.log(), " o last words\n"));
}

TEST_CASE("command: cancelled before it was started, it never starts", "[command_run]") {
  world w;
  auto run = w.make(w.sh("touch started"));
  run->cancel();
  const auto outcome = w.start(*run).get();
  CHECK(outcome.end == command_end::cancelled);
  CHECK_FALSE(outcome.ok());
  CHECK(outcome.reason == "cancelled before it was started");
  CHECK_FALSE(std::filesystem::exists(w.dir / "work" / "started"));
}

TEST_CASE("command: cancelled after its end, or twice, or with nobody left to know", "[command_run]") {
  world w;
  auto run = w.make(w.sh("exit 0"));
  CHECK(w.start(*run).get().ok());
  run->cancel();
  run->cancel();
  run.reset();
}

TEST_CASE("command: cancelled at any moment it ends, and leaves nothing", "[command_run]") {
  world w;
  for (int i = 0; i < 100; ++i) {
    auto run = w.make(w.sh("tail -f /dev/null & exec tail -f /dev/null"));
    auto ended = w.start(*run);
    for (int wait = 0; wait < i * 20; ++wait) std::this_thread::yield();
    run->cancel();
    REQUIRE(ended.get().end == command_end::cancelled);
  }
}

}  // namespace test_command_end
