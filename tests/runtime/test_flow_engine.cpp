// What the engine promises to steps and sinks: results of time leave exactly once, named outputs, parallel parts in
// order, a delivery policy, state that is dropped when it no longer fits, taps.
#include <atomic>
#include <numeric>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/step_chain.hpp"
#include "tests/runtime/tripping.hpp"

namespace test_flow_engine {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::run_to_the_end;
using penstock::testing::tripping;
using penstock::testing::tripwire;
using penstock::testing::wait_for;
using penstock::testing::with_sink;

namespace {

std::int64_t number_in(std::string_view payload) {
  return nlohmann::json::parse(payload).at("n").get<std::int64_t>();
}

// Adds up what comes, and gives the sum away when time says so: as soon as ten events are in it, and at the end.
class adding_step final : public step {
 public:
  void process(batch& events, step_output&) override {
    for (const event& e : events.events) {
      sum_ += number_in(e.data);
      ++events_;
    }
    events.events.clear();
  }
  std::optional<timestamp> wake_at() const override { return events_ >= 10 ? std::optional(timestamp{}) : std::nullopt; }
  void tick(timestamp, batch& events, step_output&) override { give(events); }
  void finish(batch& events, step_output&) override { give(events); }
  void restore(const std::vector<state_entry>& entries) override {
    for (const state_entry& entry : entries) {
      const auto kept = nlohmann::json::parse(entry.value);
      sum_ = kept[0], events_ = kept[1];
    }
  }
  std::vector<state_change> changes() override { return {{{}, "sum", nlohmann::json({sum_, events_}).dump()}}; }

 private:
  void give(batch& events) {
    if (events_ == 0) return;
    event e;
    e.id = events.keep("sum");
    e.source = "/test";
    e.type = "sum";
    e.time = wall_now();
    e.data = events.keep("{\"n\":" + std::to_string(sum_) + "}");
    events.events.push_back(e);
    sum_ = events_ = 0;
  }

