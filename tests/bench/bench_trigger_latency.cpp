// How long from asking for a run to the first instruction of its program, durably: by POST to the job and by POST of an event
// to a topic, over connections that are kept. The floor, by turns in the same minutes: a bare posix_spawn of the same program.
// The program (bench_stamp) reads the clock first of all and sends the time through a FIFO. A write with fdatasync stands
// beside it, at the end of a file and within it (as SQLite's log is written once it has its size): a request waits for one,
// an event for two. Each measurement begins when the one before is wholly over. Prints the difference to the floor against
// the budget of design.md section 6; asserts nothing.
//
// Usage: bench_trigger_latency [--repetitions N] [--pause MS] [--bin DIR] [--folder DIR] [--lines]
//   --repetitions  of each (default 500), after a tenth as many that do not count
//   --pause        milliseconds of rest before each measurement (default 0)
//   --bin          where penstockd is (default: beside this program; bench_stamp always is)
//   --folder       on whose disk to work (default: the system's scratch folder)
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <sys/stat.h>
#include <utility>

#include "tests/bench/figures.hpp"
#include "tests/bench/measured_daemon.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace penstock::testing;
namespace fs = std::filesystem;

constexpr double budget_p50 = 250, budget_p99 = 700;  // microseconds more than the floor

struct options {
  int repetitions = 500;
  int pause_ms = 0;
  fs::path bin = own_folder();
  bool lines = false;
};

// What the program says about its beginning.
class stamps {
 public:
  explicit stamps(const fs::path& file) : file_(file) {
    if (::mkfifo(file.c_str(), 0600) != 0) throw std::runtime_error("cannot make " + file.string());
    fd_ = ::open(file.c_str(), O_RDWR | O_CLOEXEC);  // writing too, so that it never ends
    if (fd_ < 0) throw std::runtime_error("cannot open " + file.string());
  }
  ~stamps() { ::close(fd_); }
  stamps(const stamps&) = delete;
  stamps& operator=(const stamps&) = delete;

