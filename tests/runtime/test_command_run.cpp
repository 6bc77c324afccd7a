// Real programs (mostly /bin/sh), real pipes, and a look at the machine afterwards: after each test no child
// of this process may exist. Waiting is for states only: a program says through a FIFO where it is.
#include <algorithm>
#include <fcntl.h>
#include <fstream>
#include <future>
#include <iterator>
#include <mutex>
#include <regex>
#include <signal.h>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/command_run.hpp"
#include "runtime/topic.hpp"
#include "runtime/wakeup.hpp"
#include "runtime/webhooks.hpp"
#include "tests/temp_dir.hpp"

using namespace penstock;
using namespace penstock::runtime;
using penstock::testing::temp_dir;
using namespace std::chrono_literals;

namespace {

// What the test's sink has taken, and how it should behave.
struct sink_record {
  std::mutex mutex;
  std::vector<std::string> ids, payloads;
  std::vector<std::int64_t> positions;
  std::string opened_with = "never";
  bool closed = false;
  std::string fail_at;  // a payload that makes it fail
  std::string refuse;   // a payload that it refuses
};

class recording_sink : public sink {
 public:
  explicit recording_sink(sink_record& record) : record_(record) {}
  asio::awaitable<void> open(const std::string& checkpoint) override {
    record_.opened_with = checkpoint;
    co_return;
  }
  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    std::lock_guard lock(record_.mutex);
    for (const event& e : events->events)
      if (e.data == record_.fail_at) throw std::runtime_error("the other side is down");
    write_result written;
    for (std::size_t i = 0; i < events->size(); ++i) {
      const event& e = events->events[i];
      if (!record_.refuse.empty() && e.data == record_.refuse) {
        written.refused.push_back({i, "not wanted"});
        continue;
      }
      record_.ids.emplace_back(e.id);
      record_.payloads.emplace_back(e.data);
      record_.positions.push_back(e.position);
    }
    written.checkpoint = "after " + std::to_string(record_.payloads.size());
    co_return written;
  }
  asio::awaitable<void> close() override {
    record_.closed = true;
    co_return;
  }

 private:
  sink_record& record_;
};

// `count` events of `bytes` each; then the end, or (endless) it waits until it is stopped.
class made_source : public source {
 public:
  struct record {
    std::int64_t acknowledged = 0;
    bool opened = false;
    std::promise<void> stopped;
    bool stopped_already = false;
  };
  made_source(record& r, const asio::any_io_executor& strand, std::int64_t count, std::size_t bytes)
      : record_(r), count_(count), payload_(bytes - 2, 'x'), wakeup_(std::make_shared<wakeup>(strand)) {
    payload_ = '"' + payload_ + '"';
  }
  made_source& endless() {
    endless_ = true;
    return *this;
  }
  made_source& failing() {
    failing_ = true;
    return *this;
  }

  asio::awaitable<void> open(std::int64_t) override {
    record_.opened = true;
    co_return;
  }
  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    if (next_ > count_ && failing_) throw std::runtime_error("the topic is gone");
    while (next_ > count_ && endless_ && !record_.stopped_already) co_await wakeup_->wait();
    if (next_ > count_ || record_.stopped_already) co_return std::nullopt;
    batch made;
    for (std::size_t i = 0; i < most && next_ <= count_; ++i, ++next_) {
      event e;
      e.id = made.keep(std::to_string(next_));
      e.data = made.keep(payload_);
      e.position = next_;
      made.events.push_back(e);
    }
    co_return made;
  }
  void acknowledge(std::int64_t position) override { record_.acknowledged = position; }
  void stop_input() override {
    if (!std::exchange(record_.stopped_already, true)) record_.stopped.set_value();
    wakeup_->notify();
  }

 private:
  record& record_;
  std::int64_t count_, next_ = 1;
  std::string payload_;
  std::shared_ptr<wakeup> wakeup_;
  bool endless_ = false, failing_ = false;
};

