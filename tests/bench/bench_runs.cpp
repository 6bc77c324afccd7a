// How many runs a second: of /bin/true through the daemon, durable and with logs, against a bare loop of posix_spawn and
// waitpid with as many at once (the floor, by turns in the same minutes); and of a job that stays inside the daemon. Runs are
// asked for in bulk: by requests over several kept connections at once, or by one POST of events to a topic that makes a run
// of each. A round counts from the first byte sent until the last run's end is durable and shown. Prints medians, their
// spread, the daemon's own CPU time for a run, and the budget of design.md section 6; asserts nothing.
//
// Usage: bench_runs [--runs N] [--rounds N] [--connections N] [--bin DIR] [--folder DIR] [--lines]
//   --runs         in each round of each kind (default 1000)
//   --rounds       default 7, after one that does not count
//   --connections  that ask at once (default 8)
//   --bin          where penstockd is (default: beside this program)
//   --folder       on whose disk to work (default: the system's scratch folder)
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <thread>

#include "tests/bench/figures.hpp"
#include "tests/bench/measured_daemon.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace penstock::testing;
namespace fs = std::filesystem;

constexpr double budget_share = 0.7;     // of the bare loop
constexpr double budget_inside = 5'000;  // a second
constexpr auto give_up_after = std::int64_t{120} * 1'000'000'000;

struct options {
  int runs = 1000, rounds = 7, connections = 8;
  fs::path bin = own_folder();
  bool lines = false;
};

const char pipeline[] = R"(
name: bench
topics: {for_programs: {}, for_drops: {}}
jobs:
  program_by_request: {run: [/bin/true], on_overlap: allow, queue_limit: 1000000}
  program_by_event: {trigger: {topic: for_programs, max_events: 1}, run: [/bin/true], on_overlap: allow, queue_limit: 1000000}
  drop_by_request: {to: drop, on_overlap: allow, queue_limit: 1000000}
  drop_by_event: {trigger: {topic: for_drops, max_events: 1}, to: drop, on_overlap: allow, queue_limit: 1000000}
)";

// Calls `work` on so many threads at once; the first failure of any is thrown.
void in_threads(int count, const std::function<void()>& work) {
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(count));
  {
    std::vector<std::jthread> threads;
    for (auto& failure : failures) {
      threads.emplace_back([&] {
        try {
          work();
        } catch (...) {
          failure = std::current_exception();
        }
      });
    }
  }
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

double bare_per_second(int runs, int at_once) {
  std::atomic<int> left{runs};
  const auto from = monotonic_ns();
  in_threads(at_once, [&] {
    while (left.fetch_sub(1) > 0) {
      int status = 0;
      const pid_t pid = spawn({"/bin/true"});
      if (::waitpid(pid, &status, 0) != pid || status != 0) throw std::runtime_error("/bin/true failed");
    }
  });
  return runs * 1e9 / static_cast<double>(monotonic_ns() - from);
}

struct speed {
  double per_second = 0;
  double cpu_us = 0;  // of the daemon's own, for each run
};

// One daemon, of which all runs of all jobs share `at_once` slots.
class bench_daemon {
 public:
  bench_daemon(const options& chosen, const fs::path& folder, int at_once)
      : chosen_(chosen),
        daemon_(chosen.bin / "penstockd", folder / ("slots_" + std::to_string(at_once)),
                "log_level: warn\nkeep_runs: 1000000\nmax_active_runs: " + std::to_string(at_once) + "\n", pipeline) {}

  speed by_request(const std::string& job) {
    const std::string request = http_request("POST", "/v1/pipelines/bench/jobs/" + job + "/runs", "{}");
    return measured(job, [&] {
      std::atomic<int> left{chosen_.runs};
      in_threads(chosen_.connections, [&] {
        client connection = daemon_.connect();
        while (left.fetch_sub(1) > 0) measured_daemon::expect(connection.call(request), 202);
      });
    });
  }

  speed by_event(const std::string& job, const std::string& topic) {
    std::string events;
    for (int i = 0; i < chosen_.runs; ++i) events += "{\"n\":" + std::to_string(i) + "}\n";
    const std::string request = http_request("POST", "/v1/topics/" + topic + "/events", events, "application/x-ndjson");
    return measured(job, [&] { measured_daemon::expect(daemon_.connect().call(request), 202); });
  }

 private:
  speed measured(const std::string& job, const std::function<void()>& ask) {
    client connection = daemon_.connect();
    const auto before = succeeded(job, connection), wanted = before + chosen_.runs;
    const double cpu = daemon_.cpu_seconds();
    const auto from = monotonic_ns();
    ask();
    for (auto have = succeeded(job, connection); have != wanted; have = succeeded(job, connection)) {
      const auto past = monotonic_ns() - from;
      if (have > wanted || past > give_up_after)
        throw std::runtime_error("wanted " + std::to_string(wanted) + " runs of " + job + ", there are " + std::to_string(have));
      // To look takes the daemon's time: as rarely as an error of a twentieth allows.
      const auto rest = past / std::max<std::int64_t>(have - before, 1) * (wanted - have);
      measured_daemon::pause(std::max<std::int64_t>(std::min(rest / 2, past / 20) / 1'000'000, 2));
    }
    const auto took = static_cast<double>(monotonic_ns() - from);
    return {chosen_.runs * 1e9 / took, (daemon_.cpu_seconds() - cpu) * 1e6 / chosen_.runs};
  }