  std::int64_t next() {
    pollfd ready{fd_, POLLIN, 0};
    std::int64_t at = 0;
    if (::poll(&ready, 1, 20'000) != 1 || ::read(fd_, &at, sizeof at) != sizeof at)
      throw std::runtime_error("the program was not started");
    return at;
  }
  const fs::path& file() const { return file_; }

 private:
  fs::path file_;
  int fd_;
};

std::string pipeline(const fs::path& program, const fs::path& fifo) {
  const std::string run = "run: [" + program.string() + ", " + fifo.string() + "], on_overlap: allow";
  return "name: bench\ntopics: {arrivals: {}}\njobs:\n  by_request: {" + run +
         "}\n  by_event: {trigger: {topic: arrivals, max_events: 1}, " + run + "}\n";
}

// Durations in microseconds, by what was measured.
class measurement {
 public:
  measurement(const options& chosen, const fs::path& folder)
      : chosen_(chosen),
        program_(own_folder() / "bench_stamp"),
        stamps_(folder / "stamps"),
        daemon_(chosen.bin / "penstockd", folder / "daemon", "log_level: warn\n", pipeline(program_, stamps_.file())),
        connection_(daemon_.connect()),
        file_(::open((folder / "written").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) {}
  ~measurement() { ::close(file_); }
  measurement(const measurement&) = delete;
  measurement& operator=(const measurement&) = delete;

  const std::map<std::string, std::vector<double>>& run() {
    const std::function<void()> all[] = {[this] { bare(); }, [this] { by_request(); }, [this] { by_event(); },
                                         [this] { write(); }};
    const int warm_up = chosen_.repetitions / 10 + 1;
    for (int i = 0; i < warm_up + chosen_.repetitions; ++i) {
      if (i == warm_up) seen_.clear();
      for (int k = 0; k < 4; ++k) {  // each comes after each other one in turn
        if (chosen_.pause_ms > 0) ::poll(nullptr, 0, chosen_.pause_ms);
        all[(k + i) % 4]();
      }
    }
    return seen_;
  }

 private:
  void took(const char* what, std::int64_t from, std::int64_t to) {
    seen_[what].push_back(static_cast<double>(to - from) / 1000);
  }

  void bare() {
    const std::vector<std::string> arguments{program_, stamps_.file()};
    const auto from = monotonic_ns();
    const pid_t pid = spawn(arguments);
    took("bare", from, stamps_.next());
    ::waitpid(pid, nullptr, 0);
  }

  void by_request() {
    static const std::string request = http_request("POST", "/v1/pipelines/bench/jobs/by_request/runs", "{}");
    const auto from = monotonic_ns();
    const reply answer = connection_.call(request);
    took("request_answered", from, monotonic_ns());
    took("request", from, stamps_.next());
    await_end(measured_daemon::expect(answer, 202).at("id"));
  }

  void by_event() {
    static const std::string request = http_request("POST", "/v1/topics/arrivals/events", R"({"n":1})");
    const auto from = monotonic_ns();
    const reply answer = connection_.call(request);
    took("event_answered", from, monotonic_ns());
    took("event", from, stamps_.next());
    measured_daemon::expect(answer, 202);
    const auto runs = measured_daemon::expect(
        connection_.call(http_request("GET", "/v1/runs?pipeline=bench&job=by_event&limit=1")), 200);
    await_end(runs.at("items").at(0).at("id"));
  }

  void write() {
    static const std::string page(4096, 'x');
    for (const auto& [what, at] : {std::pair{"append", end_}, std::pair{"overwrite", ::off_t{0}}}) {
      const auto from = monotonic_ns();
      if (::pwrite(file_, page.data(), page.size(), at) < 0 || ::fdatasync(file_) != 0) throw std::runtime_error("cannot write");
      took(what, from, monotonic_ns());
    }
    end_ += static_cast<::off_t>(page.size());
  }

  void await_end(const std::string& run) {
    const auto ended =
        measured_daemon::expect(connection_.call(http_request("GET", "/v1/runs/" + run + "?wait=10s")), 200);
    if (ended.at("state") != "succeeded") throw std::runtime_error("a run did not succeed: " + ended.dump());
  }

  options chosen_;
  fs::path program_;
  stamps stamps_;
  measured_daemon daemon_;
  client connection_;
  int file_;
  ::off_t end_ = 0;
  std::map<std::string, std::vector<double>> seen_;
};

struct row {
  const char *name, *words;
  bool budgeted;
};
constexpr row rows[] = {
    {"bare", "posix_spawn -> first instruction (floor)", false},
    {"request", "POST .../runs -> first instruction", true},
    {"event", "POST .../events -> first instruction", true},
    {"request_answered", "POST .../runs -> 202", false},
    {"event_answered", "POST .../events -> 202", false},
    {"append", "4 KiB at the end of a file + fdatasync", false},
    {"overwrite", "4 KiB within a file + fdatasync", false},
};

void print(const options& chosen, const std::map<std::string, std::vector<double>>& seen) {
  if (chosen.lines) {
    for (const auto& [name, values] : seen) {
      for (const auto& [part, share] : {std::pair{"_p50", 0.5}, {"_p90", 0.9}, {"_p99", 0.99}})
        print_line(name + part, quantile(values, share), "us");
    }
    return;
  }
  const double floor_p50 = quantile(seen.at("bare"), 0.5), floor_p99 = quantile(seen.at("bare"), 0.99);
  std::printf("%d repetitions of each, by turns; microseconds. Budget: floor + %.0f (p50), + %.0f (p99)\n\n", chosen.repetitions,
              budget_p50, budget_p99);
  std::printf("%-42s %8s %8s %8s   %18s   %18s\n", "", "p50", "p90", "p99", "p50 - floor", "p99 - floor");
  for (const row& r : rows) {
    const auto& values = seen.at(r.name);
    const double p50 = quantile(values, 0.5), p90 = quantile(values, 0.9), p99 = quantile(values, 0.99);
    std::printf("%-42s %8.0f %8.0f %8.0f", r.words, p50, p90, p99);
    if (r.budgeted) {
      const bool fits50 = p50 - floor_p50 <= budget_p50, fits99 = p99 - floor_p99 <= budget_p99;
      std::printf("   %+8.0f %9s   %+8.0f %9s", p50 - floor_p50, fits50 ? "(within)" : "(beyond)", p99 - floor_p99,
                  fits99 ? "(within)" : "(beyond)");
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) try {
  options chosen;
  chosen.lines = take_lines_option(argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--repetitions" && more) {
      chosen.repetitions = std::max(1, std::atoi(argv[++i]));
    } else if (word == "--pause" && more) {
      chosen.pause_ms = std::atoi(argv[++i]);
    } else if (word == "--bin" && more) {
      chosen.bin = argv[++i];
    } else if (word == "--folder" && more) {
      ::setenv("TMPDIR", argv[++i], 1);
    } else {
      std::cerr << "usage: bench_trigger_latency [--repetitions N] [--pause MS] [--bin DIR] [--folder DIR] [--lines]\n";
      return 2;
    }
  }
  const temp_dir folder;
  measurement all(chosen, folder.path());
  print(chosen, all.run());
  return 0;
} catch (const std::exception& e) {
  std::cerr << "bench_trigger_latency: " << e.what() << "\n";
  return 1;
}
