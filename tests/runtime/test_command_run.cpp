// How a program starts and ends: exit codes, reasons, what it sees of the daemon.
#include <algorithm>
#include <fstream>
#include <regex>
#include <signal.h>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/runtime/command_world.hpp"

namespace test_command_run {

using namespace penstock;
using namespace penstock::testing;

TEST_CASE("command: a silent success leaves no log", "[command_run]") {
  world w;
  auto options = w.sh("");
  options.definition.run = {"/bin/true"};
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.ok());
  CHECK(outcome.end == command_end::exited);
  CHECK(outcome.reason.empty());
  CHECK_FALSE(outcome.forced);
  CHECK_FALSE(std::filesystem::exists(w.dir / "logs"));
}

TEST_CASE("command: exit codes and signals", "[command_run]") {
  world w;
  auto outcome = w.run(w.sh("exit 3"));
  CHECK(outcome.end == command_end::exited);
  CHECK(outcome.exit_code == 3);
  CHECK(outcome.reason == "exit code 3");
  CHECK_FALSE(outcome.ok());

  outcome = w.run(w.sh("ulimit -c 0; kill -SEGV $$"));
  CHECK(outcome.end == command_end::signalled);
  CHECK(outcome.signal == SIGSEGV);
  CHECK(outcome.reason == "killed by SIGSEGV");
  CHECK_FALSE(outcome.forced);
  CHECK_FALSE(outcome.ok());
}

TEST_CASE("command: stdout and stderr are in the log, in lines", "[command_run]") {
  world w;
  CHECK(w.run(w.sh("echo one; echo two >&2; printf three")).ok());
  const auto log = w.log();
  CHECK(contains(log, " o one\n"));
  CHECK(contains(log, " e two\n"));
  CHECK(contains(log, " o three\n"));
}

TEST_CASE("command: the program sees its folder, its environment and nothing else", "[command_run]") {
  world w;
  std::ofstream(w.dir / "password") << "hush\n";
  auto options = w.sh("");
  options.definition.run = {"env"};  // found through the PATH it is given
  options.definition.environment = {{"SECRET", "${file:" + (w.dir / "password").string() + "}"},
                                    {"LAID_OVER", "new"}};
  options.environment.insert({{"PENSTOCK_RUN_ID", "R"}, {"LAID_OVER", "old"}, {"REFERENCE", "${env:HOME}"}});
  CHECK(w.run(std::move(options)).ok());
  const auto log = w.log();
  CHECK(std::count(log.begin(), log.end(), '\n') == 5);
  CHECK(contains(log, " o SECRET=hush\n"));
  CHECK(contains(log, " o LAID_OVER=new\n"));
  CHECK(contains(log, " o PENSTOCK_RUN_ID=R\n"));
  CHECK(contains(log, " o REFERENCE=${env:HOME}\n"));  // only the definition's values are resolved

  CHECK(
      w
          .run(w.sh(
              "pwd -P; ls -l /proc/self/fd | grep -c '[0-9] -> '; grep -E '^Sig(Blk|Ign)' /proc/self/status"))
          .ok());
  const auto second = w.log().substr(log.size());
  CHECK(contains(second, " o " + std::filesystem::canonical(w.dir / "work").string() + "\n"));
  CHECK(contains(second, " o 4\n"));  // 0, 1, 2 and the one that ls reads
  CHECK(contains(second, "SigBlk:\t0000000000000000\n"));
  // Although the daemon ignores SIGPIPE. (glibc's posix_spawn ignores its own two real-time signals, the
  // highest digits.)
  CHECK(std::regex_search(second, std::regex("SigIgn:\\t[0-9a-f]{8}[08]0000000\n")));
}

TEST_CASE("command: a secret without a value is a reason, and nothing starts", "[command_run]") {
  world w;
  auto options = w.sh("touch started");
  options.definition.environment = {{"KEY", "${file:/nowhere/at/all}"}};
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK(contains(outcome.reason, "/nowhere/at/all"));
  CHECK_FALSE(std::filesystem::exists(w.dir / "work" / "started"));
}

