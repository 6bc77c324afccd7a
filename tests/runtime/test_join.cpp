// The step `join`, made from YAML as a person writes it and fed event by event and batch by batch. Crashes go through what
// it asks to be stored: a restart loses what was not committed, and its events come again. A plain model compares every
// event with every other, for random events in random order and random batches with crashes between them.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/side_watermarks.hpp"
#include "tests/runtime/one_step.hpp"

namespace test_join {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::one_step;
using penstock::testing::texts;

namespace {

const std::int64_t noon_us = to_micros(*parse_time("2018-02-07T12:00:00Z"));

// One event of a topic, at so many seconds after noon.
struct sample {
  std::string topic;
  double at_s = 0;
  std::string data{};
};

sample order(double at_s, const std::string& data) { return {"orders", at_s, data}; }
sample payment(double at_s, const std::string& data) { return {"payments", at_s, data}; }

struct join_bench : one_step {
  std::int64_t fed = 0;

  // `rest` begins with a comma.
  explicit join_bench(const std::string& rest = "")
      : one_step("join: {left: {where: meta.topic == 'orders', key: event.id, as: order}, right: {where: meta.topic == "
                 "'payments', key: event.order, as: payment}, within: 1m" +
                 rest + "}") {}

  batch made_of(const std::vector<sample>& given) {
    batch events;
    for (const sample& s : given) {
      event e;
      e.position = ++fed;
      e.id = events.keep("e" + std::to_string(fed));
      e.source = "/test";
      e.type = "made";
      e.topic = events.keep(s.topic);
      e.data = events.keep(s.data);
      e.time = from_micros(noon_us + std::llround(s.at_s * 1e6));
      events.events.push_back(e);
    }
    return events;
  }

  // The results as "POSITION DATA".
  texts feed(const std::vector<sample>& given) { return shown(process(made_of(given))); }
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
  // At exactly the time that it asks for.
  texts tick() {
    REQUIRE(one->wake_at());
    return tick(*one->wake_at());
  }

