// Tries to make a dataflow lose or double events. Method: every component is wrapped so that it throws at
// random places (after reading, between steps, before the sink's write, after it, before the
// acknowledgement), each failure is followed by a new run with another batch size, until one gets through;
// what is stored then must equal an undisturbed run's output.
#include <algorithm>
#include <future>
#include <malloc.h>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/inputs.hpp"
#include "runtime/sqlite.hpp"
#include "runtime/wakeup.hpp"
#include "tests/runtime/flow_bench.hpp"
#include "tests/runtime/tripping.hpp"

namespace test_dataflow {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::run_to_the_end;
using penstock::testing::tripping;
using penstock::testing::tripping_source;
using penstock::testing::tripwire;
using penstock::testing::use;
using penstock::testing::wait_for;

namespace {

// 400 events; some to be filtered, some that a step or a sink cannot take.
std::vector<std::string> mixed_payloads() {
  std::vector<std::string> all;
  for (int n = 1; n <= 400; ++n) {
    if (n % 37 == 0) {
      all.push_back("[" + std::to_string(n) + "]");
    } else if (n % 41 == 0) {
      all.push_back("{\"n\": " + std::to_string(n));
    } else {
      all.push_back("{\"n\":" + std::to_string(n) + ",\"kind\":\"k" + std::to_string(n % 5) + "\"}");
    }
  }
  return all;
}

std::vector<std::string> table_rows(const std::filesystem::path& file, const std::string& table) {
  sqlite::connection db(file, sqlite::open_mode::read_only);
  sqlite::statement query(db, "SELECT n, kind FROM " + table + " ORDER BY rowid");
  std::vector<std::string> rows;
  while (query.step()) rows.push_back(std::to_string(query.integer(0)) + " " + std::string(query.text(1)));
  return rows;
}

// step, payload, reason of each dead letter, sorted.
using letters = std::vector<std::tuple<std::string, std::string, std::string>>;
letters letters_of(flow_bench& b, const std::string& consumer) {
  letters all;
  for (const dead_letter& d : b.dead(consumer)) all.emplace_back(d.step, d.data, d.reason);
  std::sort(all.begin(), all.end());
  return all;
}

// What a sink holds in the end, by the name of its output.
struct sink_case {
  std::string name;
  std::string to;  // YAML; OUT stands for the output's name
  std::function<std::vector<std::string>(flow_bench&, const std::string& out)> content;
};

std::vector<sink_case> sink_cases() {
  return {{"topic", "{topic: OUT}", [](flow_bench& b, const std::string& out) { return b.content(out); }},
          {"sqlite", "{sqlite: {file: out.db, table: OUT}}",
           [](flow_bench& b, const std::string& out) { return table_rows(b.dir / "out.db", out); }},
          {"file", "{file: OUT.ndjson}", [](flow_bench& b, const std::string& out) {
             return std::vector<std::string>{b.file_text(out + ".ndjson")};
           }}};
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  return text.replace(text.find(what), what.size(), by);
}

}  // namespace

TEST_CASE("failures at any place neither lose nor double events of a file", "[dataflow][exactly_once]") {
  for (const sink_case& c : sink_cases()) {
    flow_bench b;
    b.topic("calm");
    b.topic("stormy");
    std::string text;
    for (const std::string& line : mixed_payloads()) text += line + "\n";
    b.write_file("in.ndjson", text);
    const std::string yaml = "from: {file: in.ndjson}\nsteps:\n  - filter: event.n % 3 ~= 0\nto: " + c.to;
    const std::string calm = replaced(yaml, "OUT", "calm");
    REQUIRE(b.run("test/flow/calm", calm).reason == "");
    const auto expected = c.content(b, "calm");
    const letters expected_dead = letters_of(b, "test/flow/calm");
    REQUIRE(expected_dead.size() >= 10);
    const registry real = b.components;

    std::set<std::string> tripped;
    for (unsigned seed = 1; seed <= 6; ++seed) {
      INFO(c.name << " seed " << seed);
      const auto wire = std::make_shared<tripwire>(seed, 12);
      const std::string out = "stormy" + std::to_string(seed);
      b.topic(out);
      b.components = tripping(real, wire);
      const std::string consumer = "test/flow/" + out;
      const config::dataflow definition = b.parse(replaced(yaml, "OUT", out));
      const int failures = run_to_the_end(b, *wire, [&] { return b.make(consumer, definition); });
      CHECK(failures > 0);
      CHECK(c.content(b, out) == expected);
      CHECK(letters_of(b, consumer) == expected_dead);
      CHECK(b.balanced());
      tripped.insert(wire->tripped.begin(), wire->tripped.end());
      b.components = real;
    }
    CHECK(tripped.size() >= 6);
  }
}

TEST_CASE("failures at any place neither lose nor double events of a claim", "[dataflow][exactly_once]") {
  for (const sink_case& c : sink_cases()) {
    flow_bench b;
    b.append("in", mixed_payloads());
    const std::string yaml = "from: {topic: in}\nsteps: [{dedupe: event.kind .. event.n % 50}]\nto: " + c.to;
    std::vector<std::string> contents[2];
    letters dead[2];
    const registry real = b.components;
    for (const unsigned one_in : {0U, 9U}) {
      const int i = one_in == 0 ? 0 : 1;
      INFO(c.name << " one in " << one_in);
      const auto wire = std::make_shared<tripwire>(7, one_in);
      const std::string out = "out" + std::to_string(i);
      b.topic(out);
      b.components = tripping(real, wire);
      const config::dataflow definition = b.parse(replaced(yaml, "OUT", out));
      const int failures = run_to_the_end(b, *wire, [&] {
        topic_claim claim(b.topic("in"), 20, 380, false);
        const auto strand = asio::make_strand(b.pool.get_executor());
        return b.make_on(strand, "test/run/" + out + "/main", definition,
                         std::make_unique<tripping_source>(claim.make_source(strand), wire));
      });
      CHECK((failures > 0) == (one_in > 0));
      contents[i] = c.content(b, out);
      dead[i] = letters_of(b, "test/run/" + out + "/main");
      b.components = real;
    }
    CHECK_FALSE(contents[0].empty());
    CHECK(contents[0] == contents[1]);
    CHECK(dead[0] == dead[1]);
    CHECK_FALSE(dead[0].empty());
  }
}

TEST_CASE("the counters say what became of every event", "[dataflow]") {
  flow_bench b;
  b.topic("out");
  std::string text;
  for (const std::string& line : mixed_payloads()) text += line + "\n";
  b.write_file("in.ndjson", text);
  const auto outcome =
      b.run("test/flow/f",
            "from: {file: in.ndjson}\nsteps:\n  - filter: event.n % 2 == 0\n  - dedupe: event.kind\n"
            "to: {topic: out}");
  CHECK(outcome.reason == "");
  CHECK(b.counters->received == 400);
  CHECK(b.counters->emitted == 5);
  CHECK(b.counters->dead == static_cast<std::int64_t>(b.dead().size()));
  CHECK(b.counters->filtered > 150);
  CHECK(b.counters->duplicates > 150);
  CHECK(b.balanced());
  CHECK(b.counters->batches == 4);
}

TEST_CASE("a script that makes more events than it takes keeps the balance", "[dataflow]") {
  flow_bench b;
  b.topic("out");
  const auto outcome =
      b.run("test/flow/f",
            "from: {generate: {count: 10}}\nsteps:\n  - script: |\n      emit({n = event.n * 10})\n"
            "      emit({n = event.n * 100})\nto: {topic: out}");
  CHECK(outcome.reason == "");
  CHECK(b.content("out").size() == 30);
  CHECK(b.counters->received == 30);
  CHECK(b.balanced());
}

TEST_CASE("a failure names the component that failed", "[dataflow]") {
  flow_bench b;
  b.topic("orders");
  CHECK_THAT(b.run("test/flow/a", "from: {topic: ordes}\nto: drop").reason,
             Contains("from topic: no topic 'ordes'; nearest is 'orders'"));
  CHECK_THAT(b.run("test/flow/b", "from: {generate: {count: 1}}\nto: {topic: order}").reason,
             Contains("to topic: no topic 'order'; nearest is 'orders'"));
  CHECK_THAT(b.run("test/flow/c", "from: {file: missing.csv}\nto: drop").reason,
             Contains("from file: cannot open") && Contains("missing.csv: No such file"));
  config::dataflow headless = b.parse("from: {generate: {count: 1}}\nto: drop");
  headless.from.reset();
  CHECK(b.run("test/flow/d", headless).end == dataflow_end::failed);
  config::dataflow endless = b.parse("from: {generate: {count: 1}}\nto: drop");
  endless.to.reset();
  CHECK(b.run("test/flow/e", endless).end == dataflow_end::failed);
}

TEST_CASE("a flow that never waits can be drained and leaves its strand to others", "[dataflow]") {
  flow_bench b;
  const auto strand = asio::make_strand(b.pool.get_executor());
  const auto run = b.make_on(strand, "test/flow/f", b.parse("from: generate\nto: drop"));
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  std::promise<void> turn;
  asio::post(strand, [&] { turn.set_value(); });
  turn.get_future().wait();
  run->request_drain();
  CHECK(ended.get().end == dataflow_end::drained);
  CHECK(b.balanced());
}

TEST_CASE("a drain under load loses nothing and the next start goes on", "[dataflow]") {
  flow_bench b;
  const auto out = b.topic("out");
  const config::dataflow definition = b.parse("from: generate\nto: {topic: out}");
  for (const std::int64_t enough : {1'000, 5'000, 9'000}) {
    std::promise<void> reached;
    std::atomic<bool> told{false};
    const auto token = out->subscribe([&](std::int64_t last) {
      if (last >= enough && !told.exchange(true)) reached.set_value();
    });
    const auto run = b.make("test/flow/f", definition);
    auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
    reached.get_future().wait();
    run->request_drain();
    run->request_drain();
    CHECK(ended.get().end == dataflow_end::drained);
  }
  const auto all = b.content("out");
  CHECK(all.size() >= 9'000);
  for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(all[i] == "{\"n\":" + std::to_string(i + 1) + "}");
  CHECK(b.counters->emitted == static_cast<std::int64_t>(all.size()));
}

TEST_CASE("a drain that is asked for before the start still ends the run", "[dataflow]") {
  flow_bench b;
  b.topic("in");
  const auto run = b.make("test/flow/f", b.parse("from: {topic: in}\nto: drop"));
  run->request_drain();
  CHECK(wait_for(b.pool, run->run()).end == dataflow_end::drained);
}

TEST_CASE("a flow whose input changes its name starts at that input's beginning", "[dataflow]") {
  flow_bench b;
  b.topic("out");
  b.write_file("long.ndjson", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
  b.write_file("short.ndjson", "{\"n\":4}\n");
  for (int twice = 0; twice < 2; ++twice) {
    CHECK(b.run("test/flow/f", "from: {file: long.ndjson}\nto: {topic: out}").reason == "");
    CHECK(b.run("test/flow/f", "from: {file: short.ndjson}\nto: {topic: out}").reason == "");
  }
  // The second time round the sink recognises what it has.
  CHECK(b.content("out") == std::vector<std::string>{"{\"n\":1}", "{\"n\":2}", "{\"n\":3}", "{\"n\":4}"});
}

TEST_CASE("nothing is written to the flow store when there is nothing to say", "[dataflow]") {
  flow_bench b;
  const auto outcome =
      b.run("test/flow/f", "from: {generate: {count: 0001}}\nsteps: [{filter: 'false'}]\nto: drop");
  CHECK(outcome.reason == "");
  REQUIRE(b.flows.cursors().size() == 1);  // a position was read, so it is kept although nothing passed
  CHECK(b.flows.cursors().front().second == 1);

  const auto empty =
      b.make("test/run/r/main", b.parse("from: {generate: {count: 1}}\nto: drop"), make_empty_source());
  CHECK(wait_for(b.pool, empty->run()).end == dataflow_end::input_ended);
  CHECK(b.flows.cursors().size() == 1);
}

TEST_CASE("an idle flow costs little memory and nothing runs", "[dataflow]") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  WARN("memory is not measured under a sanitizer");
  return;
#endif
  testing::temp_dir dir;
  asio::io_context io;
  blocking_pool blocking{1};
  topics all{dir / "topics", io.get_executor()};
  flow_store store{dir / "flows.db", io.get_executor()};
  webhooks hooks;
  subscribers streams;
  services offered{all, store, hooks, streams, blocking, {}};
  const registry components = make_registry();
  all.declare({.name = "in", .retain = {}, .max_bytes = {}, .dedupe = {}});
  all.declare({.name = "out", .retain = {}, .max_bytes = {}, .dedupe = {}});
  const auto definition = std::make_shared<const config::dataflow>(testing::parse_flow(
      components,
      "from: {topic: in}\nsteps:\n  - filter: event.n > 1\n  - map: {n: event.n}\nto: {topic: out}"));

  std::vector<std::unique_ptr<dataflow_run>> runs;
  int ended = 0;
  const auto start = [&](int count) {
    for (int i = 0; i < count; ++i) {
      dataflow_options options;
      options.pipeline = "test";
      options.consumer = "test/flow/f" + std::to_string(runs.size());
      options.workdir = dir.path();
      options.definition = definition;
      runs.push_back(std::make_unique<dataflow_run>(asio::make_strand(io.get_executor()), components, offered,
                                                    std::move(options)));
      asio::co_spawn(io, runs.back()->run(), [&](std::exception_ptr, dataflow_outcome) { ++ended; });
    }
    io.restart();
    while (io.poll() > 0) {
    }
  };
  start(10);  // what the first ones make is shared by all
  const auto before = ::mallinfo2().uordblks;
  constexpr int flows = 500;
  start(flows);
  const auto each = (::mallinfo2().uordblks - before) / flows;
  CHECK(each <= 9 * 1024);  // of 16 KiB: its supervisor, counters and taps come to it
  INFO("bytes per idle flow: " << each);
  CHECK(io.poll() == 0);

  for (const auto& run : runs) run->request_drain();
  io.restart();
  while (ended < flows + 10) io.run_one();
  all.close();
  store.close();
}

// ---------------------------------------------------------------------------------------------------------------

namespace {

// A flow that reads an (empty) topic, running until the test ends.
struct live_flow {
  live_flow(flow_bench& b, const std::string& yaml) : bench(b), run(b.make("test/flow/f", b.parse(yaml))) {
    ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  }
  dataflow_outcome drain() {
    run->request_drain();
    return ended.get();
  }
  result<std::int64_t> replay(const std::vector<dead_letter>& dead) {
    batch events;
    std::vector<std::string> ids;
    for (const dead_letter& d : dead) {
      event e;
      e.id = events.keep(d.event_id);
      e.source = events.keep(d.source);
      e.type = events.keep(d.type);
      e.data = events.keep(d.data);
      e.position = d.position;
      events.events.push_back(e);
      ids.push_back(d.id);
    }
    return wait_for(bench.pool, run->replay(std::move(events), std::move(ids)));
  }

  flow_bench& bench;
  std::unique_ptr<dataflow_run> run;
  std::future<dataflow_outcome> ended;
};

// The flow has read everything up to `offset`: a first replay of nothing waits for its turn, the cursor tells
// the rest.
void until_passed(flow_bench& b, std::int64_t count) {
  const auto out = b.topic("passed");
  std::promise<void> reached;
  std::atomic<bool> told{false};
  const auto token = out->subscribe([&](std::int64_t last) {
    if (last >= count && !told.exchange(true)) reached.set_value();
  });
  if (out->last_offset() >= count && !told.exchange(true)) reached.set_value();
  reached.get_future().wait();
}

}  // namespace

TEST_CASE("a replayed event goes on at the step where it died", "[dataflow][replay]") {
  flow_bench b;
  b.topic("passed");
  b.append("in", {"{\"a\":1}", "{\"a\":\"x\"}", "{\"a\":3}"});
  const auto yaml = [](const std::string& mapping) {
    return "from: {topic: in}\nsteps:\n  - dedupe: event.a\n  - map: {b: event.a}\n  - map: {c: '" + mapping +
           "'}\nto: {topic: passed}";
  };
  {
    live_flow first(b, yaml("event.b + 1"));
    until_passed(b, 2);
    CHECK(first.drain().reason == "");
  }
  auto dead = b.dead();
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].step == "map_3");
  CHECK(dead[0].data == "{\"b\":\"x\"}");
  CHECK(dead[0].attempts == 1);
  {
    live_flow unmended(b, yaml("event.b + 1"));
    auto again = unmended.replay(dead);
    while (!again) again = unmended.replay(dead);
    CHECK(*again == 1);
    CHECK(b.dead().size() == 1);
    CHECK(b.dead()[0].attempts == 2);
    CHECK(b.dead()[0].position == dead[0].position);
    CHECK(unmended.drain().reason == "");
  }
  {
    live_flow mended(b, yaml("tonumber(event.b) or 0"));
    auto again = mended.replay(b.dead());
    while (!again) again = mended.replay(b.dead());
    CHECK(*again == 0);
    CHECK(b.dead().empty());
    CHECK(mended.drain().reason == "");
  }
  CHECK(b.content("passed") == std::vector<std::string>{"{\"c\":2}", "{\"c\":4}", "{\"c\":0}"});
  CHECK(b.balanced());
}

TEST_CASE("a replay that the sink cannot take changes nothing and restarts the run", "[dataflow][replay]") {
  flow_bench b;
  b.topic("passed");
  b.append("in", {"{\"a\":1}", "{\"a\":\"x\"}"});
  const std::string yaml = "from: {topic: in}\nsteps:\n  - map: {c: event.a + 1}\nto: {topic: passed}";
  {
    live_flow first(b, yaml);
    until_passed(b, 1);
    CHECK(first.drain().reason == "");
  }
  REQUIRE(b.dead().size() == 1);
  const registry real = b.components;

  class failing_sink final : public sink {
   public:
    asio::awaitable<void> open(const std::string&) override { co_return; }
    asio::awaitable<write_result> write(std::shared_ptr<const batch>) override {
      throw std::runtime_error("the sink is down");
      co_return write_result{};
    }
    asio::awaitable<void> close() override { co_return; }
  };
  b.components = testing::with_sink(real, "topic",
                                    registry::make_sink([](const config::value&, const component_context&) {
                                      return std::make_unique<failing_sink>();
                                    }));
  {
    live_flow flow(b, "from: {topic: in}\nsteps:\n  - map: {c: event.a}\nto: {topic: passed}");
    auto replayed = flow.replay(b.dead());
    while (!replayed && replayed.error().detail == "the flow is not at work")
      replayed = flow.replay(b.dead());
    REQUIRE(!replayed);
    CHECK(replayed.error().code == errc::unavailable);
    CHECK_THAT(replayed.error().detail, Contains("the sink is down"));
    const dataflow_outcome outcome = flow.ended.get();
    CHECK(outcome.end == dataflow_end::failed);
    CHECK_THAT(outcome.reason, Contains("to topic: the sink is down"));
    CHECK(flow.replay(b.dead()).error().code == errc::unavailable);
  }
  b.components = real;
  CHECK(b.dead().size() == 1);
  CHECK(b.content("passed").size() == 1);
}

TEST_CASE("an input that fails while a replay is at the sink waits for it", "[dataflow][replay]") {
  struct shared_state {
    std::shared_ptr<wakeup> fail, let_go;
    std::promise<void> writing;
  };
  class failing_source final : public source {
   public:
    explicit failing_source(std::shared_ptr<shared_state> s) : state_(std::move(s)) {}
    asio::awaitable<void> open(std::int64_t) override { co_return; }
    asio::awaitable<std::optional<batch>> read(std::size_t) override {
      co_await state_->fail->wait();
      throw std::runtime_error("the input broke");
    }
    void stop_input() override {}

   private:
    std::shared_ptr<shared_state> state_;
  };
  class slow_sink final : public sink {
   public:
    explicit slow_sink(std::shared_ptr<shared_state> s) : state_(std::move(s)) {}
    asio::awaitable<void> open(const std::string&) override { co_return; }
    asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
      state_->writing.set_value();
      co_await state_->let_go->wait();
      CHECK(events->size() == 1);
      co_return write_result{};
    }
    asio::awaitable<void> close() override { co_return; }

   private:
    std::shared_ptr<shared_state> state_;
  };

