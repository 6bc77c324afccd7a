// The step `window`, made from YAML as a person writes it and fed event by event and batch by batch. Crashes go through what
// it asks to be stored: a restart with the last commit and one without it must go on as if nothing had happened. A plain
// model works the same windows out in another way, for random events in random batches with crashes between them.
#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/runtime/flow_bench.hpp"

namespace test_window {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;

namespace {

using texts = std::vector<std::string>;

struct window_outcome final : step_output {
  std::vector<std::pair<std::string, std::string>> died;  // id, reason
  texts late_ones;

  void dead(const event& e, std::string reason) override { died.emplace_back(e.id, std::move(reason)); }
  void duplicate(const event&) override {}
  void to_output(const event&, std::string_view) override {}
  void late(const event& e) override { late_ones.emplace_back(e.id); }
};

// One event, at so many seconds after the noon that all tests begin at.
struct sample {
  std::int64_t at_s = 0;
  std::string data = "{}";
};

constexpr std::int64_t second_us = 1'000'000;
const std::int64_t noon_us = to_micros(*parse_time("2018-02-07T12:00:00Z"));

// A step by itself, with the store that its changes would go to.
struct window_bench {
  flow_bench flow;
  std::map<std::string, std::string> stored;
  window_outcome out;
  std::unique_ptr<step> one;
  config::component_use use;
  std::int64_t fed = 0;

  explicit window_bench(const std::string& settings)
      : use(flow.parse("from: {generate: {count: 1}}\nsteps:\n  - window: " + settings + "\nto: drop").steps.at(0)) {
    restart();
  }

  // What is not committed is lost.
  void restart() {
    component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(), flow.pool.get_executor()};
    context.step = use.name;
    one = flow.components.step_of(use, context);
    std::vector<state_entry> entries;
    for (const auto& [key, value] : stored) entries.push_back({use.name, key, value});
    one->restore(entries);
  }

  std::size_t commit() {
    const auto changes = one->changes();
    for (const state_change& change : changes) {
      if (change.value)
        stored[change.key] = *change.value;
      else
        stored.erase(change.key);
    }
    return changes.size();
  }

  // The results as "POSITION DATA" of one batch.
  texts feed(const std::vector<sample>& given) {
    batch events;
    for (const sample& s : given) {
      event e;
      e.position = ++fed;
      e.id = events.keep("e" + std::to_string(fed));
      e.data = events.keep(s.data);
      e.time = from_micros(noon_us + s.at_s * second_us);
      events.events.push_back(e);
    }
    one->process(events, out);
    return shown(events);
  }
  texts feed_and_commit(const std::vector<sample>& given) {
    texts results = feed(given);
    commit();
    return results;
  }

  texts finish() {
    batch events;
    one->finish(events, out);
    return shown(events);
  }
  texts tick(timestamp now) {
    batch events;
    one->tick(now, events, out);
    return shown(events);
  }

  static texts shown(const batch& events) {
    texts found;
    for (const event& e : events.events) found.push_back(std::to_string(e.position) + " " + std::string(e.data));
    return found;
  }
};

// `{"key":KEY,"from":…,"until":…,"revision":N,REST}` with times in seconds after noon, behind its position.
std::string row(std::int64_t position, const std::string& key, std::int64_t from_s, std::int64_t until_s, int revision,
                const std::string& rest) {
  const auto time = [](std::int64_t at_s) { return format_time(from_micros(noon_us + at_s * second_us)); };
  return std::to_string(position) + " {\"key\":" + key + ",\"from\":\"" + time(from_s) + "\",\"until\":\"" +
         time(until_s) + "\",\"revision\":" + std::to_string(revision) + "," + rest + "}";
}

std::string count_of(int n) { return "\"count\":" + std::to_string(n); }

}  // namespace

