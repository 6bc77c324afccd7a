// A program whose process is made before it may start: it waits, and is its owner's to let go or to end.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <vector>

#include <boost/asio/thread_pool.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include "runtime/process.hpp"
#include "runtime/start_permit.hpp"
#include "tests/runtime/command_world.hpp"
#include "tests/temp_dir.hpp"

namespace penstock::testing::test_process_launch {

using namespace penstock::runtime;

namespace {

// What a launch refers to.
struct program {
  explicit program(std::vector<std::string> words, std::filesystem::path in_folder = "/")
      : arguments(std::move(words)), folder(std::move(in_folder)) {}

  process_start start() const {
    return {.arguments = arguments,
            .environment = environment,
            .folder = folder,
            .in = null_device(),
            .out = null_device(),
            .err = null_device()};
  }

  const std::vector<std::string> arguments;
  const std::map<std::string, std::string> environment{{"PATH", "/usr/bin:/bin"}};
  const std::filesystem::path folder;
};

struct permits {
  asio::thread_pool pool{1};
  start_permit one{pool.get_executor()};
};

// proc(5): the third to fifth field.
struct process_place {
  char state = 0;
  pid_t parent = 0, group = 0;
};

process_place place_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  process_place found;
  const auto name_end = text.rfind(')');
  if (name_end != text.npos) std::sscanf(text.c_str() + name_end + 1, " %c %d %d", &found.state, &found.parent, &found.group);
  return found;
}

// Children that lead a group of their own and sleep: as long as no program runs, those that wait.
std::vector<pid_t> waiting_children() {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    const pid_t pid = std::stoi(name);
    const process_place place = place_of(pid);
    if (place.parent == ::getpid() && place.group == pid && place.state == 'S') found.push_back(pid);
  }
  return found;
}

pid_t await_waiting() {
  for (;;) {
    if (const auto found = waiting_children(); !found.empty()) return found.front();
    std::this_thread::yield();
  }
}

}  // namespace

TEST_CASE("process launch: its process waits, and becomes the program when it is let go", "[process_launch]") {
  const temp_dir folder;
  const program touch({"touch", "started"}, folder.path());
  permits permit;
  process_launch launch(touch.start(), &permit.one);
  const pid_t waiting = await_waiting();
  CHECK_FALSE(std::filesystem::exists(folder.path() / "started"));
  CHECK(std::filesystem::read_symlink(fmt::format("/proc/{}/exe", waiting)) == std::filesystem::read_symlink("/proc/self/exe"));
  permit.one.grant();
  auto started = launch.finish();
  REQUIRE(started.has_value());
  CHECK(started->pid == waiting);
  const auto end = reap(started->pid);
  REQUIRE(end);
  CHECK_FALSE(end->by_signal);
  CHECK(end->number == 0);
  CHECK(std::filesystem::exists(folder.path() / "started"));
  CHECK(no_children());
}

TEST_CASE("process launch: let go before it has come to its wait", "[process_launch]") {
  const program nothing({"true"});
  permits permit;
  permit.one.grant();
  process_launch launch(nothing.start(), &permit.one);
  auto started = launch.finish();
  REQUIRE(started.has_value());
  CHECK(reap(started->pid)->number == 0);
  CHECK(no_children());
}

TEST_CASE("process launch: nothing is left of one that is not let go", "[process_launch]") {
  const temp_dir folder;
  const program touch({"touch", "started"}, folder.path());
  const bool waits = GENERATE(true, false);
  const bool withdrawn = GENERATE(true, false);
  permits permit;
  {
    process_launch launch(touch.start(), &permit.one);
    if (waits) await_waiting();
    if (withdrawn) permit.one.withdraw();
  }
  CHECK_FALSE(std::filesystem::exists(folder.path() / "started"));
  CHECK(no_children());
}

TEST_CASE("process launch: why it cannot be is told when it is let go", "[process_launch]") {
  const temp_dir folder;
  const auto text_of = [](const program& what) {
    permits permit;
    process_launch launch(what.start(), &permit.one);
    permit.one.grant();
    const auto started = launch.finish();
    CHECK_FALSE(started.has_value());
    return started ? std::string() : started.error().detail;
  };
  std::ofstream(folder.path() / "text") << "hello";
  std::filesystem::permissions(folder.path() / "text", std::filesystem::perms::owner_all);
  CHECK(text_of(program({"no-such-program"})) == "command not found: 'no-such-program' is in no folder of PATH");
  CHECK(text_of(program({"/bin/true"}, folder.path() / "none")) ==
        "the working directory " + (folder.path() / "none").string() + " does not exist");
  CHECK(text_of(program({"./text"}, folder.path())) == "not executable: ./text has no #! line and is not a program of this machine");
  CHECK(text_of(program({"/bin/true", std::string(1 << 20, 'x')})) == "its arguments and environment are too long");
  CHECK(no_children());
}

TEST_CASE("process launch: a process that is killed while it waits has ended by that", "[process_launch]") {
  const program nothing({"true"});
  permits permit;
  process_launch launch(nothing.start(), &permit.one);
  ::kill(await_waiting(), SIGKILL);
  permit.one.grant();
  auto started = launch.finish();
  REQUIRE(started.has_value());
  const auto end = reap(started->pid);
  REQUIRE(end);
  CHECK(end->by_signal);
  CHECK(end->number == SIGKILL);
}

