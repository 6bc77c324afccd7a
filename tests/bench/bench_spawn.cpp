// What supervision costs on top of the bare system call: runs of /bin/true per second, by posix_spawn +
// waitpid in a loop (the floor), by start_process + reap in a loop (our own launch: process group, signals,
// descriptors, pidfd) and by command_run with everything it does (pipes, log, supervision), one after the other
// and four at a time, in the same minute on the same machine. Prints all and the ratios; asserts nothing.
//
// Usage: bench_spawn [runs] [--lines]   (default 2000)
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <spawn.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/command_run.hpp"
#include "runtime/topic.hpp"
#include "runtime/subscribers.hpp"
#include "runtime/webhooks.hpp"
#include "tests/bench/figures.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace penstock::runtime;
namespace asio = boost::asio;

double seconds_for(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void spawn_bare(int runs) {
  char name[] = "/bin/true";
  char* arguments[] = {name, nullptr};
  for (int i = 0; i < runs; ++i) {
    pid_t pid = 0;
    int status = 0;
    if (::posix_spawn(&pid, name, nullptr, nullptr, arguments, environ) != 0 ||
        ::waitpid(pid, &status, 0) != pid || status != 0)
      throw std::runtime_error("/bin/true cannot be run");
  }
}

void spawn_ours(int runs) {
  const std::vector<std::string> arguments{"/bin/true"};
  const std::map<std::string, std::string> environment{{"PATH", "/usr/bin:/bin"}, {"PENSTOCK_RUN_ID", "R"}};
  const std::filesystem::path folder = "/";
  for (int i = 0; i < runs; ++i) {
    const auto started = start_process({.arguments = arguments,
                                        .environment = environment,
                                        .folder = folder,
                                        .in = null_device(),
                                        .out = null_device(),
                                        .err = null_device()});
    if (!started) throw std::runtime_error(started.error().detail);
    const auto end = reap(started->pid);
    if (!end || end->by_signal || end->number != 0) throw std::runtime_error("/bin/true failed");
  }
}

double per_second(void (*spawn_many)(int), int runs, int parallel) {
  return runs / seconds_for([&] {
           std::vector<std::jthread> threads;
           for (int i = 0; i < parallel; ++i) threads.emplace_back([&] { spawn_many(runs / parallel); });
         });
}

class supervised {
 public:
  double per_second(int runs, int parallel) {
    return runs / seconds_for([&] {
             std::vector<std::future<void>> chains;
             for (int i = 0; i < parallel; ++i)
               chains.push_back(asio::co_spawn(pool_, chain(runs / parallel), asio::use_future));
             for (auto& one : chains) one.get();
           });
  }
  ~supervised() { pool_.join(); }

 private:
  asio::awaitable<void> chain(int runs) {
    for (int i = 0; i < runs; ++i) {
      command_options options;
      options.definition.run = {"/bin/true"};
      options.pipeline = "bench";
      options.consumer = "bench/run/R/main";
      options.workdir = dir_.path();
      options.environment = {{"PATH", "/usr/bin:/bin"}, {"PENSTOCK_RUN_ID", "R"}};
      options.log = dir_ / "main.log";
      options.timeout = std::chrono::minutes{15};
      command_run run(asio::make_strand(pool_), components_, services_, std::move(options));
      const command_outcome outcome = co_await run.run();
      if (!outcome.ok()) throw std::runtime_error(outcome.reason);
    }
  }

  penstock::testing::temp_dir dir_;
  asio::thread_pool pool_{2};
  topics topics_{dir_ / "topics", asio::make_strand(pool_)};
  flow_store flows_{dir_ / "flows.db", asio::make_strand(pool_)};
  webhooks webhooks_;
  subscribers subscribers_;
  blocking_pool blocking_{2};
  services services_{topics_, flows_, webhooks_, subscribers_, blocking_, {}};
  registry components_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const bool lines = penstock::testing::take_lines_option(argc, argv);
  const int runs = argc > 1 ? std::atoi(argv[1]) : 2000;
  constexpr int rounds = 9;
  if (runs < 4 * rounds) {
    std::fprintf(stderr, "usage: bench_spawn [runs, at least %d]\n", 4 * rounds);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  adopt_orphans();
  supervised daemon;
  for (const int parallel : {1, 4}) {
    std::vector<double> floors, launches, ours, launch_ratios, ratios;
    for (int round = 0; round < rounds; ++round) {  // by turns, so that other load meets all alike
      floors.push_back(per_second(spawn_bare, runs / rounds, parallel));
      launches.push_back(per_second(spawn_ours, runs / rounds, parallel));
      ours.push_back(daemon.per_second(runs / rounds, parallel));
      launch_ratios.push_back(launches.back() / floors.back());
      ratios.push_back(ours.back() / floors.back());
    }
    if (lines) {
      const std::string suffix = "_" + std::to_string(parallel);
      penstock::testing::print_line("bare" + suffix, median(floors), "runs/s");
      penstock::testing::print_line("start_process" + suffix, median(launches), "runs/s");
      penstock::testing::print_line("command_run" + suffix, median(ours), "runs/s");
      continue;
    }
    std::printf(
        "/bin/true, %d at a time: posix_spawn %6.0f/s   start_process %6.0f/s, ratio %.2f   command_run %6.0f/s, "
        "ratio %.2f (medians of %d rounds)\n",
        parallel, median(floors), median(launches), median(launch_ratios), median(ours), median(ratios), rounds);
  }
}
