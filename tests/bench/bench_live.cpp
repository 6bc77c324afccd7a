// What a flow costs in the real daemon. Three measurements, each with its floor from the same run:
// - in memory: generated events through a filter and a map to nowhere; the floor is the same without steps;
// - topic to topic: events that lie in a topic through a filter and a map into another; the floor is the same without steps,
//   and a third time somebody listens at a tap;
// - latency: one event at a time, from before its POST to its arrival at a follower of the last topic; first with nothing
//   else to do, then while batch jobs take all the machine there is (one that burns, on every core twice). Budget: the p99
//   then is at most twice the idle one.
// Prints medians and their spread; asserts nothing.
//
// Usage: bench_live [--events N] [--rounds N] [--latencies N] [--realtime] [--bin DIR] [--folder DIR] [--lines]
//   --events     in each round of the first two (default 200000)
//   --rounds     default 5
//   --latencies  of each kind (default 1000)
//   --realtime   the daemon with `realtime: true`, and this program like it, since it takes part in each latency
//   --bin        where penstockd is (default: beside this program)
//   --folder     on whose disk to work (default: the system's scratch folder)
#include <atomic>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <sched.h>
#include <thread>

#include "tests/bench/figures.hpp"
#include "tests/bench/measured_daemon.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace penstock::testing;
namespace fs = std::filesystem;

struct options {
  int events = 200'000, rounds = 5, latencies = 1'000;
  bool realtime = false;
  fs::path bin = own_folder();
};

const char steps[] = "[{filter: event.n % 10 ~= 0}, {map: {n: event.n, total: event.total * 1.21, station: event.station}}]";
const char data[] = "{total: 403.5, station: north, filler: \"0123456789012345678901234567890123456789012345678901234567890123456"
                    "78901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\"}";

std::string pipeline(const options& chosen) {
  const std::string from = "from: {generate: {count: " + std::to_string(chosen.events) + ", data: " + data + "}}";
  return "name: bench\ntopics: {arrivals: {}, seen: {}, load: {}}\njobs:\n  bare: {" + from + ", to: drop}\n  changed: {" + from +
         ", steps: " + steps + ", to: drop}\n  fill: {" + from +
         ", to: {topic: load}}\n  burn: {run: [sh, -c, 'while :; do :; done'], on_overlap: allow}\nflows:\n  live: {from: "
         "{topic: arrivals}, steps: [{filter: event.n > 0}, {map: {n: event.n}}], to: {topic: seen}}\n";
}

class measurement {
 public:
  measurement(const options& chosen, const fs::path& folder)
      : chosen_(chosen),
        daemon_(chosen.bin / "penstockd", folder / "daemon", chosen.realtime ? "log_level: warn\nrealtime: true\n" : "log_level: warn\n",
                pipeline(chosen)),
        connection_(daemon_.connect()) {}

  void run() {
    job("fill");
    for (int round = 0; round < chosen_.rounds; ++round) {
      rate("memory floor", [this] { job("bare"); });
      rate("memory changed", [this] { job("changed"); });
      rate("topic floor", [this] { through_topics("[]", false); });
      rate("topic changed", [this] { through_topics(steps, false); });
      rate("topic tapped", [this] { through_topics(steps, true); });
    }
    latencies("idle");
    std::vector<std::string> burning;
    const unsigned burners = 2 * std::max(1U, std::thread::hardware_concurrency());
    for (unsigned i = 0; i < burners; ++i) {
      burning.push_back(ask("POST", "/v1/pipelines/bench/jobs/burn/runs", "{}", 202).at("id"));
    }
    for (const auto& run : burning) {
      while (ask("GET", "/v1/runs/" + run).at("state") != "running") measured_daemon::pause();
    }
    latencies("busy");
    for (const auto& run : burning) ask("POST", "/v1/runs/" + run + "/cancel", "{}", 202);
  }

  void print_lines() const {
    for (const auto& [what, values] : seen_) {
      std::string name = what;
      std::replace(name.begin(), name.end(), ' ', '_');
      if (what == "idle" || what == "busy") {
        for (const auto& [part, share] : {std::pair{"_p50", 0.5}, {"_p90", 0.9}, {"_p99", 0.99}})
          print_line(name + part, quantile(values, share), "us");
      } else {
        print_line(name, quantile(values, 0.5), what.ends_with("cpu") ? "events/CPU-s" : "events/s");
      }
    }
  }

  void print() const {
    std::printf("%d events in each of %d rounds; events/s, medians [least to most]\n\n", chosen_.events, chosen_.rounds);
    print_rate("memory floor", "generate -> drop (floor)", nullptr);
    print_rate("memory changed", "generate -> filter, map -> drop", "memory floor");
    print_rate("topic floor", "topic -> topic (floor)", nullptr);
    print_rate("topic changed", "topic -> filter, map -> topic", "topic floor");
    print_rate("topic tapped", "the same with a tap", "topic changed");
    std::printf("\n%d events one by one, microseconds from before the POST to the follower\n\n%-36s %8s %8s %8s\n",
                chosen_.latencies, "", "p50", "p90", "p99");
    for (const auto& [what, words] : {std::pair{"idle", "nothing else to do"}, std::pair{"busy", "all cores burn in jobs"}}) {
      const auto& v = seen_.at(what);
      std::printf("%-36s %8.0f %8.0f %8.0f\n", words, quantile(v, 0.5), quantile(v, 0.9), quantile(v, 0.99));
    }
    const double times = quantile(seen_.at("busy"), 0.99) / quantile(seen_.at("idle"), 0.99);
    std::printf("%-36s %26.2f times (budget: 2)\n", "p99 busy / idle", times);
  }