  flow_bench b;
  const auto strand = asio::make_strand(b.pool.get_executor());
  const auto shared = std::make_shared<shared_state>();
  shared->fail = std::make_shared<wakeup>(strand);
  shared->let_go = std::make_shared<wakeup>(strand);
  const registry real = b.components;
  b.components = testing::with_sink(real, "drop",
                                    registry::make_sink([=](const config::value&, const component_context&) {
                                      return std::make_unique<slow_sink>(shared);
                                    }));
  const auto run = b.make_on(strand, "test/flow/f", b.parse("from: generate\nto: drop"),
                             std::make_unique<failing_source>(shared));
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  const auto one_event = [] {
    batch events;
    event e;
    e.id = events.keep("a");
    e.data = events.keep("{}");
    events.events.push_back(e);
    return events;
  };
  // Until the run is at work; the first replay that gets in stays at the sink.
  std::future<result<std::int64_t>> replayed;
  auto writing = shared->writing.get_future();
  do {
    replayed = asio::co_spawn(b.pool, run->replay(one_event(), {}), asio::use_future);
    while (writing.wait_for(std::chrono::seconds{0}) != std::future_status::ready &&
           replayed.wait_for(std::chrono::seconds{0}) != std::future_status::ready) {
    }
  } while (writing.wait_for(std::chrono::seconds{0}) != std::future_status::ready);
  shared->fail->notify();
  std::promise<void> failed;
  asio::post(strand, [&] { asio::post(strand, [&] { failed.set_value(); }); });
  failed.get_future().wait();
  shared->let_go->notify();
  CHECK(replayed.get().has_value());
  CHECK(ended.get().reason == "from generate: the input broke");
  CHECK(b.counters->emitted == 1);
}

}  // namespace test_dataflow