TEST_CASE("a tumbling window's result leaves at the event that ends it", "[window]") {
  window_bench b("{tumbling: 1m, key: event.k}");
  const texts results = b.feed({{0, R"({"k":"b"})"},
                                {59, R"({"k":"a"})"},
                                {10, R"({"k":"b"})"},
                                {60, R"({"k":"b"})"},
                                {185, R"({"k":"a"})"}});
  CHECK(results == texts{row(4, "\"a\"", 0, 60, 1, count_of(1)), row(4, "\"b\"", 0, 60, 1, count_of(2)),
                         row(5, "\"b\"", 60, 120, 1, count_of(1))});
  CHECK(b.finish() == texts{row(0, "\"a\"", 180, 240, 1, count_of(1))});
  CHECK(b.finish().empty());
  CHECK(b.out.died.empty());
}

TEST_CASE("a result is an event of its own", "[window]") {
  window_bench b("{tumbling: 1m, key: event.k, aggregates: {events: count, top: {max: event.v}}}");
  batch events;
  for (const auto& [at_s, data] : std::vector<std::pair<int, std::string>>{
           {1, R"({"k":"ä\"b","v":2.5})"}, {2, R"({"k":["x",1],"v":7})"}, {3, R"({"v":1})"}, {100, "{}"}}) {
    event e;
    e.id = "i";
    e.type = "made";
    e.key = "other";
    e.datacontenttype = "application/json";
    e.data = events.keep(data);
    e.time = from_micros(noon_us + at_s * second_us);
    e.position = at_s;
    events.events.push_back(e);
  }
  b.one->process(events, b.out);
  REQUIRE(events.size() == 3);
  texts keys, ids;
  for (const event& e : events.events) {
    keys.emplace_back(e.key);
    ids.emplace_back(e.id);
    CHECK(e.type == "window");
    CHECK(e.source == "test/flow/f/" + b.use.name);
    CHECK(to_micros(e.time) == noon_us + 60 * second_us);
    CHECK(e.position == 100);
    CHECK(e.is_json());
    CHECK(e.id.size() == 32);
  }
  CHECK(keys == texts{"ä\"b", "[\"x\",1]", ""});
  std::sort(ids.begin(), ids.end());
  CHECK(std::unique(ids.begin(), ids.end()) == ids.end());
  CHECK(nlohmann::json::parse(events.events[1].data)["top"] == 7);
}

TEST_CASE("one key for equal numbers, one group without a key", "[window]") {
  window_bench b("{tumbling: 1m, key: event.k}");
  b.feed({{0, R"({"k":1})"}, {1, R"({"k":1.0})"}, {2, R"({"k":"1"})"}, {3, R"({"k":null})"}, {4, "{}"}, {5, R"({"k":true})"}});
  CHECK(b.finish() == texts{row(0, "\"1\"", 0, 60, 1, count_of(1)), row(0, "1", 0, 60, 1, count_of(2)),
                            row(0, "null", 0, 60, 1, count_of(2)), row(0, "true", 0, 60, 1, count_of(1))});
  window_bench none("{tumbling: 1m}");
  none.feed({{0, "broken"}, {1, ""}});
  CHECK(none.finish() == texts{row(0, "null", 0, 60, 1, count_of(2))});
}

TEST_CASE("sliding windows overlap", "[window]") {
  window_bench b("{sliding: {size: 1m, every: 20s}, aggregates: {sum: {sum: event}}}");
  CHECK(b.feed({{5, "1"}, {25, "10"}}) == texts{row(2, "null", -40, 20, 1, "\"sum\":1")});
  CHECK(b.feed({{61, "100"}}) ==
        texts{row(3, "null", -20, 40, 1, "\"sum\":11"), row(3, "null", 0, 60, 1, "\"sum\":11")});
  CHECK(b.finish() == texts{row(0, "null", 20, 80, 1, "\"sum\":110"), row(0, "null", 40, 100, 1, "\"sum\":100"),
                            row(0, "null", 60, 120, 1, "\"sum\":100")});
  window_bench uneven("{sliding: {size: 50s, every: 20s}}");
  uneven.feed({{5, "1"}});
  CHECK(uneven.finish() == texts{row(0, "null", -40, 10, 1, count_of(1)), row(0, "null", -20, 30, 1, count_of(1)),
                                 row(0, "null", 0, 50, 1, count_of(1))});
}