  static texts shown(const batch& events) {
    texts found;
    for (const event& e : events.events) found.push_back(std::to_string(e.position) + " " + std::string(e.data));
    return found;
  }
};

const std::string a_order = R"({"id":"a"})", a_payment = R"({"order":"a"})";

std::string row(std::int64_t position, const std::string& key, const std::string& left, const std::string& right) {
  return std::to_string(position) + " {\"key\":\"" + key + "\",\"order\":" + left + ",\"payment\":" + right + "}";
}

}  // namespace

TEST_CASE("events of both sides with one key join within the interval, whichever comes first", "[join]") {
  join_bench b;
  CHECK(b.feed({order(0, a_order), order(1, R"({"id":"b"})")}).empty());
  CHECK(b.feed({payment(2, a_payment)}) == texts{row(3, "a", a_order, a_payment)});
  CHECK(b.feed({payment(3, R"({"order":"c"})"), order(4, R"({"id":"c"})")}) ==
        texts{row(5, "c", R"({"id":"c"})", R"({"order":"c"})")});
  CHECK(b.feed({order(5, a_order)}) == texts{row(6, "a", a_order, a_payment)});
  CHECK(b.finish().empty());
  CHECK(b.out.died.empty());
}

TEST_CASE("the interval includes its ends, either way", "[join]") {
  join_bench b(", delay: 1h");
  b.feed({order(100, R"({"id":"a","n":1})")});
  CHECK(b.feed({payment(40, a_payment), payment(160, a_payment)}).size() == 2);
  CHECK(b.feed({payment(39.999999, a_payment), payment(160.000001, a_payment)}).empty());
}

TEST_CASE("payloads are embedded as they are written", "[join]") {
  join_bench b;
  b.feed({order(0, R"( {"id":"\u0061" , "total":1.00,"big":12345678901234567890} )")});
  const texts found = b.feed({payment(0, R"({"order":"a","s":"\\\"ä"})")});
  REQUIRE(found.size() == 1);
  CHECK_THAT(found[0], Contains(R"({"id":"\u0061" , "total":1.00,"big":12345678901234567890})"));
  CHECK_THAT(found[0], Contains(R"("payment":{"order":"a","s":"\\\"ä"})"));
  CHECK_NOTHROW(nlohmann::json::parse(found[0].substr(2)));
}

TEST_CASE("a pair is an event of its own", "[join]") {
  join_bench b(", unmatched: both");
  batch pairs = b.process(b.made_of({order(5, a_order), payment(3, a_payment), payment(4, a_payment)}));
  REQUIRE(pairs.size() == 2);
  for (const event& e : pairs.events) {
    CHECK(e.type == "join");
    CHECK(e.source == "test/flow/f/" + b.use.name);
    CHECK(e.key == "a");
    CHECK(e.is_json());
    CHECK(to_micros(e.time) == noon_us + 5'000'000);  // the later of the two
    CHECK(e.id.size() == 32);
  }
  CHECK(pairs.events[0].id != pairs.events[1].id);
  // The same pair has the same id whenever it is found, and another name than its events alone.
  join_bench again(", unmatched: both");
  const batch second = again.process(again.made_of({order(5, a_order), payment(3, a_payment)}));
  REQUIRE(second.size() == 1);
  CHECK(second.events[0].id == pairs.events[0].id);
}

TEST_CASE("keys are values, not texts", "[join]") {
  join_bench b;
  b.feed({order(0, R"({"id":1})"), order(0, R"({"id":"1"})"), order(0, R"({"id":[1,"x"]})"), order(0, R"({"id":true})")});
  CHECK(b.feed({payment(0, R"({"order":1.0})")}).size() == 1);
  CHECK(b.feed({payment(0, R"({"order":"1"})")}).size() == 1);
  CHECK(b.feed({payment(0, R"({"order":[1,"x"]})")}).size() == 1);
  CHECK(b.feed({payment(0, R"({"order":[1,"y"]})")}).empty());
  CHECK(b.feed({payment(0, R"({"order":"true"})")}).empty());
}

TEST_CASE("what is of neither side is dropped, what has no key has no partner", "[join]") {
  join_bench b(", unmatched: left");
  CHECK(b.feed({{"others", 0, a_order}, order(0, R"({"id":null})"), payment(0, "{}")}) ==
        texts{R"(2 {"key":null,"order":{"id":null},"payment":null})"});
  CHECK(b.finish().empty());
  b.commit();
  CHECK(b.stored.size() == 1);
  CHECK(b.out.died.empty());
}

TEST_CASE("without a condition the right side is all that is not left", "[join]") {
  one_step b("join: {left: {where: event.kind == 'q', key: event.id}, right: {key: event.id}, within: 1m}");
  CHECK(b.payloads({R"({"kind":"q","id":1})", R"({"kind":"a","id":1})"}) ==
        texts{R"({"key":1,"left":{"kind":"q","id":1},"right":{"kind":"a","id":1}})"});
}

TEST_CASE("without a partner an event leaves alone once none can come any more", "[join]") {
  const std::string b_order = R"({"id":"b"})", c_payment = R"({"order":"c"})";
  const std::vector<sample> given{order(0, a_order), order(1, b_order), payment(2, a_payment), payment(3, c_payment)};
  const sample far_order = order(1000, R"({"id":"z"})"), far_payment = payment(1000, R"({"order":"z"})");
  for (const std::string unmatched : {"drop", "left", "right", "both"}) {
    join_bench b(", unmatched: " + unmatched);
    CHECK(b.feed(given).size() == 1);
    CHECK(b.feed({far_order}).empty());  // the other side has not come as far
    texts wanted;
    if (unmatched == "left" || unmatched == "both") wanted.push_back(row(6, "b", b_order, "null"));
    if (unmatched == "right" || unmatched == "both") wanted.push_back(row(6, "c", "null", c_payment));
    const texts found = b.feed({far_payment});
    REQUIRE(found.size() == wanted.size() + 1);
    CHECK(texts(found.begin(), found.end() - 1) == wanted);
    CHECK(b.finish().empty());
  }
}

TEST_CASE("an event may still have a partner until the watermark is beyond the interval", "[join]") {
  join_bench b(", unmatched: left, watermark: newest");
  CHECK(b.feed({order(0, a_order), payment(60, R"({"order":"x"})")}).empty());
  CHECK(b.feed({payment(60, a_payment)}).size() == 1);
  join_bench alone(", unmatched: left, watermark: newest, delay: 10s");
  CHECK(alone.feed({order(0, a_order), payment(70, R"({"order":"x"})")}).empty());
  CHECK(alone.feed({payment(70.000001, R"({"order":"x"})")}) == texts{row(3, "a", a_order, "null")});
}

TEST_CASE("the end of the input lets go of what would leave alone, once", "[join]") {
  join_bench b(", unmatched: both");
  b.feed({order(7, a_order), payment(3, R"({"order":"b"})")});
  CHECK(b.finish() == texts{row(0, "b", "null", R"({"order":"b"})"), row(0, "a", a_order, "null")});
  CHECK(b.finish().empty());
  b.commit();
  b.restart();
  CHECK(b.feed({payment(8, a_payment)}).empty());  // never alone and in a pair
  join_bench left(", unmatched: left");
  left.feed({order(7, a_order), payment(3, R"({"order":"b"})")});
  CHECK(left.finish().size() == 1);
  CHECK(left.feed({order(8, R"({"id":"b"})")}).size() == 1);  // only held for partners: still there
}

TEST_CASE("each: first gives every event one partner at most, the earliest that is free", "[join]") {
  join_bench b(", each: first, unmatched: both");
  const auto numbered = [](const char* field, int n) {
    return std::string("{\"") + field + "\":\"a\",\"n\":" + std::to_string(n) + "}";
  };
  CHECK(b.feed({order(10, numbered("id", 1)), order(5, numbered("id", 2)), order(5, numbered("id", 3))}).empty());
  CHECK(b.feed({payment(6, numbered("order", 1))}) == texts{row(4, "a", numbered("id", 2), numbered("order", 1))});
  CHECK(b.feed({payment(6, numbered("order", 2)), payment(6, numbered("order", 3)), payment(6, numbered("order", 4))}) ==
        texts{row(5, "a", numbered("id", 3), numbered("order", 2)), row(6, "a", numbered("id", 1), numbered("order", 3))});
  CHECK(b.finish() == texts{row(0, "a", "null", numbered("order", 4))});
  b.commit();
  CHECK(b.stored.size() == 1);
}

TEST_CASE("one side may be read far ahead of the other", "[join]") {
  const std::vector<sample> given{order(0, a_order), order(5000, R"({"id":"b"})"), order(9000, R"({"id":"c"})"),
                                  payment(1, a_payment), payment(5001, R"({"order":"b"})")};
  join_bench b;
  CHECK(b.feed(given).size() == 2);
  CHECK(b.out.late_ones.empty());
  join_bench newest(", watermark: newest");
  CHECK(newest.feed(given).empty());
  CHECK(newest.out.late_ones == texts{"e4", "e5"});
}

TEST_CASE("late is what would be let go at once; less than that joins what is held", "[join]") {
  join_bench b(", watermark: newest, unmatched: both");
  CHECK(b.feed({order(0, a_order), order(60, R"({"id":"b"})"), payment(0, a_payment)}).size() == 1);
  CHECK(b.feed({order(61, R"({"id":"c"})"), payment(1, R"({"order":"b"})")}) ==
        texts{row(5, "b", R"({"id":"b"})", R"({"order":"b"})")});
  CHECK(b.feed({payment(0.999999, R"({"order":"b"})")}).empty());
  CHECK(b.out.late_ones == texts{"e6"});
  CHECK(b.out.died.empty());
  CHECK(b.finish().size() == 1);  // c; the late one is told as late, not as unmatched
}

// ---- the wall clock

TEST_CASE("a silent side is not waited for for ever", "[join]") {
  join_bench b(", unmatched: left, idle: 10s");
  CHECK_FALSE(b.one->wake_at());
  b.feed({order(0, a_order), order(1000, R"({"id":"b"})")});
  REQUIRE(b.one->wake_at());
  CHECK(b.tick(*b.one->wake_at() - std::chrono::seconds(1)).empty());
  CHECK(b.tick() == texts{row(0, "a", a_order, "null")});  // no payment ever came
  // Both are silent now: the clock moves on, until nothing is left to wait for.
  REQUIRE(b.one->wake_at());
  CHECK(b.tick() == texts{row(0, "b", R"({"id":"b"})", "null")});
  CHECK_FALSE(b.one->wake_at());
  // It is waited for again once it was heard.
  CHECK(b.feed({payment(2000, "{\"order\":\"x\"}"), order(2000, R"({"id":"c"})"), order(4000, R"({"id":"d"})")}).empty());
  CHECK(b.feed({payment(2001, R"({"order":"c"})")}).size() == 1);
}

TEST_CASE("an idle inner join wakes no one, but for a side that holds the other up", "[join]") {
  join_bench b(", idle: 10s");
  b.feed({order(0, a_order), payment(0, R"({"order":"x"})")});
  CHECK_FALSE(b.one->wake_at());
  b.feed({order(1000, R"({"id":"b"})")});
  CHECK(b.one->wake_at());
  CHECK(b.tick().empty());
  CHECK_FALSE(b.one->wake_at());
  b.commit();
  CHECK(b.stored.size() == 2);  // b and the watermark
}

TEST_CASE("a tick long after it was due does not count: the daemon was down", "[join]") {
  for (const bool both : {false, true}) {
    join_bench b(", unmatched: left, idle: 10s");
    b.feed({order(0, a_order)});
    if (both) b.feed({payment(0, R"({"order":"x"})")});
    if (!both) b.feed({order(100, R"({"id":"z"})")});
    b.commit();
    b.restart();
    const timestamp late = *b.one->wake_at() + std::chrono::hours(5);
    CHECK(b.tick(late).empty());
    REQUIRE(b.one->wake_at());
    CHECK(*b.one->wake_at() > late);
    b.commit();
    b.restart();
    CHECK(b.feed({payment(1, a_payment)}).size() == 1);
  }
}

TEST_CASE("a repeated tick gives the same results", "[join]") {
  join_bench b(", unmatched: both, idle: 10s");
  b.feed({order(0, a_order), payment(3, R"({"order":"x"})"), order(500, R"({"id":"b"})")});
  b.commit();
  const timestamp when = *b.one->wake_at();
  const texts first = b.tick(when);
  CHECK(first.size() == 2);
  b.restart();  // killed before the commit
  CHECK(b.tick(when) == first);
  b.commit();
  b.restart();
  CHECK(b.tick(when).empty());
}

TEST_CASE("a tick in time always brings the watermark to where it is due", "[join]") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    side_watermarks w(seed % 3 * 10, 50, seed % 5 != 0);
    std::int64_t wall = 1000;
    for (int i = 0; i < 100; ++i) {
      wall += static_cast<std::int64_t>(random() % 40);
      const std::int64_t before = w.at();
      if (random() % 3 != 0) {
        w.saw(random() % 2, static_cast<std::int64_t>(random() % 1000), wall);
      } else {
        const std::int64_t due = std::max<std::int64_t>(before, 0) + 1 + static_cast<std::int64_t>(random() % 300);
        const auto wake = w.wake_at(due);
        if (!wake) continue;  // nothing was seen so far
        if (wall < *wake) CHECK_FALSE(w.tick(*wake - 1, due));
        wall = std::max(wall, *wake);
        CHECK(w.tick(wall, due));
        CHECK(w.at() >= due);
      }
      CHECK(w.at() >= before);
    }
  }
}

