// What a test expects against what came: equal as JSON, and what is told when it is not.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "config/expectation.hpp"
#include "from_text.hpp"

namespace penstock::config {
namespace {

using testing::json;

std::vector<test_event> events(std::initializer_list<const char*> payloads) {
  std::vector<test_event> out;
  for (const char* one : payloads) out.push_back({.attributes = {}, .data = json(one)});
  return out;
}

pipeline_test expecting(std::vector<test_event> expected) {
  pipeline_test test;
  test.expect = std::move(expected);
  return test;
}

std::vector<unmet_expectation> compared(std::initializer_list<const char*> expected, std::initializer_list<const char*> got) {
  test_seen seen;
  seen.to = events(got);
  return compare(expecting(events(expected)), seen);
}

// The only mismatch of the only list that is not as expected.
mismatch only(const std::vector<unmet_expectation>& unmet) {
  REQUIRE(unmet.size() == 1);
  REQUIRE(unmet[0].mismatches.size() == 1);
  return unmet[0].mismatches[0];
}

}  // namespace

TEST_CASE("equal means equal as JSON", "[config][expectation]") {
  const auto same = [](const char* one, const char* other) { return same_value(json(one), json(other)); };
  CHECK(same("1", "1.0"));
  CHECK(same("0", "-0.0"));
  CHECK(same("1e3", "1000"));
  CHECK(same("18446744073709551615", "18446744073709551615"));
  CHECK_FALSE(same("9007199254740993", "9007199254740992"));
  CHECK_FALSE(same("-1", "18446744073709551615"));
  CHECK(same(R"({"a":1,"b":[{"c":2,"d":null}]})", R"({"b":[{"d":null,"c":2.0}],"a":1})"));
  CHECK_FALSE(same(R"({"a":1})", R"({"a":1,"b":null})"));
  CHECK_FALSE(same(R"({"a":1,"b":null})", R"({"a":1,"c":null})"));
  CHECK_FALSE(same("[1,2]", "[2,1]"));
  CHECK_FALSE(same("[1]", "[1,1]"));
  CHECK_FALSE(same("true", "1"));
  CHECK_FALSE(same("\"1\"", "1"));
  CHECK_FALSE(same("null", "false"));
  CHECK_FALSE(same("{}", "[]"));
  CHECK(same("{}", "{}"));
}

TEST_CASE("nothing is told of what is as expected", "[config][expectation]") {
  CHECK(compared({}, {}).empty());
  CHECK(compared({R"({"a":1,"b":2})", "3"}, {R"({"b":2.0,"a":1})", "3"}).empty());
  test_seen seen;
  seen.to = events({"1"});
  seen.outputs["late"] = events({"2"});
  CHECK(compare({}, seen).empty());  // without `expect` and `outputs` nobody looks
}

TEST_CASE("one event too few or too many is told as just that", "[config][expectation]") {
  const mismatch missing = only(compared({"1", "2", "3"}, {"1", "3"}));
  CHECK(missing.index == 1);
  CHECK(missing.expected == json("2"));
  CHECK_FALSE(missing.got);
  const mismatch surplus = only(compared({"1", "3"}, {"1", "2", "3"}));
  CHECK(surplus.index == 1);
  CHECK_FALSE(surplus.expected);
  CHECK(surplus.got == json("2"));
  CHECK(only(compared({}, {"1"})).got == json("1"));
  CHECK(only(compared({"1"}, {})).expected == json("1"));
  CHECK(only(compared({"1", "1"}, {"1"})).index == 1);
}

TEST_CASE("another order is not as expected", "[config][expectation]") {
  const auto unmet = compared({"1", "2", "3", "4"}, {"1", "3", "2", "4"});
  REQUIRE(unmet.size() == 1);
  REQUIRE(unmet[0].mismatches.size() == 2);
  CHECK(unmet[0].mismatches[0].index == 1);
}

TEST_CASE("where two events differ is told", "[config][expectation]") {
  const auto detail = [](const char* expected, const char* got) { return only(compared({expected}, {got})).detail; };
  CHECK(detail(R"({"id":1,"total":250})", R"({"id":1,"total":251})") == "/total: 250 expected, 251 came");
  CHECK(detail(R"({"a":{"b":[1,2]}})", R"({"a":{"b":[1,3]}})") == "/a/b/1: 2 expected, 3 came");
  CHECK(detail(R"({"a":[1]})", R"({"a":[1,2]})") == "/a: 1 items expected, 2 came");
  CHECK(detail(R"({"a":1,"b":2})", R"({"a":1})") == "/b: missing");
  CHECK(detail(R"({"a":1})", R"({"a":1,"b":2})") == "/b: not expected");
  CHECK(detail(R"({"a/b":1})", R"({"a/b":"1"})") == R"(/a~1b: 1 expected, "1" came)");
  CHECK(detail("1", "{}") == "1 expected, {} came");
  const auto text = [](const std::string& s) { return value(s).dump(); };
  const std::string same(100, 'x');
  CHECK(detail(text(same + "a").c_str(), text(same).c_str()) == R"(from byte 101 on "a" expected, "" came)");
  CHECK(detail(text(same + "ä" + same).c_str(), text(same + "ö").c_str()) ==
        "from byte 101 on \"ä" + std::string(28, 'x') + "\"… expected, \"ö\" came");
}

TEST_CASE("of attributes only those that are named are compared", "[config][expectation]") {
  test_seen seen;
  seen.to.push_back({.attributes = {{"key", "a"}, {"id", "7"}}, .data = 1});
  CHECK(compare(expecting({{.attributes = {{"key", "a"}}, .data = 1}}), seen).empty());
  const mismatch other = only(compare(expecting({{.attributes = {{"key", "b"}}, .data = 1}}), seen));
  CHECK(other.detail == R"(/event/key: "b" expected, "a" came)");
  CHECK(other.got == json(R"({"event":{"key":"a"},"data":1})"));
}

TEST_CASE("named outputs are looked at where they are given", "[config][expectation]") {
  test_seen seen;
  seen.outputs["late"] = events({"1"});
  pipeline_test test;
  test.outputs["late"] = events({"1"});
  CHECK(compare(test, seen).empty());
  test.outputs["late"] = {};
  test.outputs["big"] = events({"2"});
  const auto unmet = compare(test, seen);
  REQUIRE(unmet.size() == 2);
  CHECK(unmet[0].where == "outputs/big");
  CHECK(unmet[1].where == "outputs/late");
}

TEST_CASE("no event may die unless it is expected to", "[config][expectation]") {
  test_seen seen;
  seen.dead.push_back({.step = "map_1", .reason = "attempt to index a nil value", .data = json(R"({"id":1})")});
  const mismatch surprise = only(compare(expecting({}), seen));
  CHECK(surprise.got->at("step") == "map_1");
  CHECK(surprise.got->at("data") == json(R"({"id":1})"));

  pipeline_test test;
  const auto with = [&](test_death expected) {
    test.dead = {std::move(expected)};
    return compare(test, seen);
  };
  CHECK(with({}).empty());
  CHECK(with({.step = "map_1", .reason = "index a nil", .data = json(R"({"id":1.0})")}).empty());
  CHECK(only(with({.step = "map_2", .reason = "", .data = {}})).detail == "/step: map_1 came");
  CHECK(only(with({.step = "", .reason = "compare", .data = {}})).detail.starts_with("/reason"));
  CHECK(only(with({.step = "", .reason = "", .data = json(R"({"id":2})")})).detail == "/data/id: 2 expected, 1 came");
  seen.dead.clear();
  CHECK(only(with({.step = "map_1", .reason = "", .data = {}})).expected == json(R"({"step":"map_1"})"));
}

}  // namespace penstock::config
