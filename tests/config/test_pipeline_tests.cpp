// `tests` of a definition: what may be written, how a slip is told, and that nothing restarts for their sake.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "broken_definition.hpp"
#include "config/definition.hpp"
#include "config/diff.hpp"
#include "config/json_schema.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

// Without its tests, which a case writes below, indented by two.
const std::string shop = R"(name: shop
topics: {orders: {}}
flows:
  alerts:
    from: {topic: orders}
    steps:
      - filter: event.total > 100
      - {name: shape, map: {id: event.id}}
    to: drop
  agent: {run: [./agent]}
jobs:
  load:
    params: {region: eu, days: {type: integer}}
    to: drop
  report:
    tasks:
      clean: {steps: [{filter: event.ok}], to: drop}
      print: {run: [./print]}
  mail: {run: [./mail]}
)";

pipeline shop_with(const std::string& tests) {
  const auto made = parse_pipeline(shop + "tests:\n" + tests, testing::small_catalog());
  INFO((made ? "" : made.error().detail));
  REQUIRE(made.has_value());
  return *made;
}

}  // namespace

TEST_CASE("a test is read as it is written", "[config][tests]") {
  const pipeline p = shop_with(R"(
  large:
    flow: alerts
    given:
      - {id: 1, total: 80}
      - {event: {key: 7, time: "2026-01-01T01:00:00+01:00"}, data: {id: 2}}
      - plain text
    now: 2026-01-01T00:00:00Z
    expect: []
    dead: [attempt to compare, {step: shape, data: null}]
    at_end: keep
  second: {job: load, params: {days: 3}, given: {id: 1}, expect: {id: 1}}
  third: {job: report, task: clean, step: filter_1, given: [], outputs: {}}
)");
  REQUIRE(p.tests.size() == 3);
  const pipeline_test& large = p.tests[0];
  CHECK(large.name == "large");
  CHECK(large.at.line == 22);
  CHECK(large.flow == "alerts");
  REQUIRE(large.given.size() == 3);
  CHECK(large.given[0].data == value::parse(R"({"id":1,"total":80})"));
  CHECK(large.given[0].attributes.empty());
  CHECK(large.given[1].attributes.at("key") == "7");
  CHECK(large.given[1].attributes.at("time") == "2026-01-01T00:00:00.000000Z");
  CHECK(large.given[2].data == "plain text");
  CHECK(large.now == parse_time("2026-01-01T00:00:00Z"));
  CHECK(large.expect->empty());
  REQUIRE(large.dead.size() == 2);
  CHECK(large.dead[0].reason == "attempt to compare");
  CHECK(large.dead[1].step == "shape");
  CHECK(large.dead[1].data == value());
  CHECK_FALSE(large.emit_at_end);

  CHECK(p.tests[1].task == "main");
  CHECK(p.tests[1].params == value::parse(R"({"region":"eu","days":3})"));
  CHECK(p.tests[1].given.size() == 1);
  CHECK(p.tests[1].emit_at_end);
  CHECK(p.tests[2].task == "clean");
  CHECK_FALSE(p.tests[2].expect);

  const auto again = parse_pipeline(p.document.dump(), testing::small_catalog());
  REQUIRE(again.has_value());
  CHECK(again->document == p.document);
}

TEST_CASE("only an event with both keys, and no other, has attributes", "[config][tests]") {
  const pipeline p = shop_with(R"(
  t:
    flow: alerts
    given: [{event: {key: a}}, {event: {key: a}, data: 1, more: 2}, {event: sold, data: 1}, {event: {}, data: {event: {key: a}, data: 1}}]
    expect: []
)");
  const auto& given = p.tests[0].given;
  CHECK(given[0].data == value::parse(R"({"event":{"key":"a"}})"));
  CHECK(given[1].data.size() == 3);
  CHECK(given[2].data == value::parse(R"({"event":"sold","data":1})"));
  CHECK(given[3].attributes.empty());
  CHECK(given[3].data == value::parse(R"({"event":{"key":"a"},"data":1})"));
}