// ---- bad input, limits

TEST_CASE("an event that cannot be joined dies alone and changes nothing", "[join]") {
  join_bench b(", unmatched: both, time: event.at");
  const std::string at = R"("at":"2018-02-07T12:00:00Z"})";
  const auto find = [&b](const std::string& data) {
    b.out.died.clear();
    CHECK(b.feed({order(0, data)}).empty());
    REQUIRE(b.out.died.size() == 1);
    return b.reason();
  };
  b.feed({order(0, R"({"id":"a",)" + at)});
  CHECK_FALSE(find("{broken").empty());
  CHECK_FALSE(find(R"({"id":"a","at":"2030-01-01T00:00:00Z"} x)").empty());
  CHECK_FALSE(find(R"({"id":"a","rest":[1,,2],)" + at).empty());
  CHECK_THAT(find(R"({"id":"a"})"), Contains("RFC 3339"));
  CHECK_THAT(find(R"({"id":"a","at":"tomorrow"})"), Contains("tomorrow"));
  CHECK_THAT(find(R"({"id":"a","at":1e300})"), Contains("RFC 3339"));
  CHECK_THAT(find(R"({"id":"a","at":"0001-01-01T00:00:00Z"})"), Contains("years"));
  CHECK_THAT(find(R"({"id":"a","at":")" + format_time(wall_now() + std::chrono::hours(2)) + "\"}"), Contains("max_ahead"));
  CHECK_FALSE(find("[1]").empty());
  CHECK_FALSE(find("").empty());
  b.out.died.clear();
  CHECK(b.feed({payment(0, R"({"order":"a",)" + at)}).size() == 1);
  CHECK(b.out.died.empty());
  CHECK(b.finish().empty());

  one_step failing("join: {left: {where: event.a.b.c == 1, key: event.id}, right: {key: event.id}, within: 1m}");
  CHECK(failing.payloads({"{}"}).empty());
  CHECK(failing.out.died.size() == 1);
}