  std::int64_t sum_ = 0, events_ = 0;
};

// Sends odd numbers to the output `odd`, every seventh there too although it goes on.
class sorting_step final : public step {
 public:
  void process(batch& events, step_output& out) override {
    std::erase_if(events.events, [&](const event& e) {
      const auto n = number_in(e.data);
      if (n % 2 == 1 || n % 7 == 0) out.to_output(e, "odd");
      if (n % 9 == 0) out.to_output(e, "nowhere");
      return n % 2 == 1;
    });
  }
  bool stateless() const override { return true; }
};

config::component_spec spec_of(const std::string& name, std::vector<std::string> outputs = {}) {
  config::component_spec spec{.kind = config::component_kind::step,
                              .name = name,
                              .doc = "for tests",
                              .settings = {.name = name, .type = config::field_type::object, .doc = ""}};
  spec.outputs = [outputs](const config::value&) { return outputs; };
  return spec;
}

void add_test_steps(registry& r) {
  r.add(spec_of("add_up"), registry::make_step([](const config::value&, const component_context&) {
          return std::make_unique<adding_step>();
        }));
  r.add(spec_of("sort_out", {"odd"}), registry::make_step([](const config::value&, const component_context&) {
          return std::make_unique<sorting_step>();
        }));
}

std::string numbers(int from, int until) {
  std::string text;
  for (int n = from; n <= until; ++n) text += "{\"n\":" + std::to_string(n) + "}\n";
  return text;
}

std::int64_t sum_of(const std::vector<std::string>& payloads) {
  return std::accumulate(payloads.begin(), payloads.end(), std::int64_t{0},
                         [](std::int64_t sum, const std::string& payload) { return sum + number_in(payload); });
}

}  // namespace

TEST_CASE("what steps make of time leaves exactly once, whatever fails", "[engine][exactly_once]") {
  flow_bench b;
  add_test_steps(b.components);
  b.write_file("in.ndjson", numbers(1, 400));
  const registry real = b.components;
  std::set<std::string> tripped;
  for (unsigned seed = 1; seed <= 12; ++seed) {
    INFO("seed " << seed);
    const auto wire = std::make_shared<tripwire>(seed, 12);
    const std::string out = "out" + std::to_string(seed);
    b.topic(out);
    b.components = tripping(real, wire);
    const auto definition = b.parse("from: {file: in.ndjson}\nsteps: [{add_up: {}}]\nto: {topic: " + out + "}");
    const int failures = run_to_the_end(b, *wire, [&] { return b.make("test/flow/" + out, definition); });
    CHECK(failures > 0);
    CHECK(sum_of(b.content(out)) == 400 * 401 / 2);
    tripped.insert(wire->tripped.begin(), wire->tripped.end());
    b.components = real;
  }
  CHECK(tripped.contains("finish"));
}

TEST_CASE("a drain keeps what steps hold, one for good emits it", "[engine]") {
  flow_bench b;
  add_test_steps(b.components);
  b.topic("out");
  b.append("in", {"{\"n\":1}", "{\"n\":2}"});
  const auto definition = b.parse("from: {topic: in}\nsteps: [{add_up: {}}]\nto: {topic: out}");
  const auto drained = [&](bool for_good) {
    const auto run = b.make("test/flow/f", definition);
    auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
    const auto wanted = b.topic("in")->last_offset();
    while (b.flows.cursors().empty() || b.flows.cursors().front().second < wanted) std::this_thread::yield();
    run->request_drain(for_good);
    return ended.get();
  };
  CHECK(drained(false).end == dataflow_end::drained);
  CHECK(b.content("out").empty());
  b.append("in", {"{\"n\":3}"});
  CHECK(drained(true).end == dataflow_end::drained);
  CHECK(b.content("out") == std::vector<std::string>{"{\"n\":6}"});
  b.append("in", {"{\"n\":4}"});
  CHECK(drained(true).end == dataflow_end::drained);
  CHECK(b.content("out") == std::vector<std::string>{"{\"n\":6}", "{\"n\":4}"});
}

TEST_CASE("a tick comes without an event", "[engine]") {
  flow_bench b;
  add_test_steps(b.components);
  b.topic("out");
  for (int n = 1; n <= 10; ++n) b.append("in", {"{\"n\":" + std::to_string(n) + "}"});
  const auto run = b.make("test/flow/f", b.parse("from: {topic: in}\nsteps: [{add_up: {}}]\nto: {topic: out}"));
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  while (b.topic("out")->last_offset() == 0) std::this_thread::yield();
  run->request_drain(true);
  CHECK(ended.get().end == dataflow_end::drained);
  CHECK(sum_of(b.content("out")) == 55);
}

TEST_CASE("named outputs get their events exactly once, in order", "[engine][exactly_once]") {
  flow_bench b;
  add_test_steps(b.components);
  b.write_file("in.ndjson", numbers(1, 300));
  const registry real = b.components;
  std::vector<std::string> expected_even, expected_odd;
  for (int n = 1; n <= 300; ++n) {
    const std::string payload = "{\"n\":" + std::to_string(n) + "}";
    if (n % 2 == 0) expected_even.push_back(payload);
    if (n % 2 == 1 || n % 7 == 0) expected_odd.push_back(payload);
  }
  for (unsigned seed = 1; seed <= 4; ++seed) {
    for (const char* parallel : {"1", "4"}) {
      const std::string out = std::to_string(seed) + "of" + parallel;
      b.topic("even" + out);
      b.topic("odd" + out);
      const auto wire = std::make_shared<tripwire>(seed, 15);
      b.components = tripping(real, wire);
      const auto definition = b.parse("from: {file: in.ndjson}\nsteps: [{sort_out: {}}]\nto: {topic: even" + out +
                                      "}\noutputs: {odd: {topic: odd" + out + "}}\nparallel: " + parallel);
      run_to_the_end(b, *wire, [&] { return b.make("test/flow/" + out, definition); });
      CHECK(b.content("even" + out) == expected_even);
      CHECK(b.content("odd" + out) == expected_odd);
      CHECK(b.balanced());
      b.components = real;
    }
  }
}

TEST_CASE("outputs are checked against what steps offer", "[engine]") {
  flow_bench b;
  add_test_steps(b.components);
  CHECK_THROWS_WITH(b.parse("from: {topic: in}\nsteps: [{sort_out: {}}]\nto: drop"),
                    Contains("this step sends events to 'odd'"));
  CHECK_THROWS_WITH(b.parse("from: {topic: in}\nsteps: [{sort_out: {}}]\nto: drop\noutputs: {odd: drop, ode: drop}"),
                    Contains("no step sends anything to 'ode'") && Contains("did you mean 'odd'"));
  CHECK_NOTHROW(b.parse("from: {topic: in}\nsteps: [{sort_out: {}}]\nto: drop\noutputs: {odd: drop}"));
}

TEST_CASE("parts that work at once are put together in order", "[engine][parallel]") {
  flow_bench b;
  b.write_file("in.ndjson", numbers(1, 2000));
  b.batch_events = 700;
  const std::string yaml =
      "from: {file: in.ndjson}\nsteps:\n  - filter: event.n % 5 ~= 0\n  - map: {n: \"event.n + (event.n % 333 == 0 and "
      "{} or 0)\"}\n  - dedupe: event.n % 1500\n";
  for (const int parallel : {1, 7}) {
    const std::string out = "out" + std::to_string(parallel);
    b.topic(out);
    const auto definition = b.shared(yaml + "to: {topic: " + out + "}\nparallel: " + std::to_string(parallel));
    dataflow_options options;
    options.pipeline = "test";
    options.consumer = "test/flow/" + out;
    options.workdir = b.dir.path();
    options.definition = definition;
    options.counters = b.counters;
    options.batch_events = b.batch_events;
    options.pool = b.pool.get_executor();
    dataflow_run run(asio::make_strand(b.pool.get_executor()), b.components, b.offered, std::move(options));
    CHECK(wait_for(b.pool, run.run()).reason == "");
  }
  CHECK(b.content("out1") == b.content("out7"));
  CHECK(b.content("out1").size() > 1000);
  CHECK(b.dead("test/flow/out1").size() == b.dead("test/flow/out7").size());
  CHECK_FALSE(b.dead("test/flow/out7").empty());
  CHECK(b.balanced());
}

// Takes what it is given, but not before it has refused so often.
class reluctant_sink final : public sink {
 public:
  explicit reluctant_sink(std::shared_ptr<std::atomic<int>> refusals) : refusals_(std::move(refusals)) {}
  asio::awaitable<void> open(const std::string&) override { co_return; }
  asio::awaitable<write_result> write(std::shared_ptr<const batch>) override {
    if (refusals_->fetch_sub(1) > 0) throw std::runtime_error("not now");
    co_return write_result{};
  }
  asio::awaitable<void> close() override { co_return; }

