// Processes that leave the group of the program that they come from, and those that nobody waits for.
#include <fstream>
#include <regex>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/runtime/command_world.hpp"

namespace test_command_strays {

using namespace penstock;
using namespace penstock::testing;

TEST_CASE("command: who left the group is not waited for, and found by the instance", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  // It keeps stdout and stderr open. (Its children do not: tail ends when nobody reads what it prints.)
  auto options = w.sh("setsid sh -c 'echo $$ > " + ready.path() +
                      "; tail -f /dev/null > /dev/null & tail -f /dev/null > /dev/null' & read x < " + ready.path() +
                      "; echo $x");
  options.environment["PENSTOCK_INSTANCE"] = "test-" + std::to_string(::getpid());
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.ok());
  CHECK_FALSE(no_children());
  CHECK(kill_orphans("test-" + std::to_string(::getpid()) + "0") == 0);
  const int killed = kill_orphans("test-" + std::to_string(::getpid()));
  CHECK(killed >= 1);
  CHECK(killed <= 3);
  CHECK(kill_orphans("test-" + std::to_string(::getpid())) == 0);
  reap_strays();
}

TEST_CASE("command: orphans are killed by group, though some hide their environment", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto options = w.sh("trap '' TERM; env -i /usr/bin/tail -f /dev/null & echo $$ > " + ready.path() + "; wait; wait");
  options.environment["PENSTOCK_INSTANCE"] = "other-" + std::to_string(::getpid());
  auto run = w.make(std::move(options));
  auto ended = w.start(*run);
  const auto pid = ready.read_line();
  CHECK(kill_orphans("other-" + std::to_string(::getpid())) >= 1);
  const auto outcome = ended.get();
  CHECK_FALSE(outcome.ok());
  CHECK(group_is_gone(pid));
}

TEST_CASE("command: strays are reaped, other children are not", "[command_run]") {
  world w;
  CHECK(w.run(w.sh("setsid true & wait")).ok());
  const pid_t own = ::fork();
  if (own == 0) ::_exit(5);
  siginfo_t ended{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(own), &ended, WEXITED | WNOWAIT) == 0);
  reap_strays();
  int status = 0;
  CHECK(::waitpid(own, &status, WNOHANG) == own);
  CHECK(WEXITSTATUS(status) == 5);
}


namespace {

// As the scheduler marks a task.
command_options marked(world& w, const std::string& script, const std::string& run = "R1") {
  auto options = w.sh(script);
  options.environment["PENSTOCK_INSTANCE"] = "strays-" + std::to_string(::getpid());
  options.environment["PENSTOCK_RUN_ID"] = run;
  options.environment["PENSTOCK_TASK"] = "main";
  return options;
}

}  // namespace

TEST_CASE("command: what made itself a daemon ends with its task", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  // A double fork with a session of its own, with a child in yet another one.
  const auto outcome = w.run(marked(w, "setsid sh -c 'setsid tail -f /dev/null & (echo $$; echo $!) > pids; echo up > " +
                                           ready.path() + "; wait' & read x < " + ready.path()));
  CHECK(outcome.ok());
  CHECK_FALSE(outcome.forced);
  CHECK(contains(w.log(), " - it left 1 process behind outside its group: sending SIGTERM\n"));
  std::ifstream pids(w.dir / "work" / "pids");
  for (pid_t pid; pids >> pid;) CHECK(::kill(pid, 0) != 0);
  CHECK(no_children());
}

TEST_CASE("command: what made itself a daemon and ignores SIGTERM is killed", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto options = marked(w, "setsid sh -c \"trap '' TERM; echo up > " + ready.path() +
                               "; while :; do tail -f /dev/null; done\" & read x < " + ready.path() + "; exit 3");
  options.grace = 50ms;
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.exit_code == 3);
  CHECK(outcome.forced);
  CHECK(std::regex_match(outcome.reason,
                         std::regex("exit code 3; [1-9]\\d* processe?s? that had left its group had to be killed after "
                                    "50ms grace")));
  CHECK(no_children());
}

TEST_CASE("command: the daemons of other runs are left alone", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready"), go(w.dir / "go");
  auto other = w.make(marked(w, "(setsid sh -c 'echo $$ > " + ready.path() + "; exec tail -f /dev/null' &); read x < " +
                                    go.path(), "R2"));
  auto other_ended = w.start(*other);
  const pid_t pid = std::stoi(ready.read_line());
  CHECK(w.run(marked(w, "exit 0", "R1")).ok());
  CHECK(w.run(w.sh("exit 0")).ok());
  CHECK(::kill(pid, 0) == 0);
  go.let_go();
  CHECK(other_ended.get().ok());
  CHECK(::kill(pid, 0) != 0);
}

TEST_CASE("command: a thousand zombies go with it", "[command_run]") {
  world w;
  // Half of them are its own, which it never waits for; the others are orphans out of its group.
  CHECK(w.run(marked(w, "exec python3 -c '\nimport os\nfor i in range(1000):\n  if os.fork() == 0:\n"
                        "    if i % 2 == 0 and os.fork() > 0: os._exit(0)\n"
                        "    if i % 2 == 0: os.setsid()\n"
                        "    os._exit(0)\n'"))
            .ok());
  CHECK(no_children());
}

}  // namespace test_command_strays