  static std::int64_t succeeded(const std::string& job, client& connection) {
    const auto shown = measured_daemon::expect(connection.call(http_request("GET", "/v1/pipelines/bench")), 200);
    for (const auto& one : shown.at("jobs")) {
      if (one.at("name") == job) return one.at("runs").value("succeeded", std::int64_t{0});
    }
    throw std::logic_error("no job " + job);
  }

  const options& chosen_;
  measured_daemon daemon_;
};

struct series {
  std::string name, words;
  double budget = 0;             // share of the floor, or runs a second; 0: none
  int floor = -1;                // index of the series that is this one's floor
  std::function<speed()> round;
  std::vector<double> speeds{}, shares{}, cpu{};
};

std::vector<series> make_series(const options& chosen, bench_daemon& one, bench_daemon& four, bench_daemon& many) {
  std::vector<series> all;
  const auto programs = [&](int at_once, bench_daemon& daemon) {
    const std::string number = std::to_string(at_once);
    const int floor = static_cast<int>(all.size());
    all.push_back({"bare_" + number, number + " at once: posix_spawn (floor)", 0, -1,
                   [&chosen, at_once] { return speed{bare_per_second(chosen.runs, at_once), 0}; }});
    all.push_back({"request_" + number, number + " at once: /bin/true by POST .../runs", budget_share, floor,
                   [&daemon] { return daemon.by_request("program_by_request"); }});
    all.push_back({"event_" + number, number + " at once: /bin/true by events", budget_share, floor,
                   [&daemon] { return daemon.by_event("program_by_event", "for_programs"); }});
  };
  programs(1, one);
  programs(4, four);
  all.push_back({"inside_request", "64 at once: to: drop by POST .../runs", budget_inside, -1,
                 [&many] { return many.by_request("drop_by_request"); }});
  all.push_back({"inside_event", "64 at once: to: drop by events", budget_inside, -1,
                 [&many] { return many.by_event("drop_by_event", "for_drops"); }});
  return all;
}

void measure(const options& chosen, std::vector<series>& all) {
  for (int round = 0; round <= chosen.rounds; ++round) {  // by turns, so that other load meets all alike
    std::vector<double> speeds;
    for (auto& s : all) {
      const speed now = s.round();
      speeds.push_back(now.per_second);
      if (round == 0) continue;
      s.speeds.push_back(now.per_second);
      s.cpu.push_back(now.cpu_us);
      if (s.floor >= 0) s.shares.push_back(now.per_second / speeds[static_cast<std::size_t>(s.floor)]);
    }
  }
}

void print(const options& chosen, const std::vector<series>& all) {
  if (!chosen.lines)
    std::printf("%d runs in each of %d rounds, by turns; medians [least to most]\n\n%-42s %9s %17s %8s %15s   %s\n", chosen.runs,
                chosen.rounds, "", "runs/s", "", "of floor", "", "daemon CPU us/run");
  for (const series& s : all) {
    const double median = quantile(s.speeds, 0.5), least = quantile(s.speeds, 0), most = quantile(s.speeds, 1);
    if (chosen.lines) {
      print_line(s.name, median, "runs/s");
      if (s.budget > 0) print_line(s.name + "_cpu", quantile(s.cpu, 0.5), "us/run");
      continue;
    }
    std::string share, fits;
    if (!s.shares.empty()) share = std::to_string(std::lround(100 * quantile(s.shares, 0.5))) + " %";
    if (s.budget > 0) {
      const bool within = (s.shares.empty() ? median : quantile(s.shares, 0.5)) >= s.budget;
      const std::string goal = s.budget < 1 ? std::to_string(std::lround(100 * s.budget)) + " %" : std::to_string(std::lround(s.budget));
      fits = (within ? "(>= " : "(< ") + goal + ")";
    }
    const std::string spread = "[" + std::to_string(std::lround(least)) + " to " + std::to_string(std::lround(most)) + "]";
    std::printf("%-42s %9.0f %17s %8s %15s", s.words.c_str(), median, spread.c_str(), share.c_str(), fits.c_str());
    if (s.budget > 0) std::printf("   %17.0f", quantile(s.cpu, 0.5));
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
    if (word == "--runs" && more) {
      chosen.runs = std::clamp(std::atoi(argv[++i]), 1, 100'000);
    } else if (word == "--rounds" && more) {
      chosen.rounds = std::max(1, std::atoi(argv[++i]));
    } else if (word == "--connections" && more) {
      chosen.connections = std::clamp(std::atoi(argv[++i]), 1, 500);
    } else if (word == "--bin" && more) {
      chosen.bin = argv[++i];
    } else if (word == "--folder" && more) {
      ::setenv("TMPDIR", argv[++i], 1);
    } else {
      std::cerr << "usage: bench_runs [--runs N] [--rounds N] [--connections N] [--bin DIR] [--folder DIR] [--lines]\n";
      return 2;
    }
  }
  const temp_dir folder;
  bench_daemon one(chosen, folder.path(), 1), four(chosen, folder.path(), 4), many(chosen, folder.path(), 64);
  std::vector<series> all = make_series(chosen, one, four, many);
  measure(chosen, all);
  print(chosen, all);
  return 0;
} catch (const std::exception& e) {
  std::cerr << "bench_runs: " << e.what() << "\n";
  return 1;
}
