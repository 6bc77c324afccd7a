// As whom, where and within which bounds a program runs. Tests that need privileges or control groups say so where
// there are none.
#include <fstream>
#include <grp.h>
#include <pwd.h>
#include <regex>
#include <signal.h>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/runtime/command_world.hpp"

namespace test_command_settings {

using namespace penstock;
using namespace penstock::testing;

namespace {

// A user that every machine has.
constexpr const char* other_user = "nobody";

bool skipped_without_root() {
  if (::geteuid() == 0) return false;
  WARN("skipped: only root can run programs as other users");
  return true;
}

// World's folders, for a user that is not ours.
void open_to_all(world& w) {
  ::chmod(w.dir.path().c_str(), 0755);
  ::chmod((w.dir / "work").c_str(), 0777);
}

}  // namespace

// ---- as whom ------------------------------------------------------------------------------------

TEST_CASE("command: runs as another user, in its groups alone", "[command_settings]") {
  if (skipped_without_root()) return;
  world w;
  open_to_all(w);
  const passwd* user = ::getpwnam(other_user);
  REQUIRE(user);
  auto options = w.sh("id -u; id -g; id -G; id -ru; grep CapEff /proc/self/status; echo $HOME $USER $LOGNAME; "
                      "echo mine > made");
  options.environment["HOME"] = "/ours";
  options.definition.process.user = other_user;
  const std::string home = user->pw_dir, uid = std::to_string(user->pw_uid), gid = std::to_string(user->pw_gid);
  const auto outcome = w.run(std::move(options));
  INFO(outcome.reason);
  CHECK(outcome.ok());
  const auto log = w.log();
  CHECK(contains(log, " o " + uid + "\n"));
  CHECK(contains(log, " o " + gid + "\n"));
  CHECK_FALSE(contains(log, " o 0"));
  CHECK(contains(log, " o CapEff:\t0000000000000000\n"));
  CHECK(contains(log, " o " + home + " nobody nobody\n"));
  struct stat made {};
  REQUIRE(::stat((w.dir / "work" / "made").c_str(), &made) == 0);
  CHECK(std::to_string(made.st_uid) == uid);
  CHECK(::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);  // as before: see spawn.cpp
  CHECK(::geteuid() == 0);  // and we are still who we were
  CHECK(::getegid() == 0);
}

TEST_CASE("command: user and group by number, with the environment that the definition wants", "[command_settings]") {
  if (skipped_without_root()) return;
  world w;
  open_to_all(w);
  auto options = w.sh("id -u; id -g; id -G; echo $HOME");
  options.definition.process.user = "54321";
  options.definition.process.group = "12345";
  options.definition.environment = {{"HOME", "/elsewhere"}};
  const auto outcome = w.run(std::move(options));
  INFO(outcome.reason);
  CHECK(outcome.ok());
  CHECK(std::regex_search(w.log(), std::regex(" o 54321\n.* o 12345\n.* o 12345\n.* o /elsewhere\n")));
}

TEST_CASE("command: a group alone leaves the user", "[command_settings]") {
  if (skipped_without_root()) return;
  world w;
  auto options = w.sh("id -u; id -g");
  options.definition.process.group = "12345";
  CHECK(w.run(std::move(options)).ok());
  CHECK(std::regex_search(w.log(), std::regex(" o 0\n.* o 12345\n")));
}

TEST_CASE("command: who there is not", "[command_settings]") {
  world w;
  auto options = w.sh("touch started");
  options.definition.process.user = "no-such-user";
  auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK(outcome.reason == "there is no user 'no-such-user'");

  options = w.sh("touch started");
  options.definition.process.group = "no-such-group";
  CHECK(w.run(std::move(options)).reason == "there is no group 'no-such-group'");

  options = w.sh("touch started");
  options.definition.process.user = "54321";
  CHECK(w.run(std::move(options)).reason == "there is no user '54321' to tell its group: give one");

  options = w.sh("touch started");
  options.definition.process.user = "4294967295";  // "no change" to the kernel
  CHECK(w.run(std::move(options)).reason == "there is no user '4294967295'");
  CHECK_FALSE(std::filesystem::exists(w.dir / "work" / "started"));
}

// Method: the system call, other than glibc's function, changes the calling thread alone.
TEST_CASE("start_process: who may not become another user is told so", "[command_settings]") {
  const std::vector<std::string> arguments{"/bin/true"};
  const std::map<std::string, std::string> environment;
  const std::filesystem::path folder = "/";
  auto as = find_identity("daemon", "");
  REQUIRE(as.has_value());
  std::string said;
  errc code{};
  std::thread powerless([&] {
    if (::geteuid() == 0) ::syscall(SYS_setresuid, 65534, 65534, 65534);
    const auto started = start_process({.arguments = arguments,
                                        .environment = environment,
                                        .folder = folder,
                                        .in = null_device(),
                                        .out = null_device(),
                                        .err = null_device(),
                                        .as = &*as});
    if (!started) {
      said = started.error().detail;
      code = started.error().code;
    }
  });
  powerless.join();
  CHECK(said == "cannot become user 'daemon': Operation not permitted");
  CHECK(code == errc::forbidden);
  CHECK(no_children());
}

TEST_CASE("command: what another user may not do says so", "[command_settings]") {
  if (skipped_without_root()) return;
  world w;  // its folder is ours alone
  auto options = w.sh("true");
  options.definition.process.user = other_user;
  auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK(outcome.reason ==
        "the working directory " + (w.dir / "work").string() + " may not be entered by user 'nobody'");

  open_to_all(w);
  write_file(w.dir / "work" / "private", "#!/bin/sh\n", 0700);
  options = w.sh("");
  options.definition.run = {"./private"};
  options.definition.process.user = other_user;
  CHECK(w.run(std::move(options)).reason == "not executable: ./private may not be used by user 'nobody'");
}

TEST_CASE("command: naming our own user changes nothing", "[command_settings]") {
  world w;
  auto options = w.sh("id -u");
  options.definition.process.user = std::to_string(::geteuid());
  CHECK(w.run(std::move(options)).ok());
  CHECK(contains(w.log(), " o " + std::to_string(::geteuid()) + "\n"));
}

// ---- where and how ------------------------------------------------------------------------------

TEST_CASE("command: its own folder, below the pipeline's or anywhere", "[command_settings]") {
  world w;
  std::filesystem::create_directories(w.dir / "work" / "inner");
  auto options = w.sh("pwd -P");
  options.definition.process.workdir = "inner";
  CHECK(w.run(std::move(options)).ok());
  CHECK(contains(w.log(), " o " + std::filesystem::canonical(w.dir / "work" / "inner").string() + "\n"));

  options = w.sh("pwd -P");
  options.definition.process.workdir = "/";
  CHECK(w.run(std::move(options)).ok());
  CHECK(contains(w.log(), " o /\n"));

  options = w.sh("pwd -P");
  options.definition.process.workdir = "missing";
  CHECK(w.run(std::move(options)).reason ==
        "the working directory " + (w.dir / "work" / "missing").string() + " does not exist");
}

TEST_CASE("command: umask, niceness and I/O priority", "[command_settings]") {
  world w;
  const int ours = ::getpriority(PRIO_PROCESS, 0);
  auto options = w.sh("umask; nice; ionice");
  options.definition.process.umask = 027;
  options.definition.process.nice = 5;
  options.definition.process.io = config::io_class::idle;
  CHECK(w.run(std::move(options)).ok());
  CHECK(std::regex_search(w.log(), std::regex(" o 0027\n.* o " + std::to_string(std::min(ours + 5, 19)) +
                                              "\n.* o idle\n")));
  options = w.sh("nice; ionice");
  options.definition.process.nice = 19;
  options.definition.process.io = config::io_class::best_effort;
  CHECK(w.run(std::move(options)).ok());
  CHECK(std::regex_search(w.log(), std::regex(" o 19\n.* o best-effort: prio 4\n")));
  CHECK(::getpriority(PRIO_PROCESS, 0) == ours);
}

// ---- limits -------------------------------------------------------------------------------------

TEST_CASE("command: open files, file size and CPU time are limited", "[command_settings]") {
  world w;
  auto options = w.sh("ulimit -n; ulimit -Hn; ulimit -f; ulimit -t; ulimit -Ht");
  options.definition.process.limits.open_files = 100;
  options.definition.process.limits.file_size = 1 << 20;
  options.definition.process.limits.cpu_time = 7s;
  CHECK(w.run(std::move(options)).ok());
  CHECK(std::regex_search(w.log(), std::regex(" o 100\n.* o 100\n.* o 2048\n.* o 7\n.* o 8\n")));  // blocks of 512
}

TEST_CASE("command: fewer files than it is given itself", "[command_settings]") {
  world w;
  auto options = w.sh("echo here");
  options.definition.process.limits.open_files = 1;
  w.run(std::move(options));  // however far it comes: it is started, and its end is known
  options = w.sh("");
  options.definition.run = {"/bin/true"};
  options.definition.process.limits.open_files = std::int64_t{1} << 40;  // beyond the kernel's own limit
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK(outcome.reason == "cannot limit open files to 1099511627776: Operation not permitted");
}

TEST_CASE("command: over its file size", "[command_settings]") {
  world w;
  auto options = w.sh("exec head -c 5000 /dev/zero > big");
  options.definition.process.limits.file_size = 4096;
  auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::signalled);
  CHECK(outcome.signal == SIGXFSZ);
  CHECK(outcome.reason == "killed: over its file_size of 4KiB");
  CHECK(std::filesystem::file_size(w.dir / "work" / "big") == 4096);

