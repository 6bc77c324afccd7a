// Control groups: in a plain folder (what is written where) and, where this machine lets us, in real ones.
#include <cstdlib>
#include <fstream>
#include <future>
#include <signal.h>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/cgroup.hpp"
#include "runtime/run_limits.hpp"
#include "tests/runtime/command_world.hpp"

namespace test_cgroup {

using namespace penstock;
using namespace penstock::testing;
namespace fs = std::filesystem;

namespace {

// A folder that looks like a group with these controllers.
void pretend(const fs::path& base, const std::string& controllers) {
  fs::create_directories(base);
  std::ofstream(base / "cgroup.controllers") << controllers << "\n";
  std::ofstream(base / "cgroup.procs") << "1\n";
}

// A real group of our own to make others in; empty path: this machine has none for us.
class real_base {
 public:
  real_base() {
    for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      if (!fs::exists(fs::path(mount) / "cgroup.controllers")) continue;
      const auto own = own_cgroup(read_file("/proc/self/cgroup")).value_or("/");
      const fs::path folder = fs::path(mount + own) / ("penstock-test-" + std::to_string(::getpid()));
      if (::mkdir(folder.c_str(), 0755) != 0) continue;
      path = folder;
      return;
    }
    WARN("skipped: no cgroup v2 that we may use");
  }
  ~real_base() {
    if (!path.empty()) CHECK(::rmdir(path.c_str()) == 0);
  }
  fs::path path;
};

int count_groups(const fs::path& base) {
  int count = 0;
  for (const auto& inside : fs::directory_iterator(base))
    count += inside.path().filename().string().starts_with("run-") ? 1 : 0;
  return count;
}

}  // namespace

TEST_CASE("cgroup: our own", "[cgroup]") {
  CHECK(own_cgroup("12:cpu:/x\n0::/system.slice/penstock.service\n") == "/system.slice/penstock.service");
  CHECK(own_cgroup("0::/\n") == "/");
  CHECK_FALSE(own_cgroup("12:cpu:/x\n"));
  CHECK_FALSE(own_cgroup(""));
}

TEST_CASE("cgroup: none, and why", "[cgroup]") {
  temp_dir dir;
  std::ofstream(dir / "own") << "0::/unit\n";
  auto tree = cgroup_tree::of_this_process(dir / "mount", dir / "own");
  REQUIRE_FALSE(tree.has_value());
  CHECK(tree.error().detail == "there is no cgroup v2 at " + (dir / "mount").string());
  CHECK_FALSE(cgroup_tree::of_this_process(dir.path(), dir / "missing").has_value());

  pretend(dir / "mount", "memory");
  tree = cgroup_tree::of_this_process(dir / "mount", dir / "own");
  REQUIRE_FALSE(tree.has_value());
  CHECK(contains(tree.error().detail, "/mount/unit: No such file or directory"));
}

TEST_CASE("cgroup: controllers are asked for, limits are written", "[cgroup]") {
  temp_dir dir;
  std::ofstream(dir / "own") << "0::/unit/daemon\n";  // systemd has put us into a leaf already
  pretend(dir / "mount", "memory");
  pretend(dir / "mount" / "unit", "cpuset cpu io memory hugetlb pids");
  auto tree = cgroup_tree::of_this_process(dir / "mount", dir / "own");
  REQUIRE(tree.has_value());
  const fs::path base = dir / "mount" / "unit";
  CHECK(fs::is_directory(base / "daemon"));
  CHECK((*tree)->limits_memory());
  CHECK((*tree)->limits_cpus());
  CHECK((*tree)->limits_processes());
  CHECK(read_file(base / "cgroup.procs") == "1\n");  // not us: nothing moves

  auto group = (*tree)->make_group("p/run/01ABC/the task", {.memory = 64 << 20, .cpus = 0.5, .processes = 10});
  REQUIRE(group.has_value());
  const fs::path folder = (*group)->folder();
  CHECK(folder == base / "run-p-run-01ABC-the-task-1");
  CHECK(read_file(folder / "memory.max") == "67108864");
  CHECK(read_file(folder / "memory.swap.max") == "0");
  CHECK(read_file(folder / "memory.oom.group") == "1");
  CHECK(read_file(folder / "cpu.max") == "50000 100000");
  CHECK(read_file(folder / "pids.max") == "10");
  CHECK((*group)->memory_kills() == 0);
  std::ofstream(folder / "memory.events") << "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
  std::ofstream(folder / "pids.events") << "max 7\n";
  CHECK((*group)->memory_kills() == 2);
  CHECK((*group)->refused_processes() == 7);
  CHECK((*group)->members(10).empty());
}