// A FIFO: the test reads what a program wrote into it, and the other way round.
class fifo {
 public:
  explicit fifo(std::filesystem::path path) : path_(std::move(path)) {
    REQUIRE(::mkfifo(path_.c_str(), 0600) == 0);
  }
  std::string path() const { return path_.string(); }
  std::string read_line() const {
    std::ifstream in(path_);
    std::string line;
    std::getline(in, line);
    return line;
  }
  void let_go() const { std::ofstream(path_) << "go\n"; }

 private:
  std::filesystem::path path_;
};

bool no_children() { return ::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD; }

// The daemon around a run.
class world {
 public:
  world()
      : topics_(dir / "topics", asio::make_strand(pool_)),
        flows_(dir / "flows.db", asio::make_strand(pool_)) {
    adopt_orphans();
    ::signal(SIGPIPE, SIG_IGN);
    std::filesystem::create_directories(dir / "work");
    config::component_spec spec;
    spec.kind = config::component_kind::sink;
    spec.name = "recording";
    components.add(std::move(spec),
                   registry::make_sink([this](const config::value&, const component_context&) {
                     return std::make_unique<recording_sink>(sunk);
                   }));
  }
  ~world() {
    CHECK(no_children());
    flows_.close();
    topics_.close();
    pool_.join();
  }

  command_options sh(const std::string& script) {
    command_options options;
    options.definition.run = {"/bin/sh", "-c", script};
    options.pipeline = "p";
    options.consumer = "p/run/R/main";
    options.workdir = dir / "work";
    options.environment = {{"PATH", "/usr/local/bin:/usr/bin:/bin"}};
    options.log = dir / "logs" / "R" / "main.log";
    options.grace = 10s;
    return options;
  }
  command_options sh_to_sink(const std::string& script) {
    auto options = sh(script);
    options.definition.to = config::component_use{"recording", "to", {}};
    return options;
  }
  // A strand for a run and its source.
  asio::any_io_executor strand() { return asio::make_strand(pool_); }
  std::shared_ptr<command_run> make(command_options options, asio::any_io_executor on = {}) {
    return std::make_shared<command_run>(on ? on : strand(), components, offered, std::move(options));
  }
  std::future<command_outcome> start(command_run& run) {
    return asio::co_spawn(pool_, run.run(), asio::use_future);
  }
  command_outcome run(command_options options, asio::any_io_executor on = {}) {
    auto made = make(std::move(options), on);
    return start(*made).get();
  }
  std::string log(const std::string& task = "main") {
    std::ifstream in(dir / "logs" / "R" / (task + ".log"), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  temp_dir dir;
  registry components;
  sink_record sunk;

 private:
  asio::thread_pool pool_{2};
  runtime::topics topics_;
  webhooks webhooks_;
  blocking_pool blocking_{2};

 public:
  flow_store flows_;
  services offered{topics_, flows_, webhooks_, blocking_, {}};
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
bool group_is_gone(const std::string& pid) { return ::kill(-std::stoi(pid), 0) == -1 && errno == ESRCH; }

std::string write_file(const std::filesystem::path& file, const std::string& text, mode_t mode) {
  std::ofstream(file) << text;
  ::chmod(file.c_str(), mode);
  return file.string();
}

}  // namespace

// ---- ends ---------------------------------------------------------------------------------------

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

// ---- graceful end -------------------------------------------------------------------------------

TEST_CASE("command: TERM ignored by it and its children: all are gone after the grace", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto options = w.sh("trap '' TERM; sleep 1000 & sleep 1000 & echo $$ > " + ready.path() + "; wait; wait");
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
  auto run = w.make(w.sh("echo $$ > " + ready.path() + "; exec sleep 1000"));
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
  auto options = w.sh("trap '' TERM; echo $$ > " + ready.path() + "; exec sleep 1000");
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
  auto options = w.sh("sleep 1000 & sleep 1000");
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
  const auto outcome = w.run(w.sh("echo $$ > pid; sleep 1000 & (sleep 1000 & exit 0); exit 0"));
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
  auto options = w.sh("echo $$ > pid; trap '' TERM; for i in 1 2 3 4 5; do sleep 1000 & done; exit 4");
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

TEST_CASE("command: who left the group is not waited for, and found by the instance", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  // It keeps stdout and stderr open.
  auto options = w.sh("setsid sh -c 'echo $$ > " + ready.path() + "; sleep 1000 & sleep 1000' & read x < " +
                      ready.path() + "; echo $x");
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
  auto options = w.sh("trap '' TERM; env -i /bin/sleep 1000 & echo $$ > " + ready.path() + "; wait; wait");
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
    const auto outcome = w.run(w.sh("echo $$ >&2; sleep 1000 & exit 0"));
    ::setrlimit(RLIMIT_NOFILE, &usual);
    INFO(limit - static_cast<rlim_t>(free_one) << ": " << outcome.reason);
    CHECK(outcome.ok() == outcome.reason.empty());
    CHECK(no_children());
    succeeded += outcome.ok() ? 1 : 0;
  }
  CHECK(succeeded > 0);
  CHECK(succeeded < 16);
}

// ---- cancel -------------------------------------------------------------------------------------

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
    auto run = w.make(w.sh("sleep 1000 & exec sleep 1000"));
    auto ended = w.start(*run);
    for (int wait = 0; wait < i * 20; ++wait) std::this_thread::yield();
    run->cancel();
    REQUIRE(ended.get().end == command_end::cancelled);
  }
}