  options = w.sh("head -c 5000 /dev/zero > big; exit $?");
  options.definition.process.limits.file_size = 4096;
  CHECK(w.run(std::move(options)).reason == "exit code 153: a process of it was over its file_size of 4KiB");
}

TEST_CASE("command: over its CPU time", "[command_settings]") {
  world w;
  auto options = w.sh("while :; do :; done");
  options.definition.process.limits.cpu_time = 1s;
  auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::signalled);
  CHECK(outcome.signal == SIGXCPU);
  CHECK(outcome.reason == "killed: over its cpu_time of 1s");

  options = w.sh("trap '' XCPU; while :; do :; done");
  options.definition.process.limits.cpu_time = 1s;
  outcome = w.run(std::move(options));
  CHECK(outcome.signal == SIGKILL);
  CHECK(outcome.reason == "killed: over its cpu_time of 1s");
}

TEST_CASE("command: without control groups memory is limited for each process, and it is told", "[command_settings]") {
  world w;
  auto options = w.sh("exec python3 -c 'x = bytearray(300 << 20)'");
  options.definition.process.limits.memory = 200 << 20;
  auto outcome = w.run(std::move(options));
  CHECK(outcome.exit_code == 1);
  CHECK(std::regex_match(outcome.reason, std::regex("exit code 1; memory limited to 200MiB for each process \\(no "
                                                    "cgroup\\)(: its peak was \\d+MiB)?")));
  CHECK(contains(w.log(), "MemoryError"));

  options = w.sh("exec python3 -c 'x = bytearray(150 << 20); raise SystemExit(2)'");
  options.definition.process.limits.memory = 300 << 20;
  outcome = w.run(std::move(options));
  INFO(outcome.reason);
  // Unless this program is that big itself, as with a sanitizer.
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  if (usage.ru_maxrss < 120 << 10) CHECK(contains(outcome.reason, "its peak was 15"));

  options = w.sh("exit 0");
  options.definition.process.limits.memory = 300 << 20;
  CHECK(w.run(std::move(options)).reason.empty());
}