TEST_CASE("payloads that are not JSON become texts", "[join]") {
  one_step b("join: {left: {where: meta.id == 'a', key: meta.key}, right: {key: meta.key}, within: 1m}");
  CHECK(b.payloads({"say \"hi\"\n", "{not json"}, "text/plain") ==
        texts{R"({"key":"k","left":"say \"hi\"\n","right":"{not json"})"});
}

TEST_CASE("no more is held than is allowed, and that makes room again", "[join]") {
  join_bench b(", watermark: newest, max_events: 2, unmatched: left");
  b.feed({order(0, a_order), order(1, R"({"id":"b"})"), order(2, R"({"id":"c"})")});
  CHECK_THAT(b.reason(), Contains("more than 2 events") && Contains("max_events"));
  CHECK(b.feed({order(100, R"({"id":"d"})")}).size() == 2);
  CHECK(b.out.died.size() == 1);

  join_bench bytes(", max_bytes: 2KiB");
  bytes.feed({order(0, a_order), order(1, "{\"id\":\"b\",\"x\":\"" + std::string(2000, 'x') + "\"}")});
  CHECK_THAT(bytes.reason(), Contains("2KiB") && Contains("max_bytes"));
  CHECK(bytes.feed({payment(0, a_payment)}).size() == 1);

  join_bench partners(", max_partners: 2");
  CHECK(partners.feed({order(0, a_order), order(0, a_order), payment(0, a_payment), order(0, a_order)}).size() == 3);
  CHECK(partners.feed({payment(0, a_payment)}).empty());
  CHECK_THAT(partners.reason(), Contains("more than 2 events") && Contains("max_partners"));
  // A hot key of large events must not make gigabytes of one batch; a single pair may be as large as it is.
  join_bench results(", max_results: 2KiB");
  const std::string large = "{\"id\":\"a\",\"x\":\"" + std::string(3000, 'x') + "\"}";
  CHECK(results.feed({order(0, large), payment(0, a_payment)}).size() == 1);
  CHECK(results.feed({order(0, large), payment(0, a_payment)}).size() == 1);  // the second payment would have two
  CHECK_THAT(results.reason(), Contains("2KiB") && Contains("max_results"));
  // An event that is done at once needs no room.
  join_bench first(", each: first, max_events: 1");
  CHECK(first.feed({order(0, a_order), payment(0, a_payment), order(0, a_order), payment(0, a_payment)}).size() == 2);
  CHECK(first.out.died.empty());
}