// Method: the signals that a machine's tools send to all that look like penstockd, as a child that waits does.
TEST_CASE("process launch: what was sent to it while it waited is not the program's", "[process_launch]") {
  const int signal = GENERATE(SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM, SIGUSR1);
  const program nothing({"true"});
  permits permit;
  process_launch launch(nothing.start(), &permit.one);
  ::kill(await_waiting(), signal);
  permit.one.grant();
  auto started = launch.finish();
  REQUIRE(started.has_value());
  const auto end = reap(started->pid);
  REQUIRE(end);
  CHECK_FALSE(end->by_signal);
  CHECK(end->number == 0);
}

TEST_CASE("process launch: one that somebody stops while it waits goes on when it is let go", "[process_launch]") {
  const program nothing({"true"});
  permits permit;
  process_launch launch(nothing.start(), &permit.one);
  const pid_t waiting = await_waiting();
  ::kill(waiting, SIGSTOP);
  while (place_of(waiting).state != 'T') std::this_thread::yield();
  permit.one.grant();
  auto started = launch.finish();
  REQUIRE(started.has_value());
  CHECK(reap(started->pid)->number == 0);
}

TEST_CASE("process launch: one that is stopped and not let go is gone all the same", "[process_launch]") {
  const program nothing({"true"});
  permits permit;
  {
    process_launch launch(nothing.start(), &permit.one);
    const pid_t waiting = await_waiting();
    ::kill(waiting, SIGSTOP);
    while (place_of(waiting).state != 'T') std::this_thread::yield();
  }
  CHECK(no_children());
}

TEST_CASE("process launch: a program does not end with the thread that made its process", "[process_launch]") {
  const temp_dir folder;
  const program waits({"sh", "-c", "until [ -e go ]; do :; done; exit 3"}, folder.path());
  permits permit;
  pid_t pid = 0;
  std::thread maker([&] {
    process_launch launch(waits.start(), &permit.one);
    await_waiting();
    permit.one.grant();
    auto started = launch.finish();
    if (started) pid = started->pid;
  });
  maker.join();
  std::ofstream(folder.path() / "go");
  const auto end = reap(pid);
  REQUIRE(end);
  CHECK_FALSE(end->by_signal);
  CHECK(end->number == 3);
}

TEST_CASE("process launch: without descriptors there is no process, and that is told when it is let go", "[process_launch]") {
  const program nothing({"/bin/true"});
  permits permit;
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  null_device();
  std::string why;
  {
    ::setrlimit(RLIMIT_NOFILE, &none);
    process_launch launch(nothing.start(), &permit.one);
    ::setrlimit(RLIMIT_NOFILE, &before);
    permit.one.grant();
    const auto started = launch.finish();
    if (!started) why = started.error().detail;
  }
  CHECK(why == "cannot start /bin/true: Too many open files");
  CHECK(no_children());
}

TEST_CASE("process launch: who may wait", "[process_launch]") {
  const program nothing({"true"});
  process_start how = nothing.start();
  CHECK(process_launch::may_wait(how));
  const identity somebody{.uid = 1, .gid = 1, .is_ours = false};
  how.as = &somebody;
  CHECK_FALSE(process_launch::may_wait(how));
  process_start limited = nothing.start();
  limited.cgroup = null_device();  // the kernel may have to kill a member of a group, and with it who shares its memory
  CHECK_FALSE(process_launch::may_wait(limited));
}

// Whoever made it is gone, so nobody would ever let it go: as when the daemon is killed.
TEST_CASE("process launch: a process that waits ends with the thread that made it", "[process_launch]") {
  const program nothing({"true"});
  permits permit;
  std::unique_ptr<process_launch> launch;
  pid_t waiting = 0;
  std::thread maker([&] {
    launch = std::make_unique<process_launch>(nothing.start(), &permit.one);
    waiting = await_waiting();
  });
  maker.join();
  siginfo_t how{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(waiting), &how, WEXITED | WNOWAIT) == 0);
  CHECK(how.si_status == SIGKILL);
  launch.reset();
  CHECK(no_children());
}

// Nobody else's errno: its system calls that fail (it resets signals that cannot be reset) are its own.
TEST_CASE("process launch: the thread that made it goes on undisturbed", "[process_launch]") {
  const program nothing({"true"});
  int changed = 0;
  for (int i = 0; i < 200; ++i) {
    permits permit;
    process_launch launch(nothing.start(), &permit.one);
    errno = ENOTSUP;
    const auto latest = std::chrono::steady_clock::now() + std::chrono::microseconds(300);
    while (std::chrono::steady_clock::now() < latest) changed += errno != ENOTSUP ? 1 : 0;
  }
  CHECK(changed == 0);
  CHECK(no_children());
}

TEST_CASE("process launch: many wait at once, and each becomes its own program", "[process_launch]") {
  constexpr int count = 64, rounds = 5;
  std::vector<program> programs;
  for (int i = 0; i < count; ++i) programs.emplace_back(std::vector<std::string>{"sh", "-c", fmt::format("exit {}", i)});
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::unique_ptr<permits>> permit;
    std::vector<std::unique_ptr<process_launch>> launches;
    for (const program& one : programs) {
      permit.push_back(std::make_unique<permits>());
      launches.push_back(std::make_unique<process_launch>(one.start(), &permit.back()->one));
    }
    std::thread lets_go([&] {
      for (auto one = permit.rbegin(); one != permit.rend(); ++one) (*one)->one.grant();
    });
    for (int i = 0; i < count; ++i) {
      auto started = launches[static_cast<std::size_t>(i)]->finish();
      REQUIRE(started.has_value());
      CHECK(reap(started->pid)->number == i);
    }
    lets_go.join();
  }
  CHECK(no_children());
}

}  // namespace penstock::testing::test_process_launch