TEST_CASE("command: without control groups cpus are not limited, and it is told", "[command_settings]") {
  world w;
  auto options = w.sh("exit 0");
  options.definition.process.limits.cpus = 0.5;
  CHECK(w.run(std::move(options)).ok());
  CHECK(contains(w.log(), " - it is not limited to 0.5 cpus: this daemon may not make control groups\n"));
}

// RLIMIT_NPROC counts all of a user's processes, and root's not at all.
TEST_CASE("command: without control groups processes are limited for the user", "[command_settings]") {
  if (skipped_without_root()) return;
  world w;
  open_to_all(w);
  auto options = w.sh("tail -f /dev/null & tail -f /dev/null & tail -f /dev/null & tail -f /dev/null & echo went on");
  options.definition.process.user = std::to_string(1'000'000 + ::getpid());  // nobody else's
  options.definition.process.group = "54321";
  options.definition.process.limits.processes = 3;
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::exited);
  CHECK(outcome.exit_code == 2);  // dash: cannot fork
  CHECK_FALSE(contains(w.log(), "went on"));
}

// ---- $PENSTOCK_OUTPUT ---------------------------------------------------------------------------

TEST_CASE("command: leaves values for others in $PENSTOCK_OUTPUT", "[command_settings]") {
  world w;
  struct {
    std::string script, output, says;
  } const cases[] = {
      {"exit 0", "", ""},
      {"echo rows=12 > $PENSTOCK_OUTPUT", R"({"rows":"12"})", ""},
      {R"(printf '{"rows": 12}' > $PENSTOCK_OUTPUT)", R"({"rows":12})", ""},
      {"echo a=1 >> $PENSTOCK_OUTPUT; echo b=2 >> $PENSTOCK_OUTPUT; exit 4", R"({"a":"1","b":"2"})", "exit code 4"},
      {"echo oops > $PENSTOCK_OUTPUT", "", "what it wrote to $PENSTOCK_OUTPUT has a line 1 that is not name=value"},
      {"head -c 70000 /dev/zero > $PENSTOCK_OUTPUT", "", "what it wrote to $PENSTOCK_OUTPUT is longer than 64KiB"},
      {"echo '{]' > $PENSTOCK_OUTPUT; exit 5", "",
       "exit code 5; what it wrote to $PENSTOCK_OUTPUT is not a JSON object: "},
      {"rm $PENSTOCK_OUTPUT", "", ""},
      {"rm $PENSTOCK_OUTPUT; mkfifo $PENSTOCK_OUTPUT", "", "what it wrote to $PENSTOCK_OUTPUT is not a file any more"},
      {"rm $PENSTOCK_OUTPUT; ln -s /etc/passwd $PENSTOCK_OUTPUT", "", "what it wrote to $PENSTOCK_OUTPUT cannot be read"},
      {"echo a=1 > next; mv next $PENSTOCK_OUTPUT", R"({"a":"1"})", ""},
      {"stat -c %a,%s $PENSTOCK_OUTPUT; exit 6", "", "exit code 6"},
  };
  for (const auto& c : cases) {
    auto options = w.sh(c.script);
    options.collects_output = true;
    options.scratch = w.dir / "scratch";
    const auto outcome = w.run(std::move(options));
    INFO(c.script << " -> " << outcome.reason);
    CHECK(outcome.output == c.output);
    CHECK(outcome.reason.substr(0, c.says.size()) == c.says);
    CHECK(outcome.ok() == c.says.empty());
    CHECK(std::filesystem::is_empty(w.dir / "scratch"));
  }
  CHECK(contains(w.log(), " o 600,0\n"));
}

TEST_CASE("command: $PENSTOCK_OUTPUT of another user", "[command_settings]") {
  if (skipped_without_root()) return;
  world w;
  open_to_all(w);
  auto options = w.sh("echo by=$(id -un) > $PENSTOCK_OUTPUT; ls $(dirname $PENSTOCK_OUTPUT)");
  options.collects_output = true;
  options.scratch = w.dir / "scratch";
  options.definition.process.user = other_user;
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.output == R"({"by":"nobody"})");
  CHECK(outcome.exit_code == 2);  // it may not see what others have there
}

TEST_CASE("command: what was never started leaves no file", "[command_settings]") {
  world w;
  auto options = w.sh("");
  options.definition.run = {"no-such-program"};
  options.collects_output = true;
  options.scratch = w.dir / "scratch";
  CHECK(w.run(std::move(options)).end == command_end::not_started);
  CHECK(std::filesystem::is_empty(w.dir / "scratch"));

  options = w.sh("exit 0");
  options.collects_output = true;
  options.scratch = write_file(w.dir / "file", "", 0600) + "/below";
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK_FALSE(outcome.reason.empty());
}

}  // namespace test_command_settings