TEST_CASE("a join that can never work is refused", "[join]") {
  const auto made = [](const std::string& left, const std::string& right) {
    one_step("join: {left: {where: event.l, key: event.id" + left + "}, right: {key: event.id" + right + "}, within: 1m}");
  };
  CHECK_NOTHROW(made("", ""));
  CHECK_THROWS_WITH(made(", as: x", ", as: x"), Contains("'x'"));
  CHECK_THROWS_WITH(made(", as: key", ""), Contains("'key'"));
  CHECK_THROWS(made(", as: right", ""));
  CHECK_THROWS(one_step("join: {left: {where: event.l}, right: {key: event.id}, within: 1m}"));
  CHECK_THROWS(one_step("join: {left: {where: event.l, key: 1}, right: {key: 1}}"));
}

// ---- the store

TEST_CASE("a restart goes on where the last commit was", "[join]") {
  join_bench b(", unmatched: both");
  b.feed({order(0, a_order), order(1, R"({"id":"b"})"), payment(2, R"({"order":"b"})")});
  b.commit();
  b.feed({payment(3, a_payment)});
  b.restart();  // that payment was not committed, and comes again
  b.fed = 3;
  CHECK(b.feed({payment(3, a_payment)}) == texts{row(4, "a", a_order, a_payment)});
  b.commit();
  b.restart();
  CHECK(b.feed({order(4, a_order)}) == texts{row(5, "a", a_order, a_payment)});
  CHECK(b.finish().empty());  // which have had a partner is remembered, too
  // Rows go when their events go.
  b.feed({order(5000, R"({"id":"z"})"), payment(5000, R"({"order":"y"})")});
  b.commit();
  CHECK(b.stored.size() == 3);
  b.finish();
  b.commit();
  CHECK(b.stored.size() == 1);
}