TEST_CASE("command: what waits for its permit is ready, and leaves no trace when that is withdrawn", "[command_run]") {
  world w;
  const auto on = w.strand();
  const auto permit = std::make_shared<start_permit>(on);
  auto options = w.sh("echo started; touch started");
  options.permit = permit;
  options.collects_output = true;
  options.scratch = w.dir / "scratch";
  const auto run = w.make(std::move(options), on);
  auto ended = w.start(*run);
  const auto is_ready = [&w] { return std::filesystem::exists(w.dir / "scratch") && !std::filesystem::is_empty(w.dir / "scratch"); };
  while (!is_ready()) std::this_thread::yield();
  CHECK_FALSE(run->pid());
  SECTION("granted") {
    permit->grant();
    CHECK(ended.get().ok());
    CHECK(contains(w.log(), " o started\n"));
    CHECK_FALSE(permit->withdraw());
  }
  SECTION("withdrawn") {
    CHECK(permit->withdraw());
    permit->grant();  // too late
    CHECK(ended.get().end == command_end::cancelled);
    CHECK_FALSE(std::filesystem::exists(w.dir / "work" / "started"));
    CHECK_FALSE(std::filesystem::exists(w.dir / "logs"));
  }
  CHECK(std::filesystem::is_empty(w.dir / "scratch"));
}

TEST_CASE("command: what keeps it from starting is told only once it may start", "[command_run]") {
  world w;
  const bool granted = GENERATE(true, false);
  const auto on = w.strand();
  auto options = w.sh("true");
  options.definition.environment = {{"KEY", "${file:/nowhere/at/all}"}};
  options.permit = std::make_shared<start_permit>(on);
  if (granted) {
    options.permit->grant();
  } else {
    options.permit->withdraw();
  }
  const auto outcome = w.run(std::move(options), on);
  CHECK(outcome.end == (granted ? command_end::not_started : command_end::cancelled));
  CHECK(std::filesystem::exists(w.dir / "logs") == granted);
}

// Method: the strand is kept busy between the two, so that the run hears of both at once.
TEST_CASE("command: cancelled right after it was let go, it is ended as one that runs", "[command_run]") {
  world w;
  const auto on = w.strand();
  const auto permit = std::make_shared<start_permit>(on);
  auto options = w.sh("trap 'echo told; exit 0' TERM; touch started; while :; do sleep 0.01; done");
  options.permit = permit;
  options.collects_output = true;
  options.scratch = w.dir / "scratch";
  const auto run = w.make(std::move(options), on);
  auto ended = w.start(*run);
  while (!std::filesystem::exists(w.dir / "scratch") || std::filesystem::is_empty(w.dir / "scratch")) std::this_thread::yield();
  std::promise<void> busy, go_on;
  asio::post(on, [&busy, waits = go_on.get_future().share()] {
    busy.set_value();
    waits.wait();
  });
  busy.get_future().get();
  permit->grant();
  run->cancel();
  while (!std::filesystem::exists(w.dir / "work" / "started")) std::this_thread::yield();
  go_on.set_value();
  const auto outcome = ended.get();
  CHECK(outcome.end == command_end::cancelled);
  CHECK_FALSE(outcome.forced);
  CHECK(contains(w.log(), " o told\n"));
}

TEST_CASE("command: what cannot be started says why", "[command_run]") {
  world w;
  std::filesystem::create_directories(w.dir / "work" / "folder");
  const auto file = [&](const std::string& name) { return w.dir / "work" / name; };
  write_file(file("plain"), "echo hello", 0755);
  write_file(file("closed"), "#!/bin/sh\n", 0644);
  write_file(file("orphaned"), "#! /no/such/interpreter -x\n", 0755);
  write_file(file("misread"), "#!" + file("closed").string() + "\n", 0755);
  struct {
    std::vector<std::string> run;
    std::string says;
  } const cases[] = {
      {{"no-such-program"}, "command not found: 'no-such-program' is in no folder of PATH"},
      {{""}, "command not found"},
      {{"./missing"}, "command not found: ./missing"},
      {{"/no/such/file"}, "command not found: /no/such/file"},
      {{"./closed"}, "not executable: ./closed lacks the permission"},
      {{"closed"}, "not executable: "},
      {{"./folder"}, "not executable: ./folder is a folder"},
      {{"./plain"}, "not executable: ./plain has no #! line"},
      {{"./orphaned"}, "./orphaned: its interpreter /no/such/interpreter does not exist"},
      {{"./misread"}, "is not executable"},
      {{"./plain/inside"}, "command not found: ./plain/inside"},
      {{"/bin/true", std::string(3 << 20, 'x')}, "too long"},
  };
  for (const auto& c : cases) {
    auto options = w.sh("");
    options.definition.run = c.run;
    options.environment["PATH"] = "/bin:" + (w.dir / "work").string();
    const auto outcome = w.run(std::move(options));
    INFO(c.run.front() << " -> " << outcome.reason);
    CHECK(outcome.end == command_end::not_started);
    CHECK(contains(outcome.reason, c.says));
    CHECK(contains(w.log(), " - " + outcome.reason.substr(0, 20)));
  }
}