TEST_CASE("what is wrong with a test is told with its place", "[config][tests]") {
  struct slip {
    const char* test;  // '@' marks the place
    const char* pointer;
    const char* says;
  };
  const std::vector<slip> slips{
      {"{flow: @alert, given: [], expect: []}", "/tests/t/flow", "there is no flow 'alert'; did you mean 'alerts'?"},
      {"{job: @laod, given: [], expect: []}", "/tests/t/job", "there is no job 'laod'; did you mean 'load'?"},
      {"{flow: @agent, given: [], expect: []}", "/tests/t/flow", "'agent' is a command"},
      {"{job: @mail, given: [], expect: []}", "/tests/t/job", "'mail' is a command"},
      {"{job: report, task: @print, given: [], expect: []}", "/tests/t/task", "'print' is a command"},
      {"{job: @report, given: [], expect: []}", "/tests/t/job", "say which with 'task': clean, print"},
      {"{job: report, task: @claen, given: [], expect: []}", "/tests/t/task", "did you mean 'clean'?"},
      {"{job: load, params: {days: 1}, task: @main, given: [], expect: []}", "/tests/t/task", "'load' has no tasks"},
      {"{flow: alerts, @task: clean, given: [], expect: []}", "/tests/t/task", "goes with a job"},
      {"{flow: alerts, @params: {a: 1}, given: [], expect: []}", "/tests/t/params", "goes with a job"},
      {"{flow: alerts, @job: load, given: [], expect: []}", "/tests/t/job", "exclude each other"},
      {"{flow: alerts, step: @shapes, given: [], expect: []}", "/tests/t/step", "did you mean 'shape'?"},
      {"{flow: alerts, step: @map_2, given: [], expect: []}", "/tests/t/step", "there is no step 'map_2'"},
      {"{job: load, params: {days: 1}, step: @shape, given: [], expect: []}", "/tests/t/step", "there are no steps at all"},
      {"{flow: alerts, given: [], dead: [{step: @filter}]}", "/tests/t/dead/0/step", "did you mean 'filter_1'?"},
      {"{flow: alerts, given: [], outputs: {@late: []}}", "/tests/t/outputs/late", "there is no output 'late'"},
      {"{flow: alerts, given: [{event: {@ky: a}, data: 1}], expect: []}", "/tests/t/given/0/event/ky", "did you mean 'key'?"},
      {"{flow: alerts, given: [], expect: [1, {event: {time: @noon}, data: 1}]}", "/tests/t/expect/1/event/time", "RFC 3339"},
      {"{flow: alerts, given: [{event: {id: @''}, data: 1}], expect: []}", "/tests/t/given/0/event/id", "is not empty"},
      {"{flow: alerts, given: [{event: {key: @[1]}, data: 1}], expect: []}", "/tests/t/given/0/event/key", "expected a text, got a list"},
      {"{flow: alerts, given: [], @expects: []}", "/tests/t/expects", "did you mean 'expect'?"},
      {"{flow: alerts, given: [], expect: [], at_end: @emmit}", "/tests/t/at_end", "did you mean 'emit'?"},
      {"{flow: alerts, given: [], expect: [], now: @today}", "/tests/t/now", "expected a time"},
      {"{job: load, params: {days: @many}, given: [], expect: []}", "/tests/t/params/days", "integer"},
      {"{job: load, params: {days: 1, regoin: @eu}, given: [], expect: []}", "/tests/t/params/regoin", "region"},
  };
  for (const slip& one : slips) {
    const std::string yaml = shop + "tests:\n  t: " + one.test + "\n";
    testing::check_broken({one.test, yaml.c_str(), one.pointer, one.says});
  }
  const auto of_test = [](const std::string& test, const char* says) {
    const std::string yaml = shop + "tests:\n  @t: " + test + "\n";
    testing::check_broken({test.c_str(), yaml.c_str(), "/tests/t", says});
  };
  of_test("{given: [], expect: []}", "one of these is missing: flow, job");
  of_test("{flow: alerts, expect: []}", "the key 'given' is missing");
  of_test("{flow: alerts, given: []}", "it expects nothing");
  of_test("{job: load, given: [], expect: []}", "days");
}

TEST_CASE("a pipeline without flows says so to a test of one", "[config][tests]") {
  testing::check_broken({"no flows", "name: a\ntests: {t: {flow: @f, given: [], expect: []}}\n", "/tests/t/flow",
                         "the pipeline has no flows"});
  testing::check_broken({"flows misspelt", "name: a\n@flow: {}\ntests: {t: {flow: f, given: [], expect: []}}\n", "/flow",
                         "did you mean 'flows'?"});
}

TEST_CASE("a change of tests restarts nothing, but is a new revision", "[config][tests][diff]") {
  const pipeline before = shop_with("  t: {flow: alerts, given: [], expect: []}\n");
  const pipeline same = shop_with("  t:\n    flow: alerts\n    given: []\n    expect: []\n    at_end: emit\n");
  CHECK(diff(&before, &same).empty());
  const pipeline after = shop_with("  t: {flow: alerts, given: [{total: 1}], expect: []}\n");
  const pipeline_diff changed = diff(&before, &after);
  CHECK(changed.settings_changed);
  CHECK(changed.flows.empty());
  CHECK(changed.jobs.empty());
  CHECK(changed.topics.empty());
}

TEST_CASE("tests are part of the JSON Schema", "[config][tests][schema]") {
  const value schema = pipeline_json_schema(testing::small_catalog());
  const value& test = schema.at("properties").at("tests").at("additionalProperties");
  CHECK(test.at("required") == value::array({"given"}));
  CHECK(test.at("oneOf").size() == 2);
  CHECK(test.at("properties").at("at_end").at("default") == "emit");
  CHECK(test.at("dependentRequired").at("task") == value::array({"job"}));
}

}  // namespace penstock::config