TEST_CASE("a damaged state is refused in words", "[join]") {
  join_bench b;
  b.feed({order(0, a_order)});
  b.commit();
  const auto good = b.stored;
  for (const auto& [key, value] : good) {
    for (std::size_t length = 0; length < value.size(); ++length) {
      b.stored = good;
      b.stored[key] = value.substr(0, length);
      CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
    }
    b.stored = good;
    b.stored[key] = value + "x";
    CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
  }
  b.stored = good;
  b.stored["e12xy"] = good.begin()->second;
  CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
}

// ---- against a model

namespace {

struct model_event {
  std::size_t side = 0;
  int key = 0;
  std::int64_t at_s = 0;
  bool late = false, gone = false, matched = false;
};

std::string payload_of(const model_event& e, std::size_t number) {
  return std::string("{\"") + (e.side == 0 ? "id" : "order") + "\":\"k" + std::to_string(e.key) +
         "\",\"n\":" + std::to_string(number) + "}";
}

sample sample_of(const model_event& e, std::size_t number) {
  return {e.side == 0 ? "orders" : "payments", static_cast<double>(e.at_s), payload_of(e, number)};
}

// Each event in turn is compared with all that came before it. `within` is 60 s.
struct join_model {
  bool first, by_side;
  std::array<bool, 2> keep{};
  std::int64_t delay = 0;

  std::vector<model_event> all{};
  texts results{};
  std::size_t late = 0;

  std::string result(std::int64_t position, std::optional<std::size_t> left, std::optional<std::size_t> right) const {
    const auto text = [this](std::optional<std::size_t> n) { return n ? payload_of(all[*n], *n) : "null"; };
    return row(position, "k" + std::to_string(all[left ? *left : *right].key), text(left), text(right));
  }
  std::string alone(std::int64_t position, std::size_t n) const {
    return all[n].side == 0 ? result(position, n, std::nullopt) : result(position, std::nullopt, n);
  }

  void let_go(std::size_t before, std::int64_t position, std::int64_t watermark, bool end) {
    std::vector<std::pair<std::int64_t, std::size_t>> leaving;
    for (std::size_t i = 0; i < before; ++i) {
      model_event& e = all[i];
      if (e.late || e.gone || (!end && e.at_s + 60 >= watermark)) continue;
      e.gone = true;
      if (!e.matched && keep[e.side]) leaving.emplace_back(e.at_s, i);
    }
    std::sort(leaving.begin(), leaving.end());
    for (const auto& [at, i] : leaving) results.push_back(alone(position, i));
  }