TEST_CASE("cgroup: a tiny share of a processor is the least that there is", "[cgroup]") {
  temp_dir dir;
  pretend(dir / "base", "cpu");
  auto tree = cgroup_tree::make(dir / "base");
  REQUIRE(tree.has_value());
  CHECK_FALSE((*tree)->limits_memory());
  auto group = (*tree)->make_group("x", {.cpus = 0.0001});
  REQUIRE(group.has_value());
  CHECK(read_file((*group)->folder() / "cpu.max") == "1000 100000");
  CHECK_FALSE(fs::exists((*group)->folder() / "memory.max"));
}

// The kernel shares processors between groups first: one of the usual weight would stand beside the daemon as its equal.
TEST_CASE("cgroup: a group weighs what the niceness of its program says", "[cgroup]") {
  temp_dir dir;
  pretend(dir / "base", "cpu memory");
  auto tree = cgroup_tree::make(dir / "base");
  REQUIRE(tree.has_value());
  const auto weight = [&](int of_thread, int own) {
    return std::async(std::launch::async, [&, of_thread, own] {
             ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), of_thread);
             config::resource_limits wanted;
             wanted.memory = 64 << 20;
             const run_limits made(wanted, own, tree->get(), "x");
             return read_file(made.group()->folder() / "cpu.weight.nice");
           }).get();
  };
  const int ours = ::getpriority(PRIO_PROCESS, 0);  // what the daemon has counts for all
  const int batch = std::min(ours + 10, 19);
  CHECK(weight(batch, 0) == std::to_string(batch - ours));
  CHECK(weight(batch, 5) == std::to_string(batch - ours + 5));
  CHECK(weight(19, 30) == "19");
  CHECK(weight(ours, 0).empty());  // a live flow's: as it is made
}

TEST_CASE("cgroup: the reason of a run that the kernel killed for its memory", "[cgroup]") {
  world w;
  pretend(w.dir / "base", "memory pids");
  auto tree = cgroup_tree::make(w.dir / "base");
  REQUIRE(tree.has_value());
  auto options = w.sh("echo oom_kill 3 > ../base/run-p-run-R-main-1/memory.events; kill -KILL $$");
  options.cgroups = tree->get();
  options.definition.process.limits.memory = 64 << 20;
  options.definition.process.limits.cpus = 2;
  auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::signalled);
  CHECK(outcome.reason == "killed: over its memory limit of 64MiB");
  CHECK(contains(w.log(), " - it is not limited to 2 cpus: this daemon was not given that controller\n"));

  options = w.sh("ulimit -v; echo max 2 > ../base/run-p-run-R-main-2/pids.events; exit 1");
  options.cgroups = tree->get();
  options.definition.process.limits.memory = 64 << 20;
  options.definition.process.limits.processes = 10;
  outcome = w.run(std::move(options));
  CHECK(outcome.reason == "exit code 1; its limit of 10 processes was reached");
  CHECK(contains(w.log(), " o unlimited\n"));
}

TEST_CASE("cgroup: where none can be made, processes are limited one by one", "[cgroup]") {
  world w;
  pretend(w.dir / "base", "memory");
  auto tree = cgroup_tree::make(w.dir / "base");
  REQUIRE(tree.has_value());
  fs::rename(w.dir / "base", w.dir / "gone");
  auto options = w.sh("ulimit -v; exit 1");
  options.cgroups = tree->get();
  options.definition.process.limits.memory = 512 << 20;
  const auto outcome = w.run(std::move(options));
  CHECK(contains(outcome.reason, "exit code 1; memory limited to 512MiB for each process (no cgroup)"));
  CHECK(contains(w.log(), " o 524288\n"));
}

// ---- real ones ----------------------------------------------------------------------------------

TEST_CASE("cgroup: a program is in its group, and the group goes with it", "[cgroup]") {
  const real_base base;
  if (base.path.empty()) return;
  world w;
  auto tree = cgroup_tree::make(base.path);
  REQUIRE(tree.has_value());
  auto options = w.sh("cat /proc/self/cgroup");
  options.cgroups = tree->get();
  options.definition.process.limits.processes = 50;
  const auto outcome = w.run(std::move(options));
  INFO(outcome.reason);
  CHECK(outcome.ok());
  CHECK(contains(w.log(), "/penstock-test-" + std::to_string(::getpid()) + "/run-p-run-R-main-1\n"));
  tree->reset();
  CHECK(count_groups(base.path) == 0);
}

TEST_CASE("cgroup: the kernel takes the weight", "[cgroup]") {
  const real_base base;
  if (base.path.empty()) return;
  auto tree = cgroup_tree::make(base.path);
  REQUIRE(tree.has_value());
  if (!(*tree)->limits_cpus()) {
    WARN("skipped: the cpu controller is not ours to use");
    return;
  }
  auto group = (*tree)->make_group("x", {.niceness = 10});
  REQUIRE(group.has_value());
  CHECK(read_file((*group)->folder() / "cpu.weight.nice") == "10\n");
}

