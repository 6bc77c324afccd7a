// What windows and joins cost for each event: simdjson alone (the floor), then windows by key with 10,000 and 1,000,000 keys,
// with and without an exact percentile, and a join in which each event finds one partner, in memory, in one thread, in the
// same minute on the same machine. Every event's own state is asked for after each batch, as a flow does. Prints events per
// second and the ratio to the floor; asserts nothing.
//
// Usage: bench_window [events] [--lines]   (default 2000000)
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <time.h>

#include <boost/asio/thread_pool.hpp>
#include <nlohmann/json.hpp>
#include <simdjson.h>

#include "runtime/blocking_pool.hpp"
#include "runtime/flow_store.hpp"
#include "runtime/registry.hpp"
#include "runtime/topic.hpp"
#include "runtime/subscribers.hpp"
#include "runtime/webhooks.hpp"
#include "tests/bench/figures.hpp"

namespace {

using namespace penstock;
using namespace penstock::runtime;

bool lines_only = false;  // figures for a program, no table

constexpr int batch_events = 1'000;
constexpr std::int64_t first_us = 1'517'918'400'000'000;  // 2018-02-06T12:00:00Z

std::string reading(int key) {
  return "{\"sensor\":\"s" + std::to_string(key) +
         "\",\"site\":\"north\",\"kind\":\"temperature\",\"unit\":\"C\",\"value\":" + std::to_string(key % 97) + "." +
         std::to_string(key % 10) + ",\"ok\":true,\"battery\":3.71,\"place\":{\"longitude\":-136.5559,\"latitude\":59.8411}}";
}

// Event `number` of a stream in which all keys come in turn (in a scattered order), 1 ms apart.
void make_batch(batch& events, std::int64_t first, int keys) {
  for (int i = 0; i < batch_events; ++i) {
    const std::int64_t number = first + i;
    event e;
    e.id = "e";
    e.type = "event";
    e.data = events.keep(reading(static_cast<int>(number * 7'919 % keys)));
    e.time = from_micros(first_us + number * 1000);
    e.position = number + 1;
    events.events.push_back(e);
  }
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Events per second of CPU time of `work`; making the events is not counted.
double rate(int events, int keys, const std::function<void(batch&)>& work) {
  double spent = 0;
  for (int done = 0; done < events; done += batch_events) {
    batch made;
    make_batch(made, done, keys);
    const double start = cpu_seconds();
    work(made);
    spent += cpu_seconds() - start;
  }
  return events / spent;
}

void print(const char* what, double per_second, double floor) {
  if (lines_only) {
    std::string name = what;
    std::erase(name, ',');
    std::replace(name.begin(), name.end(), ' ', '_');
    return penstock::testing::print_line(name, per_second, "events/s");
  }
  std::printf("%-44s %10.0f events/s  %5.2f of simdjson alone\n", what, per_second, per_second / floor);
}

struct no_output final : step_output {
  void dead(const event&, std::string reason) override { throw std::runtime_error(reason); }
  void duplicate(const event&) override {}
  void to_output(const event&, std::string_view) override {}
  void late(const event&) override { throw std::runtime_error("a late event"); }
};

// What a component needs around it; nothing of it is used by the step.
struct surroundings {
  boost::asio::thread_pool pool{1};
  blocking_pool blocking{1};
  runtime::topics topics{"/nowhere", pool.get_executor()};
  flow_store flows{"/nowhere/flows.db", pool.get_executor()};
  webhooks hooks;
  subscribers streams;
  services offered{topics, flows, hooks, streams, blocking, {}};
  registry components = make_registry();

  std::unique_ptr<step> made(const std::string& definition) {
    const auto parsed = config::parse_pipeline(
        "name: bench\nflows:\n  f:\n    from: {generate: {count: 1}}\n    steps:\n      - " + definition +
            "\n    to: drop\n",
        components.catalog());
    if (!parsed) throw std::runtime_error("the definition is wrong: " + definition);
    const auto& use = std::get<config::dataflow>(parsed->flows.at("f").does).steps.at(0);
    return components.step_of(use, {offered, "bench", "bench/flow/f", "/", pool.get_executor()});
  }
};

}  // namespace

int main(int argc, char** argv) {
  lines_only = penstock::testing::take_lines_option(argc, argv);
  const int events = argc > 1 ? std::atoi(argv[1]) : 2'000'000;
  surroundings around;
  no_output out;
  std::int64_t kept = 0;

  simdjson::dom::parser parser;
  const double floor = rate(events, 10'000, [&](batch& all) {
    for (const event& e : all.events) kept += parser.parse(e.data.data(), e.data.size(), false).error() == 0;
  });
  print("simdjson alone", floor, floor);

  const std::string cheap = "aggregates: {n: count, top: {max: event.value}, mean: {mean: event.value}}}";
  const std::string exact = "aggregates: {n: count, p95: {percentile: {of: event.value, at: 95}}}}";
  const auto measure = [&](const std::string& what, int keys, const std::string& definition) {
    const auto one = around.made(definition);
    const double found = rate(events, keys, [&](batch& all) {
      one->process(all, out);
      kept += static_cast<std::int64_t>(all.size() + one->changes().size());
    });
    print((std::to_string(keys) + " keys, " + what).c_str(), found, floor);
  };
  for (const int keys : {10'000, 1'000'000}) {
    // A million keys come once a window: all of it is windows that begin and end. Ten thousand come six times.
    const std::string by_key = "window: {tumbling: " + std::to_string(std::max(keys / 1000, 60)) +
                               "s, key: event.sensor, max_keys: 5000000, max_bytes: 8GiB, ";
    measure("count, max and mean", keys, by_key + cheap);
    measure("count and p95", keys, by_key + exact);
  }
  // All sensors in turn are of the left side, then of the right, and so on.
  measure("join of neighbours", 10'000,
          "join: {left: {where: (meta.position - 1) // 10000 % 2 == 0, key: event.sensor}, right: {key: event.sensor}, "
          "within: 10s, watermark: newest}");

  if (!lines_only) std::printf("(%lld)\n", static_cast<long long>(kept));
  around.pool.join();
  return 0;
}