TEST_CASE("windows before 1970", "[window]") {
  window_bench b("{tumbling: 1h, time: event.t}");
  b.feed({{0, R"({"t":"1969-12-31T23:30:00Z"})"}, {0, R"({"t":-1})"}, {0, R"({"t":0})"}});
  const texts results = b.finish();
  REQUIRE(results.size() == 1);
  CHECK_THAT(results[0], Contains("\"from\":\"1970-01-01T00:00:00.000000Z\""));
  CHECK(b.out.died.empty());
}

TEST_CASE("the time is a text or milliseconds", "[window]") {
  window_bench b("{tumbling: 1m, time: event.t}");
  b.feed({{0, R"({"t":"2018-02-07T13:00:10+01:00"})"},
          {0, R"({"t":1518004811000})"},
          {0, R"({"t":1518004812000.5})"},
          {0, R"({"t":"yesterday"})"},
          {0, R"({"t":true})"},
          {0, "{}"},
          {0, R"({"t":1e300})"},
          {0, R"({"t":-9000000000000000000})"},
          {0, R"({"t":"0001-01-01T00:00:00Z"})"}});
  CHECK(b.finish() == texts{row(0, "null", 0, 60, 1, count_of(3))});
  REQUIRE(b.out.died.size() == 6);
  CHECK_THAT(b.out.died[0].second, Contains("RFC 3339") && Contains("\"yesterday\""));
  CHECK_THAT(b.out.died[5].second, Contains("years"));
}

TEST_CASE("delay holds the watermark back", "[window]") {
  window_bench b("{tumbling: 1m, delay: 10s}");
  CHECK(b.feed({{5}, {69}}).empty());
  CHECK(b.feed({{59}}).empty());
  CHECK(b.feed({{70}}) == texts{row(4, "null", 0, 60, 1, count_of(2))});
  CHECK(b.out.late_ones.empty());
}

