// Several topics read as one stream: order, positions, and that each event goes through exactly once whatever fails.
#include <future>
#include <map>
#include <set>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/topics_read.hpp"
#include "tests/runtime/tripping.hpp"

namespace test_topics_source {

using namespace penstock;
using namespace penstock::testing;
using namespace penstock::runtime;
using Catch::Matchers::Contains;

namespace {

using texts = std::vector<std::string>;

// Appends one event; `second` is its time.
void put(flow_bench& b, const std::string& topic, const std::string& id, int second) {
  auto events = std::make_shared<batch>();
  event e;
  e.id = events->keep(id);
  e.source = "/elsewhere";
  e.type = "event";
  e.time = from_micros(1'000'000LL * (1'700'000'000 + second));
  e.data = events->keep("{\"id\":\"" + id + "\"}");
  events->events.push_back(e);
  const auto to = b.topic(topic);
  REQUIRE(wait_for(b.pool, to->append(events)).has_value());
}

// Runs a live flow until `enough` says so, then drains it.
template <class Enough>
dataflow_outcome run_until(flow_bench& b, const std::string& consumer, const config::dataflow& definition, Enough enough) {
  const auto run = b.make(consumer, definition);
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  while (!enough() && ended.wait_for(std::chrono::milliseconds{0}) != std::future_status::ready) std::this_thread::yield();
  run->request_drain();
  return ended.get();
}

dataflow_outcome run_until_count(flow_bench& b, const std::string& consumer, const std::string& yaml,
                                 const std::string& out, std::int64_t count) {
  const auto to = b.topic(out);
  return run_until(b, consumer, b.parse(yaml), [&] { return to->last_offset() >= count; });
}

}  // namespace

TEST_CASE("of several topics the earliest event comes first, and each knows its topic", "[sources]") {
  flow_bench b;
  put(b, "a", "a1", 10);
  put(b, "a", "a2", 5);  // out of order within its topic: stays behind a1
  put(b, "a", "a3", 40);
  put(b, "b", "b1", 1);
  put(b, "b", "b2", 20);
  put(b, "c", "c1", 20);
  const auto outcome = run_until_count(b, "test/flow/f",
                                       "from: {topics: [a, b, c]}\nsteps:\n  - map: {id: event.id, topic: meta.topic, at: "
                                       "meta.position}\nto: {topic: out}",
                                       "out", 6);
  CHECK(outcome.end == dataflow_end::drained);
  CHECK(b.content("out") == texts{R"({"id":"b1","topic":"b","at":1})", R"({"id":"a1","topic":"a","at":2})",
                                  R"({"id":"a2","topic":"a","at":3})", R"({"id":"b2","topic":"b","at":4})",
                                  R"({"id":"c1","topic":"c","at":5})", R"({"id":"a3","topic":"a","at":6})"});
  REQUIRE(b.flows.cursors().size() == 1);
  CHECK(b.flows.cursors().front().second == 6);
  CHECK(offset_read(b.flows, "test/flow/f", 6, "a") == 3);
  CHECK(offset_read(b.flows, "test/flow/f", 6, "c") == 1);
  CHECK(offset_read(b.flows, "test/flow/f", 0, "a") == 0);
  CHECK_FALSE(offset_read(b.flows, "test/flow/f", 6, "x"));
}

TEST_CASE("each event of several topics leaves exactly once, whatever fails", "[sources][exactly_once]") {
  flow_bench b;
  const registry real = b.components;
  std::set<std::string> tripped;
  for (unsigned seed = 1; seed <= 8; ++seed) {
    INFO("seed " << seed);
    const auto wire = std::make_shared<tripwire>(seed, 9);
    const std::string n = std::to_string(seed), out = "out" + n;
    std::map<std::string, texts> expected;
    int put_so_far = 0;
    const auto put_some = [&](int count) {
      for (; count > 0; --count) {
        const std::string topic(1, static_cast<char>('a' + wire->number() % 3)), id = topic + std::to_string(++put_so_far);
        put(b, topic + n, id, static_cast<int>(wire->number() % 100));
        expected[topic].push_back("{\"id\":\"" + id + "\"}");
      }
    };
    for (const char* topic : {"a", "b", "c"}) b.topic(topic + n);
    put_some(80);
    const auto to = b.topic(out);
    b.components = tripping(real, wire);
    const auto definition = b.parse("from: {topics: [a" + n + ", b" + n + ", c" + n + "]}\nto: {topic: " + out + "}");
    int failures = 0;
    while (true) {
      b.batch_events = 1 + wire->number() % 20;
      const auto outcome = run_until(b, "test/flow/" + out, definition, [&] { return to->last_offset() >= put_so_far; });
      if (outcome.end == dataflow_end::drained) break;
      CHECK_THAT(outcome.reason, Contains("injected"));
      // More has come when it starts again, so what is at hand is not what it was.
      if (++failures <= 10) put_some(5);
    }
    std::map<std::string, texts> got;
    for (const std::string& payload : b.content(out)) got[payload.substr(7, 1)].push_back(payload);
    CHECK(got == expected);
    CHECK(failures > 0);
    tripped.insert(wire->tripped.begin(), wire->tripped.end());
    b.components = real;
  }
  CHECK(tripped.contains("after write"));
  CHECK(tripped.contains("before write"));
  CHECK(tripped.contains("read"));
}

TEST_CASE("with another list of topics those that stay go on", "[sources]") {
  flow_bench b;
  put(b, "a", "a1", 1);
  put(b, "b", "b1", 2);
  put(b, "c", "c1", 3);
  const auto go = [&](const std::string& from, std::int64_t count) {
    const auto outcome = run_until_count(b, "test/flow/f", "from: {" + from + "}\nto: {topic: out}", "out", count);
    INFO(outcome.reason);
    CHECK(outcome.end == dataflow_end::drained);
  };
  go("topics: [a, b]", 2);
  put(b, "a", "a2", 4);
  go("topics: [c, a]", 4);  // b goes, c is new
  put(b, "a", "a3", 5);
  put(b, "b", "b2", 6);
  go("topics: {topics: [a, b], start: end}", 5);  // b was forgotten: begins with what arrives after the start
  CHECK(b.content("out") == texts{R"({"id":"a1"})", R"({"id":"b1"})", R"({"id":"c1"})", R"({"id":"a2"})", R"({"id":"a3"})"});
  go("topic: a", 8);  // another source begins anew
  put(b, "a", "a4", 7);
  put(b, "b", "b3", 8);
  // Back again: on from where it was. Whether its last batch was safe is not known any more, so that comes again.
  go("topics: [a, b]", 11);
  CHECK(b.content("out").size() == 11);
  CHECK(b.content("out").back() == R"({"id":"b3"})");
}

TEST_CASE("topics that are not there, are twice, or are older copies", "[sources]") {
  flow_bench b;
  b.topic("orders");
  b.topic("out");
  const auto failure = [&](const std::string& from) {
    return run_until(b, "test/flow/f", b.parse("from: {topics: " + from + "}\nto: {topic: out}"), [] { return false; }).reason;
  };
  CHECK_THAT(failure("[orders, order]"), Contains("no topic 'order'") && Contains("orders"));
  CHECK_THAT(failure("[orders, orders]"), Contains("twice"));
  put(b, "orders", "1", 1);
  CHECK(run_until_count(b, "test/flow/f", "from: {topics: [orders]}\nto: {topic: out}", "out", 1).end == dataflow_end::drained);
  b.topics.remove("orders");
  b.topic("orders");
  CHECK_THAT(failure("[orders]"), Contains("older copy"));
}

TEST_CASE("events that were removed while they were being read again", "[sources]") {
  flow_bench b;
  b.topic("out");
  put(b, "a", "a1", 1);
  put(b, "b", "b1", 2);
  // As if the daemon had been killed with this batch under way.
  topics_read under_way{0, 3, {{"a", {0, 1}}, {"b", {0, 2}}}};
  commit before{"test/flow/f", 0, "", {}, {}, {}};
  before.steps.push_back({engine_state, std::string(source_record) + "topics", under_way.text()});
  before.steps.push_back({engine_state, "input", std::string("topics")});
  wait_for(b.pool, b.flows.save(before));
  CHECK(run_until_count(b, "test/flow/f", "from: {topics: [a, b]}\nto: {topic: out}", "out", 2).end ==
        dataflow_end::drained);
  CHECK(b.content("out") == texts{R"({"id":"a1"})", R"({"id":"b1"})"});
  CHECK(b.flows.cursors().front().second == 5);  // beyond what the lost batch may have used
  CHECK_THROWS_WITH(topics_read::of("{\"position\":1}"), Contains("damaged"));
  CHECK_THROWS_WITH(topics_read::of("rubbish"), Contains("damaged"));
}

TEST_CASE("what arrives while a batch is made does not change its order", "[sources]") {
  flow_bench b;
  for (int n = 1; n <= 5; ++n) put(b, "a", "a" + std::to_string(n), 10 + n);
  b.topic("b");
  asio::thread_pool pool{1};
  const auto strand = asio::make_strand(pool.get_executor());
  const component_context context{b.offered, "test", "test/flow/f", b.dir.path(), strand};
  const auto from = b.parse("from: {topics: [a, b]}\nto: drop").from;
  const auto first = b.components.source_of(*from, context);
  wait_for(pool, first->open(0));
  const auto begun = wait_for(pool, first->read(2));
  REQUIRE(begun);
  CHECK(begun->size() == 2);
  put(b, "b", "b1", 1);  // earlier than all that is left
  const auto next = wait_for(pool, first->read(10));
  REQUIRE(next);
  REQUIRE(next->size() == 4);
  const auto again = b.components.source_of(*from, context);
  again->recall(first->record(), 2);
  wait_for(pool, again->open(2));
  const auto repeated = wait_for(pool, again->read(1));
  REQUIRE(repeated);
  REQUIRE(repeated->size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(repeated->events[i].id == next->events[i].id);
    CHECK(repeated->events[i].position == next->events[i].position);
  }
  pool.join();
}

}  // namespace test_topics_source