TEST_CASE("command: the folder it should start in", "[command_run]") {
  world w;
  auto options = w.sh("true");
  options.workdir = w.dir / "gone";
  auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK(outcome.reason == "the working directory " + (w.dir / "gone").string() + " does not exist");

  options = w.sh("");
  options.definition.run = {"relative/program"};
  options.workdir = w.dir / "gone";
  CHECK(contains(w.run(std::move(options)).reason, "the working directory"));

  options = w.sh("true");
  options.workdir = write_file(w.dir / "file", "", 0644);
  CHECK(contains(w.run(std::move(options)).reason, "is not a folder"));
}

TEST_CASE("command: a program beside the data is found from its folder", "[command_run]") {
  world w;
  write_file(w.dir / "work" / "hello.sh", "#!/bin/sh\necho \"hello from $0\"\n", 0755);
  auto options = w.sh("");
  options.definition.run = {"./hello.sh"};
  CHECK(w.run(std::move(options)).ok());
  CHECK(contains(w.log(), " o hello from ./hello.sh\n"));

  options = w.sh("");
  options.definition.run = {"hello.sh"};
  options.environment["PATH"] = "/bin:";  // an empty part is the working directory
  CHECK(w.run(std::move(options)).ok());
}

// Method: the limit of open files rises by one for each run, so that each place that needs one fails once.
TEST_CASE("command: out of descriptors at any point, it leaves no process", "[command_run]") {
  world w;
  CHECK(w.run(w.sh("exit 0")).ok());  // what is opened once for all is open
  rlimit usual{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &usual) == 0);
  const int free_one = ::dup(0);
  ::close(free_one);
  int succeeded = 0;
  for (rlim_t limit = static_cast<rlim_t>(free_one); limit < static_cast<rlim_t>(free_one) + 16; ++limit) {
    const rlimit lowered{limit, usual.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &lowered);
    const auto outcome = w.run(w.sh("echo $$ >&2; tail -f /dev/null & exit 0"));
    ::setrlimit(RLIMIT_NOFILE, &usual);
    INFO(limit - static_cast<rlim_t>(free_one) << ": " << outcome.reason);
    CHECK(outcome.ok() == outcome.reason.empty());
    CHECK(no_children());
    succeeded += outcome.ok() ? 1 : 0;
  }
  CHECK(succeeded > 0);
  CHECK(succeeded < 16);
}

TEST_CASE("command: two hundred at once, each with its own end", "[command_run]") {
  world w;
  std::vector<std::shared_ptr<command_run>> runs;
  std::vector<std::future<command_outcome>> ends;
  for (int i = 0; i < 200; ++i) {
    auto options = w.sh("echo I am " + std::to_string(i) + "; tail -f /dev/null & exit " + std::to_string(i));
    options.log = w.dir / "logs" / "R" / (std::to_string(i) + ".log");
    runs.push_back(w.make(std::move(options)));
    ends.push_back(w.start(*runs.back()));
  }
  for (int i = 0; i < 200; ++i) {
    CHECK(ends[static_cast<std::size_t>(i)].get().exit_code == i);
    CHECK(contains(w.log(std::to_string(i)), " o I am " + std::to_string(i) + "\n"));
  }
}

}  // namespace test_command_run
