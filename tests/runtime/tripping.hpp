// Components that fail at random places: after reading, between steps, before a sink's write, after it, before the
// acknowledgement, at a tick. Each failure is followed by a new run with another batch size, until one gets through.
#pragma once

#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/runtime/flow_bench.hpp"

namespace penstock::testing {

using namespace penstock::runtime;

// Throws at a random crossing in `one_in`; 0: never.
class tripwire {
 public:
  tripwire(unsigned seed, unsigned one_in) : random_(seed), one_in_(one_in) {}

  void cross(const char* place) {
    if (one_in_ > 0 && random_() % one_in_ == 0) {
      tripped.insert(place);
      throw std::runtime_error(std::string("injected at ") + place);
    }
  }
  unsigned number() { return random_(); }

  std::set<std::string> tripped;

 private:
  std::mt19937 random_;
  unsigned one_in_;
};
using shared_wire = std::shared_ptr<tripwire>;

class tripping_source final : public source {
 public:
  tripping_source(std::unique_ptr<source> inner, shared_wire wire)
      : inner_(std::move(inner)), wire_(std::move(wire)) {}

  asio::awaitable<void> open(std::int64_t position) override {
    co_await inner_->open(position);
    wire_->cross("source open");
  }
  std::string record() const override { return inner_->record(); }
  void recall(const std::string& record, std::optional<std::int64_t> committed) override { inner_->recall(record, committed); }
  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    std::optional<batch> events = co_await inner_->read(most);
    wire_->cross("read");
    co_return std::move(events);
  }
  void acknowledge(std::int64_t position) override {
    wire_->cross("acknowledge");
    inner_->acknowledge(position);
  }
  void reject(const std::string& reason) override { inner_->reject(reason); }
  void stop_input() override { inner_->stop_input(); }

 private:
  std::unique_ptr<source> inner_;
  shared_wire wire_;
};

class tripping_step final : public step {
 public:
  tripping_step(std::unique_ptr<step> inner, shared_wire wire)
      : inner_(std::move(inner)), wire_(std::move(wire)) {}

  void process(batch& events, step_output& out) override {
    inner_->process(events, out);
    wire_->cross("step");
  }
  bool waits() const override { return inner_->waits(); }
  asio::awaitable<void> process_waiting(batch& events, step_output& out) override {
    co_await inner_->process_waiting(events, out);
    wire_->cross("step");
  }
  asio::awaitable<void> open() override { return inner_->open(); }
  asio::awaitable<void> close() override { return inner_->close(); }
  std::optional<timestamp> wake_at() const override { return inner_->wake_at(); }
  void tick(timestamp now, batch& events, step_output& out) override {
    inner_->tick(now, events, out);
    wire_->cross("tick");
  }
  void finish(batch& events, step_output& out) override {
    inner_->finish(events, out);
    wire_->cross("finish");
  }
  void restore(const std::vector<state_entry>& entries) override { inner_->restore(entries); }
  std::vector<state_change> changes() override { return inner_->changes(); }

 private:
  std::unique_ptr<step> inner_;
  shared_wire wire_;
};

class tripping_sink final : public sink {
 public:
  tripping_sink(std::unique_ptr<sink> inner, shared_wire wire)
      : inner_(std::move(inner)), wire_(std::move(wire)) {}

  asio::awaitable<void> open(const std::string& checkpoint) override {
    co_await inner_->open(checkpoint);
    wire_->cross("sink open");
  }
  std::string first_checkpoint() override { return inner_->first_checkpoint(); }
  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    wire_->cross("before write");
    write_result written = co_await inner_->write(std::move(events));
    wire_->cross("after write");
    co_return written;
  }
  asio::awaitable<void> close() override {
    co_await inner_->close();
    wire_->cross("after close");
  }

 private:
  std::unique_ptr<sink> inner_;
  shared_wire wire_;
};

// The same components, each of which may trip.
inline registry tripping(const registry& real, const shared_wire& wire) {
  const auto kept = std::make_shared<const registry>(real);
  registry r;
  for (const auto& [name, spec] : real.catalog().sources) {
    r.add(spec, registry::make_source([=, n = name](const config::value& v, const component_context& c) {
            return std::make_unique<tripping_source>(kept->source_of(use(n, v), c), wire);
          }));
  }
  for (const auto& [name, spec] : real.catalog().steps) {
    r.add(spec, registry::make_step([=, n = name](const config::value& v, const component_context& c) {
            return std::make_unique<tripping_step>(kept->step_of(use(n, v), c), wire);
          }));
  }
  for (const auto& [name, spec] : real.catalog().sinks) {
    r.add(spec, registry::make_sink([=, n = name](const config::value& v, const component_context& c) {
            return std::make_unique<tripping_sink>(kept->sink_of(use(n, v), c), wire);
          }));
  }
  return r;
}

// Runs until it gets through, each time with another batch size. Returns the number of failures.
template <class Make>
inline int run_to_the_end(flow_bench& b, tripwire& wire, Make make) {
  for (int failures = 0;; ++failures) {
    b.batch_events = 1 + wire.number() % 60;
    const auto run = make();
    const dataflow_outcome outcome = wait_for(b.pool, run->run());
    if (outcome.end == dataflow_end::input_ended) return failures;
    if (!Catch::Matchers::Contains("injected").match(outcome.reason)) FAIL(outcome.reason);
  }
}

}  // namespace penstock::testing