TEST_CASE("late events correct what is kept, and go to late after that", "[window]") {
  window_bench b("{tumbling: 1m, lateness: 2m, aggregates: {n: count, v: {collect: event}}}");
  CHECK(b.feed({{0, "1"}, {65, "2"}}) == texts{row(2, "null", 0, 60, 1, R"("n":1,"v":[1])")});
  CHECK(b.feed({{59, "3"}, {1, "4"}}) == texts{row(3, "null", 0, 60, 2, R"("n":2,"v":[1,3])"),
                                               row(4, "null", 0, 60, 3, R"("n":3,"v":[1,3,4])")});
  CHECK(b.feed({{-1, "5"}}) == texts{row(5, "null", -60, 0, 1, R"("n":1,"v":[5])")});  // none had come for that one
  CHECK(b.feed({{179, "6"}, {0, "7"}}).size() == 2);
  CHECK(b.feed({{180, "8"}}) == texts{row(8, "null", 120, 180, 1, R"("n":1,"v":[6])")});
  CHECK(b.feed({{0, "9"}}).empty());
  CHECK(b.out.late_ones == texts{"e9"});
  b.commit();
  CHECK(b.feed({{100'000}}).size() == 1);
  b.commit();
  CHECK(b.stored.size() == 3);  // the newest window, its values and the watermark
}

TEST_CASE("without lateness every late event is told", "[window]") {
  window_bench b("{tumbling: 1m}");
  b.feed({{0}, {60}, {59}, {0}, {61}});
  CHECK(b.out.late_ones == texts{"e3", "e4"});
  window_bench sliding("{sliding: {size: 1m, every: 30s}}");
  // Too late for one of its windows, in time for the other.
  CHECK(sliding.feed({{0}, {60}, {40}}).size() == 2);
  CHECK(sliding.out.late_ones.empty());
}

TEST_CASE("sessions grow, join and end", "[window]") {
  window_bench b("{session: 10s, key: event, aggregates: {n: count}}");
  CHECK(b.feed({{0, "1"}, {9, "1"}, {5, "2"}, {18, "1"}}) == texts{row(4, "2", 5, 15, 1, "\"n\":1")});
  CHECK(b.feed({{27, "3"}}).empty());
  CHECK(b.feed({{28, "3"}}) == texts{row(6, "1", 0, 28, 1, "\"n\":3")});
  window_bench joined("{session: 10s, delay: 1h, aggregates: {n: count, all: {collect: event}}}");
  joined.feed({{0, "0"}, {15, "15"}, {40, "40"}, {8, "8"}, {10, "10"}, {50, "50"}, {-5, "-5"}});
  CHECK(joined.finish() == texts{row(0, "null", -5, 25, 1, R"("n":5,"all":[0,15,8,10,-5])"),
                                 row(0, "null", 40, 50, 1, R"("n":1,"all":[40])"),
                                 row(0, "null", 50, 60, 1, R"("n":1,"all":[50])")});
}

TEST_CASE("a session ends at its longest", "[window]") {
  window_bench b("{session: {gap: 10s, longest: 25s}, delay: 1h}");
  b.feed({{0}, {8}, {16}, {24}, {25}, {32}});
  CHECK(b.finish() == texts{row(0, "null", 0, 25, 1, count_of(4)), row(0, "null", 25, 42, 1, count_of(2))});
  window_bench between("{session: {gap: 10s, longest: 25s}, delay: 1h}");
  between.feed({{0}, {12}, {20}, {9}});  // joined they would be too long
  CHECK(between.finish() == texts{row(0, "null", 0, 12, 1, count_of(2)), row(0, "null", 12, 30, 1, count_of(2))});
}

TEST_CASE("a late event that joins sessions takes back what is no more", "[window]") {
  window_bench b("{session: 10s, lateness: 1h, aggregates: {n: count, top: {max: event}}}");
  CHECK(b.feed({{0, "1"}, {15, "2"}, {100, "3"}}) ==
        texts{row(2, "null", 0, 10, 1, R"("n":1,"top":1)"), row(3, "null", 15, 25, 1, R"("n":1,"top":2)")});
  CHECK(b.feed({{7, "5"}}) ==
        texts{row(4, "null", 15, 25, 2, R"("n":0,"top":null)"), row(4, "null", 0, 25, 2, R"("n":3,"top":5)")});
  // Its begin moves: the old one is taken back, the new one begins with revision 1.
  CHECK(b.feed({{-3, "4"}}) ==
        texts{row(5, "null", 0, 25, 3, R"("n":0,"top":null)"), row(5, "null", -3, 25, 1, R"("n":4,"top":5)")});
  // A closed session that grows beyond the watermark is open again.
  CHECK(b.feed({{92, "6"}}).empty());
  CHECK(b.feed({{200, "7"}}) == texts{row(7, "null", 92, 110, 1, R"("n":2,"top":6)")});
  CHECK(b.out.late_ones.empty());
}

TEST_CASE("a closed session that reaches beyond the watermark is open again", "[window]") {
  window_bench b("{session: 10s, lateness: 1h}");
  CHECK(b.feed({{0}, {11}}) == texts{row(2, "null", 0, 10, 1, count_of(1))});
  b.commit();
  b.restart();
  CHECK(b.feed({{9}}) == texts{});  // joins both: [0, 21) ends after the watermark
  CHECK(b.feed({{50}}) == texts{row(4, "null", 0, 21, 2, count_of(3))});
}

TEST_CASE("count windows", "[window]") {
  window_bench b("{count: 3, key: event.k, aggregates: {v: {collect: event.v}, first: {first: event.v}, m: {mean: event.v}}}");
  texts results;
  for (int i = 0; i < 7; ++i) {
    const std::string k = i % 2 == 0 ? "\"a\"" : "\"b\"";
    // Times run backwards: only the order of arrival counts.
    for (const auto& r : b.feed_and_commit({{-i, "{\"k\":" + k + ",\"v\":" + std::to_string(i) + "}"}})) results.push_back(r);
    b.restart();
  }
  CHECK(results == texts{R"(5 {"key":"a","sequence":1,"revision":1,"v":[0,2,4],"first":0,"m":2.0})",
                         R"(6 {"key":"b","sequence":1,"revision":1,"v":[1,3,5],"first":1,"m":3.0})"});
  CHECK(b.finish() == texts{R"(0 {"key":"a","sequence":2,"revision":1,"v":[6],"first":6,"m":6.0})"});
  CHECK(b.feed({{0, R"({"k":"a","v":8})"}, {0, R"({"k":"a","v":9})"}}) ==
        texts{R"(9 {"key":"a","sequence":2,"revision":2,"v":[6,8,9],"first":6,"m":7.666666666666667})"});
  CHECK_FALSE(b.one->wake_at());
}

TEST_CASE("an event that cannot be worked out dies alone and changes nothing", "[window]") {
  window_bench b("{tumbling: 1m, aggregates: {n: count, top: {max: event.v}, all: {collect: event.w}}}");
  b.feed({{0, R"({"v":1,"w":1})"},
          {1, R"({"v":"2","w":2})"},
          {500, R"({"v":{},"w":3})"},
          {2, "{broken"},
          {3, R"({"w":4})"},
          {4, R"({"v":-1.5})"}});
  CHECK(b.out.late_ones.empty());  // the one at 500 s did not move the watermark
  REQUIRE(b.out.died.size() == 3);
  CHECK(b.out.died[0] == std::pair<std::string, std::string>("e2", "top: a number is needed, not \"2\""));
  CHECK_THAT(b.out.died[2].second, Contains("JSON"));
  CHECK(b.finish() == texts{row(0, "null", 0, 60, 1, R"("n":3,"top":1,"all":[1,4])")});
  window_bench failing("{tumbling: 1m, key: event.a + 1}");
  failing.feed({{0, "{}"}, {1, R"({"a":1})"}});
  CHECK_THAT(failing.out.died.at(0).second, Contains("key: attempt to perform arithmetic"));
}

TEST_CASE("an event far in the future does not run the watermark away", "[window]") {
  window_bench b("{tumbling: 1m, time: event.t, max_ahead: 1h}");
  const std::int64_t now_ms = to_micros(wall_now()) / 1000;
  const auto at = [&](std::int64_t ms) { return sample{0, "{\"t\":" + std::to_string(ms) + "}"}; };
  CHECK(b.feed({at(now_ms), at(now_ms + 3'660'000), at(now_ms)}).empty());
  REQUIRE(b.out.died.size() == 1);
  CHECK_THAT(b.out.died[0].second, Contains("more than 1h ahead of the clock (max_ahead)"));
  CHECK(b.feed({at(now_ms + 3'500'000)}).size() == 1);
}

TEST_CASE("limits have clear texts, and windows go on closing", "[window]") {
  window_bench b("{tumbling: 1m, key: event, max_keys: 2}");
  b.feed({{0, "1"}, {0, "2"}, {0, "3"}, {0, "1"}});
  REQUIRE(b.out.died.size() == 1);
  CHECK_THAT(b.out.died[0].second, Contains("more than 2 windows") && Contains("max_keys"));
  // A refused event still moves the watermark, which makes room.
  CHECK(b.feed({{60, "4"}}).size() == 2);
  CHECK(b.out.died.size() == 1);

  window_bench values("{tumbling: 1m, max_values: 2, aggregates: {all: {collect: event}, n: count}}");
  values.feed({{0, "1"}, {0, "2"}, {0, "3"}, {0, "null"}});
  CHECK_THAT(values.out.died.at(0).second, Contains("more than 2 values (max_values)"));
  CHECK(values.finish() == texts{row(0, "null", 0, 60, 1, R"("all":[1,2],"n":3)")});

  window_bench bytes("{tumbling: 1m, max_bytes: 1KiB, aggregates: {all: {collect: event}}}");
  for (int i = 0; i < 10; ++i) bytes.feed({{0, "\"" + std::string(200, 'x') + "\""}});
  CHECK(bytes.out.died.size() == 7);
  CHECK_THAT(bytes.out.died.at(0).second, Contains("1KiB (max_bytes)"));
  CHECK(bytes.feed({{60, "\"y\""}}).size() == 1);
  CHECK(bytes.out.died.size() == 7);

  window_bench counted("{count: 5, key: event, max_keys: 1}");
  counted.feed({{0, "1"}, {0, "2"}});
  CHECK_THAT(counted.out.died.at(0).second, Contains("more than 1 keys"));
}

TEST_CASE("impossible settings are refused in words", "[window]") {
  CHECK_THROWS_WITH(window_bench("{sliding: {size: 1m, every: 2m}}"), Contains("every"));
  CHECK_THROWS_WITH(window_bench("{sliding: {size: 30d, every: 1s}}"), Contains("10000"));
  CHECK_THROWS_WITH(window_bench("{session: {gap: 2h, longest: 1h}}"), Contains("longest"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 1m, clock: processing, time: event.t}"), Contains("exclude"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 1m, aggregates: {key: count}}"), Contains("'key'"));
  CHECK_THROWS_WITH(window_bench("{count: 200000, aggregates: {v: {collect: event}}}"), Contains("max_values"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 1m, count: 5}"), Contains("exactly one"));
  CHECK_THROWS_WITH(window_bench("{key: event.k}"), Contains("missing"));
  CHECK_THROWS_WITH(window_bench("{count: 5, lateness: 1h}"), Contains("exclude"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 1m, aggregates: {a: mean}}"), Contains("mean"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 1m, aggregates: {a: {median: event.v}}}"), Contains("median"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 1m, aggregates: {a: {percentile: {of: event.v, at: 101}}}}"),
                    Contains("100"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 0s}"), Contains("at least"));
  CHECK_THROWS_WITH(window_bench("{tumbling: 1m, aggregates: {}}"), Contains("at least 1"));
}

TEST_CASE("an idle source does not hold windows for ever", "[window]") {
  window_bench b("{tumbling: 1m, idle: 10s}");
  CHECK_FALSE(b.one->wake_at());
  const timestamp before = wall_now();
  b.feed_and_commit({{5}});
  const timestamp due = b.one->wake_at().value();  // 55 s are missing
  CHECK(due >= before + std::chrono::seconds(55));
  CHECK(due <= wall_now() + std::chrono::seconds(55));
  CHECK(b.tick(due - std::chrono::seconds(1)).empty());
  b.restart();
  CHECK(b.one->wake_at() == due);
  CHECK(b.tick(due) == texts{row(0, "null", 0, 60, 1, count_of(1))});
  CHECK_FALSE(b.one->wake_at());
  // The same tick after a crash makes the same again.
  b.restart();
  CHECK(b.tick(due) == texts{row(0, "null", 0, 60, 1, count_of(1))});
  b.commit();
  b.restart();
  CHECK(b.tick(due).empty());
}

TEST_CASE("the time of a restart is not idle time", "[window]") {
  window_bench b("{tumbling: 1m, idle: 10s}");
  b.feed_and_commit({{5}});
  const timestamp after_a_day = wall_now() + std::chrono::hours(24);
  CHECK(b.tick(after_a_day).empty());
  CHECK(b.one->wake_at() == after_a_day + std::chrono::seconds(10));
  CHECK(b.feed({{6}, {60}}) == texts{row(3, "null", 0, 60, 1, count_of(2))});
}

TEST_CASE("with the processing clock only ticks close windows", "[window]") {
  window_bench b("{tumbling: 1s, clock: processing, key: event}");
  CHECK(b.feed_and_commit({{-1000, "1"}, {1000, "2"}}).empty());
  const timestamp due = b.one->wake_at().value();
  CHECK(due > wall_now() - std::chrono::seconds(2));
  CHECK(due <= wall_now() + std::chrono::seconds(1));
  CHECK(b.tick(due - std::chrono::milliseconds(1)).empty());
  const texts results = b.tick(due + std::chrono::seconds(10));
  CHECK(results.size() == 2);
  b.restart();
  CHECK(b.tick(due + std::chrono::seconds(10)) == results);
  b.commit();
  CHECK(b.stored.size() == 1);
  // The clock does not go back: this belongs to a window that begins after the tick.
  b.feed({{0, "1"}});
  CHECK(b.one->wake_at().value() > due + std::chrono::seconds(10));
  CHECK(b.out.late_ones.empty());
}

TEST_CASE("a window's rows go with it, and a batch writes only what it changed", "[window]") {
  window_bench b("{tumbling: 1m, key: event.k, aggregates: {p: {percentile: {of: event.v, at: 50}}}}");
  std::vector<sample> keys;
  for (int i = 0; i < 100; ++i) keys.push_back({0, "{\"k\":" + std::to_string(i) + ",\"v\":1}"});
  b.feed(keys);
  CHECK(b.commit() == 201);
  b.feed({{1, R"({"k":5,"v":2})"}});
  CHECK(b.commit() == 3);
  const auto size_of_largest = [&] {
    std::size_t most = 0;
    for (const auto& [key, value] : b.stored) most = std::max(most, value.size());
    return most;
  };
  const std::size_t before = size_of_largest();
  for (int i = 0; i < 50; ++i) b.feed_and_commit({{1, R"({"k":5,"v":3})"}});
  CHECK(size_of_largest() <= before);
  CHECK(b.one->changes().empty());
  b.restart();
  CHECK(b.feed({{60, R"({"k":"x"})"}}).size() == 100);
  b.commit();
  CHECK(b.stored.size() == 2);
  // Begun and ended within one batch: never stored.
  b.feed({{120, R"({"k":"y"})"}, {180, R"({"k":"z"})"}});
  b.commit();
  CHECK(b.stored.size() == 2);
}

TEST_CASE("a damaged state is refused", "[window]") {
  window_bench b("{tumbling: 1m, aggregates: {v: {collect: event}}}");
  b.feed_and_commit({{0, "1"}, {1, "2"}});
  const auto good = b.stored;
  REQUIRE(good.size() == 3);
  for (const auto& [key, value] : good) {
    b.stored = good;
    b.stored[key] = value.substr(0, value.size() - 1);
    CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
    b.stored[key] = value + "x";
    CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
  }
  b.stored = good;
  std::erase_if(b.stored, [](const auto& entry) { return entry.first[0] == 'v'; });
  CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
  b.stored = good;
  b.restart();
  CHECK(b.finish() == texts{row(0, "null", 0, 60, 1, R"("v":[1,2])")});
}

TEST_CASE("a drained flow that goes on corrects what it had sent", "[window]") {
  window_bench b("{tumbling: 1m, lateness: 1m}");
  b.feed_and_commit({{0}});
  CHECK(b.finish() == texts{row(0, "null", 0, 60, 1, count_of(1))});
  b.commit();
  b.restart();
  CHECK(b.finish().empty());
  CHECK(b.feed({{1}, {60}}) == texts{row(3, "null", 0, 60, 2, count_of(2))});
  CHECK(b.finish() == texts{row(0, "null", 60, 120, 1, count_of(1))});
  CHECK(b.feed({{130}}).empty());  // nothing new in it
}

// ---------------------------------------------------------------------------------------------------------------
// Random events, once in one batch and once in random batches with crashes: the same results at the same positions; and
// the last revision of each must be what a plain model makes of the events that were in time.

namespace {

std::vector<sample> random_events(std::mt19937& dice, int many) {
  std::vector<sample> all;
  std::int64_t now = 0;
  const auto pick = [&dice](int from, int to) { return std::uniform_int_distribution<int>(from, to)(dice); };
  for (int i = 0; i < many; ++i) {
    now += pick(0, 9) == 0 ? pick(0, 90) : pick(0, 4);
    const std::int64_t at = pick(0, 3) == 0 ? now - pick(0, 150) : now;
    all.push_back({at, "{\"k\":" + std::to_string(pick(0, 3)) + ",\"v\":" + std::to_string(pick(-20, 20)) + "}"});
  }
  return all;
}

struct modelled {
  std::map<std::pair<std::int64_t, std::int64_t>, std::pair<int, std::int64_t>> windows;  // from, key: count and sum
  std::vector<std::string> late;
};

modelled tumbling_model(const std::vector<sample>& events, std::int64_t size_s, std::int64_t lateness_s) {
  modelled m;
  std::int64_t newest = INT64_MIN / 2;
  int number = 0;
  for (const sample& s : events) {
    ++number;
    const std::int64_t from = s.at_s - ((s.at_s % size_s) + size_s) % size_s;
    const nlohmann::json data = nlohmann::json::parse(s.data);
    if (from + size_s + lateness_s <= std::max(newest, s.at_s)) {
      m.late.push_back("e" + std::to_string(number));
    } else {
      auto& [count, sum] = m.windows[{from, data["k"].get<std::int64_t>()}];
      ++count;
      sum += data["v"].get<std::int64_t>();
    }
    newest = std::max(newest, s.at_s);
  }
  return m;
}

// All results of the events in batches; `crashes`: half of the batches come again after a restart, whole or in parts.
texts results_in_batches(window_bench& b, const std::vector<sample>& events, std::mt19937& dice, std::size_t largest,
                         bool crashes) {
  texts all;
  std::size_t at = 0;
  while (at < events.size()) {
    const std::size_t many =
        std::min(events.size() - at, std::uniform_int_distribution<std::size_t>(1, largest)(dice));
    const auto from = events.begin() + static_cast<std::ptrdiff_t>(at);
    if (crashes && dice() % 2 == 0) {
      const std::int64_t fed = b.fed;
      const auto out = b.out;
      b.feed({from, from + static_cast<std::ptrdiff_t>(many)});
      b.fed = fed;
      b.out = out;
      b.restart();
      largest = 1 + dice() % 40;
      continue;
    }
    for (auto& r : b.feed_and_commit({from, from + static_cast<std::ptrdiff_t>(many)})) all.push_back(std::move(r));
    at += many;
  }
  for (auto& r : b.finish()) all.push_back(std::move(r));
  return all;
}

}  // namespace

TEST_CASE("random events: crashes and batches change nothing, and a model agrees", "[window]") {
  const unsigned seed = GENERATE(1u, 2u, 3u);
  INFO("seed " << seed);
  std::mt19937 dice(seed);
  const std::vector<sample> events = random_events(dice, 600);
  const std::string aggregates =
      ", key: event.k, aggregates: {n: count, sum: {sum: event.v}, d: {distinct: event.v}, p: {percentile: {of: event.v, "
      "at: 90}}, all: {collect: event.v}, last: {last: event.v}, off: {stddev: event.v}}}";
  for (const std::string shape : {"tumbling: 1m, lateness: 1m", "tumbling: 30s, delay: 20s",
                                  "sliding: {size: 1m, every: 25s}, lateness: 30s", "session: {gap: 8s, longest: 1m}",
                                  "session: 12s, lateness: 2m", "count: 7"}) {
    INFO(shape);
    window_bench once("{" + shape + aggregates), often("{" + shape + aggregates);
    const texts wanted = results_in_batches(once, events, dice, 1000, false);
    CHECK(results_in_batches(often, events, dice, 40, true) == wanted);
    CHECK(often.out.late_ones == once.out.late_ones);
    CHECK(once.out.died.empty());
  }

  window_bench b("{tumbling: 1m, lateness: 1m" + aggregates);
  const modelled model = tumbling_model(events, 60, 60);
  std::map<std::pair<std::int64_t, std::int64_t>, std::pair<int, std::int64_t>> found;
  for (const std::string& r : results_in_batches(b, events, dice, 50, true)) {
    const nlohmann::json data = nlohmann::json::parse(r.substr(r.find(' ')));
    const std::int64_t from_us = to_micros(*parse_time(data["from"].get<std::string>()));
    found[{(from_us - noon_us) / second_us, data["key"].get<std::int64_t>()}] = {data["n"].get<int>(),
                                                                                 data["sum"].get<std::int64_t>()};
  }
  CHECK(found == model.windows);
  CHECK(b.out.late_ones == model.late);
  CHECK_FALSE(model.late.empty());
}

}  // namespace test_window