  void work_out() {
    constexpr std::int64_t never = -1'000'000'000;
    std::array<std::int64_t, 2> newest{never, never};
    std::int64_t watermark = never;
    for (std::size_t j = 0; j < all.size(); ++j) {
      model_event& e = all[j];
      const auto position = static_cast<std::int64_t>(j) + 1;
      newest[e.side] = std::max(newest[e.side], e.at_s);
      watermark = std::max(watermark, (by_side ? std::min(newest[0], newest[1]) : std::max(newest[0], newest[1])) - delay);
      let_go(j, position, watermark, false);
      e.late = e.at_s + 60 < watermark;
      late += e.late;
      if (e.late) continue;
      std::vector<std::pair<std::int64_t, std::size_t>> partners;
      for (std::size_t i = 0; i < j; ++i) {
        const model_event& o = all[i];
        if (!o.late && !o.gone && o.side != e.side && o.key == e.key && std::abs(o.at_s - e.at_s) <= 60)
          partners.emplace_back(o.at_s, i);
      }
      std::sort(partners.begin(), partners.end());
      if (first && partners.size() > 1) partners.resize(1);
      for (const auto& [at, i] : partners) {
        results.push_back(e.side == 0 ? result(position, j, i) : result(position, i, j));
        e.matched = all[i].matched = true;
        if (first) e.gone = all[i].gone = true;
      }
    }
    let_go(all.size(), 0, 0, true);
  }
};

std::vector<model_event> random_events(std::mt19937& random, int count, std::int64_t disorder) {
  std::vector<model_event> all;
  std::int64_t now = 0;
  for (int i = 0; i < count; ++i) {
    now += static_cast<std::int64_t>(random() % 10);
    if (random() % 100 == 0) now += 500;
    model_event e;
    e.side = random() % 2;
    e.key = static_cast<int>(random() % 4);
    e.at_s = now - static_cast<std::int64_t>(random() % static_cast<unsigned>(disorder + 1));
    all.push_back(e);
  }
  return all;
}

// In batches of 1 to 20; after each the state is committed, or not yet, or the process is killed.
texts fed_with_crashes(join_bench& b, const std::vector<model_event>& all, std::mt19937& random) {
  texts results;
  std::size_t next = 0, committed = 0, safe_results = 0;
  while (next < all.size()) {
    std::vector<sample> some;
    for (std::size_t most = 1 + random() % 20; some.size() < most && next < all.size(); ++next)
      some.push_back(sample_of(all[next], next));
    for (std::string& result : b.feed(some)) results.push_back(std::move(result));
    const auto fate = random() % 6;
    if (fate < 3) {
      b.commit();
      committed = next;
      safe_results = results.size();
    } else if (fate == 3) {
      b.restart();
      next = committed;
      b.fed = static_cast<std::int64_t>(committed);
      results.resize(safe_results);
    }
  }
  for (std::string& result : b.finish()) results.push_back(std::move(result));
  return results;
}

}  // namespace

TEST_CASE("joins agree with a model that compares all events, through crashes", "[join]") {
  std::size_t late = 0;
  for (unsigned seed = 0; seed < 48; ++seed) {
    std::mt19937 random(seed);
    join_model model{seed % 2 == 0, seed % 4 < 2, {seed % 3 != 0, seed % 3 == 2}, seed % 5 == 0 ? 100 : 0};
    model.all = random_events(random, 400, seed % 7 == 0 ? 0 : 150);
    const auto given = model.all;
    model.work_out();
    late += model.late;
    join_bench b(std::string(", unmatched: ") + (seed % 3 == 0 ? "drop" : seed % 3 == 1 ? "left" : "both") +
                 ", each: " + (model.first ? "first" : "all") + ", watermark: " + (model.by_side ? "slower" : "newest") +
                 ", delay: " + std::to_string(model.delay) + "s");
    INFO("seed " << seed);
    CHECK(fed_with_crashes(b, given, random) == model.results);
    CHECK(b.out.died.empty());
    std::set<std::string> told(b.out.late_ones.begin(), b.out.late_ones.end());  // some were told again after a crash
    CHECK(told.size() == model.late);
    b.commit();
  }
  CHECK(late > 0);
}

TEST_CASE("what is out of order by no more than the delay misses no partner", "[join]") {
  for (unsigned seed = 0; seed < 10; ++seed) {
    std::mt19937 random(seed);
    const auto all = random_events(random, 300, 30);
    std::size_t pairs = 0;
    for (std::size_t j = 0; j < all.size(); ++j) {
      for (std::size_t i = 0; i < j; ++i)
        pairs += all[i].side != all[j].side && all[i].key == all[j].key && std::abs(all[i].at_s - all[j].at_s) <= 60;
    }
    join_bench b(", delay: 30s, watermark: newest");
    INFO("seed " << seed);
    CHECK(fed_with_crashes(b, all, random).size() == pairs);
    CHECK(b.out.late_ones.empty());
  }
}

}  // namespace test_join