 private:
  std::shared_ptr<std::atomic<int>> refusals_;
};

TEST_CASE("a sink that does not take events now is tried again, then held or buried", "[engine][delivery]") {
  flow_bench b;
  const registry real = b.components;
  const auto refusals = std::make_shared<std::atomic<int>>(0);
  b.components = with_sink(real, "drop", registry::make_sink([=](const config::value&, const component_context&) {
                             return std::make_unique<reluctant_sink>(refusals);
                           }));
  b.write_file("in.ndjson", numbers(1, 10));
  b.batch_events = 5;
  const auto run = [&](const std::string& consumer, const std::string& delivery) {
    return b.run("test/flow/" + consumer, "from: {file: in.ndjson}\nto: drop\ndelivery: " + delivery);
  };
  *refusals = 3;
  CHECK(run("patient", "{attempts: 4, backoff: 1ms..2ms}").reason == "");
  CHECK(b.counters->emitted == 10);
  CHECK(b.counters->redelivered == 3);

  *refusals = 3;
  CHECK(run("held", "{attempts: 3, backoff: 1ms}").reason == "to drop: not now");
  CHECK(b.counters->emitted == 10);
  CHECK(run("held", "{attempts: 3, backoff: 1ms}").reason == "");
  CHECK(b.counters->emitted == 20);

  *refusals = 2;
  CHECK(run("buried", "{attempts: 2, backoff: 1ms, then: dead_letter}").reason == "");
  CHECK(b.counters->emitted == 25);
  const auto dead = b.dead("test/flow/buried");
  REQUIRE(dead.size() == 5);
  CHECK(dead[0].step == "to");
  CHECK(dead[0].reason == "not now");
  CHECK(dead[0].attempts == 2);
  CHECK(b.balanced());
}

TEST_CASE("a drain does not wait for a sink's next attempt", "[engine][delivery]") {
  flow_bench b;
  const registry real = b.components;
  const auto refusals = std::make_shared<std::atomic<int>>(1000);
  b.components = with_sink(real, "drop", registry::make_sink([=](const config::value&, const component_context&) {
                             return std::make_unique<reluctant_sink>(refusals);
                           }));
  b.append("in", {"{\"n\":1}"});
  const auto run = b.make("test/flow/f", b.parse("from: {topic: in}\nto: drop\ndelivery: {attempts: 9, backoff: 1h}"));
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  while (b.counters->redelivered == 0) std::this_thread::yield();
  run->request_drain();
  CHECK(ended.get().reason == "to drop: not now");
}

TEST_CASE("state that no longer fits its step is dropped", "[engine]") {
  flow_bench b;
  b.topic("out");
  b.write_file("in.ndjson", numbers(1, 4));
  const auto run = [&](const std::string& input, const std::string& key) {
    b.write_file(input, numbers(1, 4));
    const std::string from = "from: {file: " + input + "}\n";
    return b.run("test/flow/f", from + "steps:\n  - dedupe: {key: " + key + "}\n    name: once\nto: {topic: out}").reason;
  };
  CHECK(run("a.ndjson", "event.n") == "");
  CHECK(b.content("out").size() == 4);
  CHECK(run("b.ndjson", "event.n") == "");
  CHECK(b.content("out").size() == 4);
  CHECK(run("c.ndjson", "event.n + 0") == "");
  CHECK(b.content("out").size() == 8);
  const auto kept = b.flows.load("test/flow/f").steps;
  CHECK(std::count_if(kept.begin(), kept.end(), [](const state_entry& e) { return e.step == "once"; }) == 4);
}

TEST_CASE("a tap shows what passes, and loses rather than waits", "[engine][tap]") {
  flow_bench b;
  const auto taps = std::make_shared<flow_taps>();
  b.write_file("in.ndjson", numbers(1, 3000));
  const auto all = taps->listen({.after = "filter_1", .where = "event.n > 10", .rate = 10'000}, b.pool.get_executor());
  const auto few = taps->listen({.after = "from", .where = {}, .rate = 5}, b.pool.get_executor());
  dataflow_options options;
  options.pipeline = "test";
  options.consumer = "test/flow/f";
  options.workdir = b.dir.path();
  options.definition = b.shared("from: {file: in.ndjson}\nsteps: [{filter: event.n % 2 == 0}]\nto: drop");
  options.taps = taps;
  options.counters = b.counters;
  dataflow_run run(asio::make_strand(b.pool.get_executor()), b.components, b.offered, std::move(options));
  CHECK(wait_for(b.pool, run.run()).reason == "");

  const auto far = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  const auto seen = wait_for(b.pool, all->next(far));
  CHECK(seen.size() == tap::most_waiting);
  CHECK(all->lost() == 1495 - static_cast<std::int64_t>(tap::most_waiting));
  CHECK_THAT(seen.at(0), Contains("\"after\":\"filter_1\"") && Contains("\"data\":{\"n\":12}"));
  CHECK(wait_for(b.pool, few->next(far)).size() <= 15);
  CHECK(few->lost() >= 2985);
  taps->close();
  CHECK(wait_for(b.pool, few->next(far)).empty());
  CHECK(few->closed());
  CHECK_FALSE(taps->wanted());
}

TEST_CASE("steps that take an event together do what they do one after the other", "[engine]") {
  flow_bench b;
  add_test_steps(b.components);
  std::string lines;
  for (int n = 1; n <= 200; ++n) {
    lines += n % 50 == 0 ? "{broken " + std::to_string(n) + "\n" : "{\"n\":" + std::to_string(n) + ",\"deep\":{\"n\":1}}\n";
  }
  b.write_file("in.ndjson", lines);
  std::vector<std::string> expected, expected_big;
  for (int n = 1; n <= 200; ++n) {
    if (n % 50 == 0 || n % 2 == 1 || n % 7 == 0) continue;
    const std::string payload = "{\"n\":" + std::to_string(n) + ",\"half\":" + std::to_string(n / 2) + "}";
    if (n / 2 > 80) {
      expected_big.push_back(payload);
    } else {
      expected.push_back(payload);
    }
  }
  // Between two rows of such steps stands one that is not.
  const std::string steps =
      "steps:\n  - filter: event.n % 2 == 0\n  - map: {n: event.n, half: event.n // 2, seven: \"event.n % 7 == 0 and {} + 1 or nil\"}\n"
      "  - select: [n, half]\n  - filter: event.half > 0\n  - route: {big: event.half > 80}\n";
  for (const char* parallel : {"1", "3"}) {
    const std::string out = std::string("out") + parallel, big = std::string("big") + parallel;
    b.topic(out);
    b.topic(big);
    b.counters = std::make_shared<dataflow_counters>();
    const auto ended = b.run("test/flow/" + out, "from: {file: in.ndjson}\n" + steps + "to: {topic: " + out + "}\noutputs: {big: {topic: " +
                                                     big + "}}\nparallel: " + parallel);
    REQUIRE(ended.reason == "");
    CHECK(b.content(out) == expected);
    CHECK(b.content(big) == expected_big);
    CHECK(b.balanced());
    const auto counts = [&](std::size_t step) {
      const auto& c = *b.counters->steps.at(step);
      CHECK(c.busy_ns > 0);
      return std::vector<std::int64_t>{c.received, c.emitted, c.filtered, c.dead};
    };
    using v = std::vector<std::int64_t>;
    CHECK(counts(0) == v{200, 96, 100, 4});  // every fiftieth is broken
    CHECK(counts(1) == v{96, 82, 0, 14});
    CHECK(counts(2) == v{82, 82, 0, 0});
    CHECK(counts(3) == v{82, 82, 0, 0});
    CHECK(counts(4) == v{82, 82, 0, 0});
    std::map<std::string, int> dead;
    for (const auto& letter : b.dead("test/flow/" + out)) ++dead[letter.step];
    CHECK(dead == std::map<std::string, int>{{"filter_1", 4}, {"map_2", 14}});
  }
}

}  // namespace test_flow_engine