// ---- input --------------------------------------------------------------------------------------

TEST_CASE("command: reads its events as NDJSON until their end", "[command_run]") {
  world w;
  auto options = w.sh("wc -lc; head -c 1 | wc -c");
  made_source::record record;
  const auto strand = w.strand();
  options.input = std::make_unique<made_source>(record, strand, 10'000, 1000);
  CHECK(w.run(std::move(options), strand).ok());
  CHECK(record.opened);
  CHECK(record.acknowledged == 10'000);
  CHECK(contains(w.log(), "10000 10010000\n"));
  CHECK(contains(w.log(), " o 0\n"));
}

TEST_CASE("command: no input is an empty stdin", "[command_run]") {
  world w;
  CHECK(w.run(w.sh("wc -c")).ok());
  CHECK(contains(w.log(), " o 0\n"));
}

TEST_CASE("command: 10 MB that it never reads do not keep it", "[command_run]") {
  world w;
  auto options = w.sh("exit 0");
  made_source::record record;
  const auto strand = w.strand();
  options.input = std::make_unique<made_source>(record, strand, 10'000, 1000);
  CHECK(w.run(std::move(options), strand).ok());
  CHECK(record.acknowledged < 10'000);
  CHECK(record.stopped_already);
}

TEST_CASE("command: it had enough, closes stdin, and works on", "[command_run]") {
  world w;
  fifo go(w.dir / "go");
  auto options = w.sh("head -n 1 > /dev/null; exec <&-; read x < " + go.path() + "; echo went on");
  made_source::record record;
  const auto strand = w.strand();
  options.input = std::make_unique<made_source>(record, strand, 1'000'000, 1000);
  auto run = w.make(std::move(options), strand);
  auto ended = w.start(*run);
  record.stopped.get_future().wait();  // the source is told to stop while the program still runs
  go.let_go();
  CHECK(ended.get().ok());
  CHECK(contains(w.log(), " o went on\n"));
}

TEST_CASE("command: when it ends, an input that waits for more is stopped", "[command_run]") {
  world w;
  auto options = w.sh("head -n 1 > /dev/null");
  made_source::record record;
  const auto strand = w.strand();
  auto input = std::make_unique<made_source>(record, strand, 1, 10);
  input->endless();
  options.input = std::move(input);
  CHECK(w.run(std::move(options), strand).ok());
  CHECK(record.acknowledged == 1);
}

TEST_CASE("command: half an input is no success", "[command_run]") {
  world w;
  auto options = w.sh("cat > /dev/null");
  made_source::record record;
  const auto strand = w.strand();
  auto input = std::make_unique<made_source>(record, strand, 10, 10);
  input->failing();
  options.input = std::move(input);
  const auto outcome = w.run(std::move(options), strand);
  CHECK_FALSE(outcome.ok());
  CHECK(outcome.input_failure == "the topic is gone");
  CHECK(contains(outcome.reason, "its input failed: the topic is gone"));
}

// ---- output -------------------------------------------------------------------------------------

TEST_CASE("command: stdout closed early is no end", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto run = w.make(w.sh("echo before; exec >&- 2>&-; read x < " + ready.path() + "; touch after; exit 6"));
  auto ended = w.start(*run);
  ready.let_go();
  CHECK(ended.get().exit_code == 6);
  CHECK(std::filesystem::exists(w.dir / "work" / "after"));
  CHECK(contains(w.log(), " o before\n"));
}

TEST_CASE("command: 100 MB into a log of 64 KiB", "[command_run]") {
  world w;
  auto options = w.sh("yes 'some line of output' | head -c 100000000; echo end >&2");
  options.log_limit_bytes = 64 << 10;
  CHECK(w.run(std::move(options)).ok());
  const auto log = w.log();
  CHECK(log.size() < (64 << 10) + 300);
  CHECK(contains(log, " - the log's limit of 64KiB is reached: further output is not stored\n"));
  CHECK(contains(log, " of output were not stored\n"));
}

TEST_CASE("command: a flood does not hold up the others", "[command_run]") {
  world w;
  fifo ready(w.dir / "ready");
  auto flood = w.sh("echo $$ > " + ready.path() + "; exec yes");
  flood.log = w.dir / "logs" / "R" / "flood.log";
  flood.log_limit_bytes = 64 << 10;
  auto run = w.make(std::move(flood));
  auto ended = w.start(*run);
  ready.read_line();
  for (int i = 0; i < 50; ++i) CHECK(w.run(w.sh("echo here")).ok());
  run->cancel();
  CHECK(ended.get().end == command_end::cancelled);
}

TEST_CASE("command: everything it printed is there, however it ended", "[command_run]") {
  world w;
  auto options = w.sh("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; kill -KILL $$");
  CHECK(w.run(std::move(options)).signal == SIGKILL);
  const auto log = w.log();
  CHECK(std::count(log.begin(), log.end(), '\n') == 2000);
  CHECK(contains(log, " o line 1999\n"));
}

TEST_CASE("command: its NDJSON goes to the sink, and what is not JSON to the dead letters", "[command_run]") {
  world w;
  w.sunk.refuse = "{\"n\":3}";
  const auto outcome = w.run(w.sh_to_sink(
      R"(echo '{"n":1}'; echo; echo 'not json' ; printf '{"n":3}\r\n'; echo '{"n":'; echo for the log >&2; printf '[4]')"));
  CHECK(outcome.ok());
  CHECK(w.sunk.payloads == std::vector<std::string>{"{\"n\":1}", "[4]"});
  CHECK(w.sunk.ids == std::vector<std::string>{"p/run/R/main:1", "p/run/R/main:6"});
  CHECK(w.sunk.positions == std::vector<std::int64_t>{1, 6});
  CHECK(w.sunk.opened_with.empty());
  CHECK(w.sunk.closed);
  const auto dead = w.flows_.dead_letters({});
  REQUIRE(dead.size() == 3);
  for (const auto& letter : dead) {
    CHECK(letter.consumer == "p/run/R/main");
    CHECK(letter.pipeline == "p");
    CHECK_FALSE(letter.reason.empty());
    CHECK(letter.step == (letter.data == w.sunk.refuse ? "to" : "stdout"));
  }
  CHECK(w.flows_.load("p/run/R/main").position == 6);
  CHECK(contains(w.log(), " e for the log\n"));
  CHECK(contains(w.log(), "3 lines of its output became dead letters\n"));
  CHECK_FALSE(contains(w.log(), " o "));
}

TEST_CASE("command: much output reaches the sink whole and in order", "[command_run]") {
  world w;
  CHECK(w.run(w.sh_to_sink("seq 1 100000")).ok());
  REQUIRE(w.sunk.payloads.size() == 100'000);
  for (std::size_t i = 0; i < w.sunk.payloads.size(); ++i)
    REQUIRE(w.sunk.payloads[i] == std::to_string(i + 1));
}

TEST_CASE("command: a line that is too long is a dead letter, and the next one is fine", "[command_run]") {
  world w;
  CHECK(w.run(w.sh_to_sink("printf '\"'; head -c 3000000 /dev/zero | tr '\\0' x; echo '\"'; echo 2")).ok());
  CHECK(w.sunk.payloads == std::vector<std::string>{"2"});
  const auto dead = w.flows_.dead_letters({});
  REQUIRE(dead.size() == 1);
  CHECK(contains(dead[0].reason, "longer than 1MiB"));
  CHECK(dead[0].data.size() == 1 << 20);
}

TEST_CASE("command: lines that an earlier attempt delivered are not delivered again", "[command_run]") {
  world w;
  CHECK_FALSE(w.run(w.sh_to_sink("seq 1 500; exit 1")).ok());
  CHECK(w.run(w.sh_to_sink("seq 1 1000")).ok());
  CHECK(w.sunk.opened_with == "after 500");
  REQUIRE(w.sunk.payloads.size() == 1000);
  CHECK(w.sunk.payloads.back() == "1000");
  CHECK(contains(w.log(), "500 lines were delivered by an earlier attempt\n"));
}

TEST_CASE("command: a supervised command's numbers never come again", "[command_run]") {
  world w;
  for (int start = 0; start < 3; ++start) {
    auto options = w.sh_to_sink("seq 1 3");
    options.continuous = true;
    CHECK(w.run(std::move(options)).ok());
  }
  CHECK(w.sunk.payloads.size() == 9);
  CHECK(std::is_sorted(w.sunk.positions.begin(), w.sunk.positions.end()));
  CHECK(std::adjacent_find(w.sunk.positions.begin(), w.sunk.positions.end()) == w.sunk.positions.end());
}

TEST_CASE("command: when its sink fails it is ended", "[command_run]") {
  world w;
  w.sunk.fail_at = "2";
  const bool supervised = GENERATE(false, true);
  auto options = w.sh_to_sink("echo 1; echo 2; exec sleep 1000");
  options.continuous = supervised;
  const auto outcome = w.run(std::move(options));
  CHECK_FALSE(outcome.ok());
  CHECK(outcome.output_failure == "the other side is down");
  CHECK(outcome.reason == "its output could not be stored: the other side is down; ended by SIGTERM");
  CHECK(outcome.signal == SIGTERM);
  CHECK_FALSE(w.sunk.closed);
  const auto dead = w.flows_.dead_letters({});
  // A task's next attempt prints the lines again; a supervised command does not, so they are kept (one or two
  // of them: the sink may have got the first alone).
  CHECK(dead.size() == (supervised ? w.sunk.payloads.empty() ? 2u : 1u : 0u));
}

TEST_CASE("command: a sink that fails at the last line makes the run fail", "[command_run]") {
  world w;
  w.sunk.fail_at = "1";
  const auto outcome = w.run(w.sh_to_sink("printf 1"));
  CHECK_FALSE(outcome.ok());
  CHECK(outcome.exit_code == 0);
  CHECK(contains(outcome.reason, "its output could not be stored"));
}

TEST_CASE("command: an unknown sink is a reason, and nothing starts", "[command_run]") {
  world w;
  auto options = w.sh("touch started");
  options.definition.to = config::component_use{"no_such_sink", "to", {}};
  const auto outcome = w.run(std::move(options));
  CHECK(outcome.end == command_end::not_started);
  CHECK(contains(outcome.reason, "no_such_sink"));
  CHECK_FALSE(std::filesystem::exists(w.dir / "work" / "started"));
}

// ---- many ---------------------------------------------------------------------------------------

TEST_CASE("command: two hundred at once, each with its own end", "[command_run]") {
  world w;
  std::vector<std::shared_ptr<command_run>> runs;
  std::vector<std::future<command_outcome>> ends;
  for (int i = 0; i < 200; ++i) {
    auto options = w.sh("echo I am " + std::to_string(i) + "; sleep 1000 & exit " + std::to_string(i));
    options.log = w.dir / "logs" / "R" / (std::to_string(i) + ".log");
    runs.push_back(w.make(std::move(options)));
    ends.push_back(w.start(*runs.back()));
  }
  for (int i = 0; i < 200; ++i) {
    CHECK(ends[static_cast<std::size_t>(i)].get().exit_code == i);
    CHECK(contains(w.log(std::to_string(i)), " o I am " + std::to_string(i) + "\n"));
  }
}