 private:
  nlohmann::json ask(const std::string& method, const std::string& path, const std::string& body = {}, int status = 200,
                     const std::string& type = "application/json") {
    return measured_daemon::expect(connection_.call(http_request(method, path, body, type)), status);
  }

  // Events a second, and for each second of the daemon's own CPU time: what one core would do.
  void rate(const std::string& what, const std::function<void()>& work) {
    const double cpu = daemon_.cpu_seconds();
    const auto from = monotonic_ns();
    work();
    seen_[what].push_back(chosen_.events / (static_cast<double>(monotonic_ns() - from) / 1e9));
    seen_[what + " cpu"].push_back(chosen_.events / std::max(daemon_.cpu_seconds() - cpu, 0.01));
  }

  void job(const std::string& name) {
    const auto ended = ask("POST", "/v1/pipelines/bench/jobs/" + name + "/runs?wait=60s", "{}");
    if (ended.at("state") != "succeeded") throw std::runtime_error("a run did not succeed: " + ended.dump());
  }

  // A new flow over what lies in the topic; its pipeline is removed afterwards, with the topic it wrote.
  void through_topics(const std::string& with, bool tapped) {
    const int wanted = with == "[]" ? chosen_.events : chosen_.events - chosen_.events / 10;
    ask("PUT", "/v1/pipelines/through",
        "name: through\ntopics: {out: {}}\nflows:\n  f: {from: {topic: load}, steps: " + with + ", to: {topic: out}}\n", 201,
        "application/yaml");
    std::atomic<bool> over{false};
    std::jthread listener;
    if (tapped) listener = std::jthread([this, &over] { listen(over); });
    while (true) {
      const auto last = ask("GET", "/v1/topics/out").at("last_offset");
      if (last.is_number() && last.get<int>() >= wanted) break;
      measured_daemon::pause();
    }
    over = true;
    const auto removed = connection_.call(http_request("DELETE", "/v1/pipelines/through"));
    if (removed.status / 100 != 2) throw std::runtime_error("cannot remove the pipeline: " + removed.body);
  }

  void listen(const std::atomic<bool>& over) {
    client tap = daemon_.connect();
    tap.send("GET /v1/pipelines/through/flows/f/tap HTTP/1.1\r\nHost: bench\r\n\r\n");
    while (!over && tap.fill()) tap.read_until("\n");
  }

  void latencies(const char* what) {
    client follower = daemon_.connect();
    const auto known = ask("GET", "/v1/topics/seen").at("last_offset");
    follower.send("GET /v1/topics/seen/events?follow=true&after=" + (known.is_number() ? known.dump() : std::string("0")) +
                  " HTTP/1.1\r\nHost: bench\r\n\r\n");
    for (int i = 0; i < chosen_.latencies; ++i) {
      const std::string body = "{\"n\":" + std::to_string(++sent_) + "}";
      const std::string request = http_request("POST", "/v1/topics/arrivals/events", body);
      const auto from = monotonic_ns();
      connection_.send(request);
      if (follower.read_until(body).empty()) throw std::runtime_error("the event did not arrive");
      seen_[what].push_back(static_cast<double>(monotonic_ns() - from) / 1000);
      measured_daemon::expect(connection_.read_reply(), 202);
    }
  }

  void print_rate(const char* what, const char* words, const char* floor) const {
    const auto& v = seen_.at(what);
    std::printf("%-36s %10.0f  [%.0f to %.0f]", words, quantile(v, 0.5), quantile(v, 0), quantile(v, 1));
    if (floor) std::printf("  %4.0f %%", 100 * quantile(v, 0.5) / quantile(seen_.at(floor), 0.5));
    std::printf("\n");
  }

  const options chosen_;
  measured_daemon daemon_;
  client connection_;
  std::map<std::string, std::vector<double>> seen_;
  int sent_ = 0;
};

}  // namespace

int main(int argc, char** argv) try {
  options chosen;
  const bool lines = take_lines_option(argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (word == "--realtime") {
      chosen.realtime = true;
      const sched_param first{.sched_priority = 2};
      if (::sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first) != 0) throw std::runtime_error("may not be realtime");
      continue;
    }
    if (word == "--events" && !value.empty()) {
      chosen.events = std::max(100, std::stoi(value));
    } else if (word == "--rounds" && !value.empty()) {
      chosen.rounds = std::max(1, std::stoi(value));
    } else if (word == "--latencies" && !value.empty()) {
      chosen.latencies = std::max(1, std::stoi(value));
    } else if (word == "--bin" && !value.empty()) {
      chosen.bin = value;
    } else if (word == "--folder" && !value.empty()) {
      ::setenv("TMPDIR", value.c_str(), 1);
    } else {
      std::cerr << "usage: bench_live [--events N] [--rounds N] [--latencies N] [--realtime] [--bin DIR] [--folder DIR] [--lines]\n";
      return 2;
    }
    ++i;
  }
  const temp_dir folder;
  measurement all(chosen, folder.path());
  all.run();
  lines ? all.print_lines() : all.print();
  return 0;
} catch (const std::exception& e) {
  std::cerr << "bench_live: " << e.what() << "\n";
  return 1;
}
