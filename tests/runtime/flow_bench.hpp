// What a dataflow needs around it, real and in a scratch folder: topics, flow store, webhooks, pools,
// components. Threads: a pool that stands for flow pool and writers, the blocking pool, and the test's own.
#pragma once

#include <fstream>
#include <initializer_list>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <nlohmann/json.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/dataflow_run.hpp"
#include "runtime/flow_store.hpp"
#include "runtime/registry.hpp"
#include "runtime/subscribers.hpp"
#include "runtime/topic.hpp"
#include "runtime/webhooks.hpp"
#include "tests/runtime/wait_for.hpp"
#include "tests/temp_dir.hpp"

namespace penstock::testing {

struct flow_bench {
  temp_dir dir;
  boost::asio::thread_pool pool{2};
  runtime::blocking_pool blocking{4};
  runtime::topics topics{dir / "topics", pool.get_executor()};
  runtime::flow_store flows{dir / "flows.db", pool.get_executor()};
  runtime::webhooks hooks;
  runtime::subscribers streams;
  runtime::services offered{topics, flows, hooks, streams, blocking, {}};
  runtime::registry components = runtime::make_registry();
  std::shared_ptr<runtime::dataflow_counters> counters = std::make_shared<runtime::dataflow_counters>();
  std::size_t batch_events = 100;

  ~flow_bench() {
    topics.close();
    flows.close();
    pool.join();
  }

  std::shared_ptr<runtime::topic> topic(const std::string& name) {
    if (auto known = topics.find(name)) return known;
    return topics.declare({.name = name, .retain = {}, .max_bytes = {}, .dedupe = {}});
  }

  // Appends payloads (JSON texts) to a topic.
  void append(const std::string& name, const std::vector<std::string>& payloads) {
    auto events = std::make_shared<runtime::batch>();
    for (const std::string& payload : payloads) {
      runtime::event e;
      e.id = events->keep("id" + std::to_string(++appended_));
      e.source = "/test";
      e.type = "event";
      e.time = wall_now();
      e.data = events->keep(payload);
      events->events.push_back(e);
    }
    const auto to = topic(name);
    if (!wait_for(pool, to->append(events))) throw std::runtime_error("append failed");
  }

  // The payloads of a topic, in order.
  std::vector<std::string> content(const std::string& name) {
    std::vector<std::string> all;
    std::int64_t after = 0;
    while (true) {
      const runtime::batch events = topic(name)->read(after, 1000);
      if (events.empty()) return all;
      for (const runtime::event& e : events.events) all.emplace_back(e.data);
      after = events.events.back().position;
    }
  }

  std::string file_text(const std::string& name) const {
    std::ifstream in(dir / name, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  void write_file(const std::string& name, const std::string& text) const {
    std::ofstream(dir / name, std::ios::binary) << text;
  }

  std::unique_ptr<runtime::dataflow_run> make(const std::string& consumer, config::dataflow definition,
                                              std::unique_ptr<runtime::source> input = {}) {
    return make_on(boost::asio::make_strand(pool.get_executor()), consumer, std::move(definition),
                   std::move(input));
  }
  // With an input that needs to know the strand.
  std::unique_ptr<runtime::dataflow_run> make_on(boost::asio::any_io_executor strand,
                                                 const std::string& consumer, config::dataflow definition,
                                                 std::unique_ptr<runtime::source> input = {}) {
    runtime::dataflow_options options;
    options.pipeline = "test";
    options.consumer = consumer;
    options.workdir = dir.path();
    options.definition = std::make_shared<const config::dataflow>(std::move(definition));
    options.input = std::move(input);
    options.counters = counters;
    options.batch_events = batch_events;
    return std::make_unique<runtime::dataflow_run>(std::move(strand), components, offered,
                                                   std::move(options));
  }

  runtime::dataflow_outcome run(const std::string& consumer, config::dataflow definition) {
    return wait_for(pool, make(consumer, std::move(definition))->run());
  }
  runtime::dataflow_outcome run(const std::string& consumer, const std::string& yaml) {
    return run(consumer, parse(yaml));
  }
  config::dataflow parse(const std::string& yaml) const;
  std::shared_ptr<const config::dataflow> shared(const std::string& yaml) const {
    return std::make_shared<const config::dataflow>(parse(yaml));
  }

  std::vector<runtime::dead_letter> dead(const std::string& consumer = {}) {
    return flows.dead_letters({.pipeline = {}, .consumer = consumer, .after_id = {}, .limit = 100'000});
  }

  bool balanced() const {
    return counters->received ==
           counters->emitted + counters->filtered + counters->dead + counters->duplicates;
  }

 private:
  int appended_ = 0;
};

// A component with settings as they are after checking.
inline config::component_use use(const std::string& component, config::value settings) {
  return {component, component, std::move(settings)};
}

// A flow's `from`, `steps` and `to` as a person writes them, at the left margin.
inline config::dataflow parse_flow(const runtime::registry& components, const std::string& yaml) {
  std::string text = "name: test\nflows:\n  f:\n";
  std::istringstream lines(yaml);
  for (std::string line; std::getline(lines, line);) text += "    " + line + "\n";
  const auto parsed = config::parse_pipeline(text, components.catalog(), {.stored = true});  // also what is only for jobs
  if (parsed) return std::get<config::dataflow>(parsed->flows.at("f").does);
  std::string all = parsed.error().detail;
  for (const problem& p : parsed.error().problems) all += "\n" + config::describe(p, "test");
  throw std::invalid_argument(all);
}

inline config::dataflow flow_bench::parse(const std::string& yaml) const {
  return parse_flow(components, yaml);
}

// The same components, but one sink is another. `real` must outlive what is returned.
inline runtime::registry with_sink(const runtime::registry& real, const std::string& replaced,
                                   runtime::registry::make_sink make) {
  using namespace runtime;
  registry r;
  for (const auto& [name, spec] : real.catalog().sources) {
    r.add(spec, registry::make_source([&real, n = name](const config::value& v, const component_context& c) {
            return real.source_of(use(n, v), c);
          }));
  }
  for (const auto& [name, spec] : real.catalog().steps) {
    r.add(spec, registry::make_step([&real, n = name](const config::value& v, const component_context& c) {
            return real.step_of(use(n, v), c);
          }));
  }
  for (const auto& [name, spec] : real.catalog().sinks) {
    if (name == replaced) continue;
    r.add(spec, registry::make_sink([&real, n = name](const config::value& v, const component_context& c) {
            return real.sink_of(use(n, v), c);
          }));
  }
  r.add(real.catalog().sinks.at(replaced), std::move(make));
  return r;
}

}  // namespace penstock::testing