TEST_CASE("cgroup: whoever leaves the process group and hides its environment ends with it", "[cgroup]") {
  const real_base base;
  if (base.path.empty()) return;
  world w;
  fifo ready(w.dir / "ready");
  auto tree = cgroup_tree::make(base.path);
  REQUIRE(tree.has_value());
  const bool stubborn = GENERATE(false, true);
  auto options = w.sh("env -i setsid /bin/sh -c \"" + std::string(stubborn ? "trap '' TERM; " : "") + "echo \\$\\$ > " +
                      ready.path() + "; /usr/bin/tail -f /dev/null & wait; wait\" & read x < " + ready.path() +
                      "; echo $x > pid");
  options.cgroups = tree->get();
  options.definition.process.limits.processes = 50;
  options.grace = stubborn ? 50ms : 10s;
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.forced == stubborn);
  CHECK(contains(w.log(), "behind outside its group: sending SIGTERM\n"));
  CHECK(contains(outcome.reason, stubborn ? "that had left its group had to be killed after 50ms grace" : ""));
  CHECK(::kill(std::stoi(read_file(w.dir / "work" / "pid")), 0) != 0);
  tree->reset();
  CHECK(count_groups(base.path) == 0);
}

TEST_CASE("cgroup: what a killed daemon left in its groups is gone at the next start", "[cgroup]") {
  const real_base base;
  if (base.path.empty()) return;
  const fs::path left = base.path / "run-left-1";
  REQUIRE(::mkdir(left.c_str(), 0755) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    std::ofstream(left / "cgroup.procs") << "0";
    ::execlp("tail", "tail", "-f", "/dev/null", nullptr);
    ::_exit(1);
  }
  while (read_file(left / "cgroup.procs").empty()) {
  }
  auto tree = cgroup_tree::make(base.path);
  CHECK(tree.has_value());
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  tree->reset();
  CHECK(count_groups(base.path) == 0);
}

TEST_CASE("cgroup: the daemon moves to a leaf, and back at its end", "[cgroup]") {
  const real_base base;
  if (base.path.empty()) return;
  const pid_t daemon = ::fork();
  if (daemon == 0) {
    std::ofstream(base.path / "cgroup.procs") << "0" << std::flush;
    const std::string inside = base.path.filename().string();
    bool moved = false, back = false;
    {
      auto tree = cgroup_tree::make(base.path);
      moved = tree.has_value() && contains(read_file("/proc/self/cgroup"), inside + "/daemon\n");
    }
    back = contains(read_file("/proc/self/cgroup"), inside + "\n");
    ::_exit((moved ? 1 : 0) + (back ? 2 : 0));
  }
  int status = 0;
  CHECK(::waitpid(daemon, &status, 0) == daemon);
  CHECK(WEXITSTATUS(status) == 3);
}

TEST_CASE("cgroup: a hundred at once", "[cgroup]") {
  const real_base base;
  if (base.path.empty()) return;
  world w;
  auto tree = cgroup_tree::make(base.path);
  REQUIRE(tree.has_value());
  std::vector<std::shared_ptr<command_run>> runs;
  std::vector<std::future<command_outcome>> ends;
  for (int i = 0; i < 100; ++i) {
    auto options = w.sh("tail -f /dev/null & exit " + std::to_string(i));
    options.log = w.dir / "logs" / (std::to_string(i) + ".log");
    options.cgroups = tree->get();
    options.definition.process.limits.processes = 50;
    runs.push_back(w.make(std::move(options)));
    ends.push_back(w.start(*runs.back()));
  }
  for (int i = 0; i < 100; ++i) CHECK(ends[static_cast<std::size_t>(i)].get().exit_code == i);
  runs.clear();
  tree->reset();
  CHECK(count_groups(base.path) == 0);
}

// Needs a machine whose v2 tree has the memory controller.
TEST_CASE("cgroup: over its memory limit", "[cgroup]") {
  const real_base base;
  if (base.path.empty()) return;
  auto tree = cgroup_tree::make(base.path);
  REQUIRE(tree.has_value());
  if (!(*tree)->limits_memory()) {
    WARN("skipped: the memory controller is not in cgroup v2 here");
    return;
  }
  world w;
  auto options = w.sh("exec python3 -c 'x = bytearray(300 << 20)'");
  options.cgroups = tree->get();
  options.definition.process.limits.memory = 64 << 20;
  CHECK(w.run(std::move(options)).reason == "killed: over its memory limit of 64MiB");
}

}  // namespace test_cgroup
