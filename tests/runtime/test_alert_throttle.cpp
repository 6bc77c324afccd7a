// The steps alert, throttle and log. Restarts of alert go through what it asks to be stored.
#include <chrono>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/runtime/one_step.hpp"

namespace test_alert_throttle {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::one_step;
using penstock::testing::texts;

namespace {

constexpr std::int64_t second_us = 1'000'000;

// One event a time, each with this payload.
batch at(const std::vector<std::int64_t>& times_us, const std::string& payload = R"({"status":500})") {
  batch events;
  std::int64_t position = 0;
  for (const std::int64_t t : times_us) {
    event e;
    e.id = events.keep("e" + std::to_string(++position));
    e.source = "/test";
    e.type = "event";
    e.time = from_micros(t);
    e.position = position;
    e.data = events.keep(payload);
    events.events.push_back(e);
  }
  return events;
}

std::vector<std::int64_t> every(std::int64_t step_us, int count, std::int64_t from = 0) {
  std::vector<std::int64_t> times;
  for (int i = 0; i < count; ++i) times.push_back(from + i * step_us);
  return times;
}

texts alert_ids(const one_step& b) {
  texts ids;
  for (const auto& [output, id] : b.out.sent) ids.push_back(id);
  return ids;
}

const std::string by_status = "alert: {when: event.status >= 500, threshold: 100, within: 60s}";

}  // namespace

TEST_CASE("250 hits at 100 per 60 s are one alert", "[steps]") {
  one_step b(by_status, {"alerts"});
  const batch left = b.process(at(every(second_us / 10, 250)));
  CHECK(left.size() == 250);
  REQUIRE(b.out.sent_payloads.size() == 1);
  CHECK(b.out.sent[0] == std::pair<std::string, std::string>("alerts", "e100/alert"));
  CHECK(b.out.sent_positions == std::vector<std::int64_t>{100});
  const auto said = nlohmann::json::parse(b.out.sent_payloads[0].second);
  CHECK(said["alert"] == b.use.name);
  CHECK(said["count"] == 100);
  CHECK(said["key"] == "");
  CHECK(said["first_time"] == "1970-01-01T00:00:00.000000Z");
  CHECK(said["last_time"] == "1970-01-01T00:00:09.900000Z");
  CHECK(said["sample"]["status"] == 500);
}

TEST_CASE("alerts do not depend on the batches, nor on a restart between them", "[steps]") {
  const auto times = every(second_us / 3, 1000);
  one_step whole(by_status, {"alerts"}), parts(by_status, {"alerts"});
  whole.process(at(times));
  REQUIRE(whole.out.sent_payloads.size() > 2);
  batch all = at(times);
  for (std::size_t begin = 0; begin < all.size(); begin += 37) {
    batch part;
    for (std::size_t i = begin; i < std::min(begin + 37, all.size()); ++i) part.events.push_back(part.copy(all.events[i]));
    parts.process(std::move(part));
    parts.commit();
    parts.restart();
  }
  CHECK(parts.out.sent_payloads == whole.out.sent_payloads);
  CHECK(alert_ids(parts) == alert_ids(whole));
}

TEST_CASE("a batch that was not committed gives the same alert again", "[steps]") {
  one_step b(by_status, {"alerts"});
  b.process(at(every(1, 60)));
  b.commit();
  b.process(at(every(1, 60, 100)));
  b.restart();
  b.process(at(every(1, 60, 100)));
  CHECK(alert_ids(b) == texts{"e40/alert", "e40/alert"});
}

TEST_CASE("slow hits are no alert, and silence ends", "[steps]") {
  one_step slow(by_status, {"alerts"});
  slow.process(at(every(second_us, 500)));  // 60 a minute
  CHECK(slow.out.sent.empty());
  one_step b("alert: {when: true, threshold: 2, within: 10s, every: 60s}", {"alerts"});
  b.process(at({0, 5 * second_us, 10 * second_us, 64 * second_us, 65 * second_us, 90 * second_us, 99 * second_us,
                126 * second_us}));
  CHECK(alert_ids(b) == texts{"e2/alert", "e5/alert"});
  CHECK(nlohmann::json::parse(b.out.sent_payloads[1].second)["matched_since_last"] == 3);
}

TEST_CASE("one clock far ahead does not silence what follows", "[steps]") {
  one_step b("alert: {when: true, threshold: 3, within: 10s}", {"alerts"});
  auto times = every(second_us, 2);
  times.push_back(std::int64_t{4'000'000'000} * second_us);
  for (const std::int64_t t : every(second_us, 4, 3 * second_us)) times.push_back(t);
  b.process(at(times));
  CHECK_FALSE(b.out.sent.empty());
  for (const auto& id : alert_ids(b)) CHECK(id != "e3/alert");
}

TEST_CASE("alert counts each key by itself, within a bound", "[steps]") {
  one_step b("alert: {when: event.level == 'bad', threshold: 2, key: event.host, output: pager, max_keys: 2}", {"pager"});
  const batch left = b.process(one_step::events_of(
      {R"({"level":"bad","host":"x"})", R"({"level":"bad","host":"y"})", R"({"level":"ok","host":"x"})",
       R"({"level":"bad","host":"x"})", R"({"level":"bad","host":{}})", "{broken"}));
  CHECK(left.size() == 4);
  CHECK(b.out.died.size() == 2);
  CHECK(b.out.sent == std::vector<std::pair<std::string, std::string>>{{"pager", "d/alert"}});
  b.commit();
  CHECK(b.stored.size() == 2);
  b.payloads({R"({"level":"bad","host":"z"})"});  // y is the one that goes
  b.commit();
  CHECK(b.stored.size() == 2);
  CHECK(b.stored.count("y") == 0);
  b.stored["x"] = "rubbish";
  CHECK_THROWS_WITH(b.restart(), Contains("damaged"));
}

TEST_CASE("a sample of what is no JSON, or too long", "[steps]") {
  one_step b("alert: {when: true}", {"alerts"});
  b.payloads({std::string(100'000, 'x') + "\xFF"}, "text/plain");
  b.payloads({"{\"a\":\"" + std::string(100'000, 'x') + "\"}"});
  REQUIRE(b.out.sent_payloads.size() == 1);  // the second is silenced
  const auto said = nlohmann::json::parse(b.out.sent_payloads[0].second);
  CHECK(said["sample"].is_string());
  CHECK(b.out.sent_payloads[0].second.size() < 6000);
}

TEST_CASE("throttle lets so many through and no more", "[steps]") {
  one_step b("throttle: {most: 100, per: 1h}");
  CHECK(b.process(at(every(1, 250))).size() == 100);
  CHECK(b.process(at(every(1, 10))).empty());
  CHECK(b.out.died.empty());
}

TEST_CASE("throttle by key, with dead letters", "[steps]") {
  one_step b("throttle: {most: 1, per: 1h, key: event.c, then: dead_letter}");
  CHECK(b.payloads({R"({"c":1})", R"({"c":2})", R"({"c":1})", "{}", "{}", "{broken"}) ==
        texts{R"({"c":1})", R"({"c":2})", "{}"});
  REQUIRE(b.out.died.size() == 3);
  CHECK(b.out.died[0] == std::pair<std::string, std::string>("c", "over the rate of 1 per 1h"));
}

TEST_CASE("throttle's allowance comes back, and its keys are bounded", "[steps]") {
  one_step b("throttle: {most: 1000, per: 1ms}");
  std::size_t passed = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  while (passed <= 1000 && std::chrono::steady_clock::now() < until) passed += b.process(at(every(1, 100))).size();
  CHECK(passed > 1000);
  one_step few("throttle: {most: 1, per: 1h, key: event.c, max_keys: 2}");
  CHECK(few.payloads({R"({"c":1})", R"({"c":2})", R"({"c":1})", R"({"c":3})", R"({"c":1})", R"({"c":2})"}).size() == 4);
}

TEST_CASE("log passes everything on, whatever its text does", "[steps]") {
  one_step b("log: {text: event.a.b, most: 1}");
  CHECK(b.payloads({R"({"a":{"b":1}})", "{}", "{broken", ""}).size() == 4);
  CHECK(b.out.died.empty());
  one_step whole("log: {}");
  CHECK(whole.payloads({"\xFF\n\x01", std::string(10'000, 'x')}, "text/plain").size() == 2);
}

}  // namespace test_alert_throttle
