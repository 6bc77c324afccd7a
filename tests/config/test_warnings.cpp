// What is allowed in a definition but likely a slip: where it is, and that the definition is taken all the same.
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "config/definition.hpp"
#include "good_definitions.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

using texts = std::vector<std::string>;

texts warnings_of(const std::string& yaml) {
  const auto parsed = parse_pipeline(yaml, testing::small_catalog());
  INFO(yaml);
  REQUIRE(parsed.has_value());
  texts out;
  for (const problem& p : parsed->warnings) out.push_back(describe(p, ""));
  return out;
}

texts of_job(const std::string& settings) {
  return warnings_of("name: a\ntopics: {orders: {}}\njobs: {j: {run: [x], " + settings + "}}");
}

}  // namespace

TEST_CASE("a topic that nothing here declares is warned of", "[config][warnings]") {
  CHECK(of_job("trigger: {topic: ordrs}") ==
        texts{"3:39: /jobs/j/trigger/topic: no topic 'ordrs' is declared here; did you mean 'orders'?"});
  CHECK(of_job("trigger: [{every: 1m}, {topic: far}]") ==
        texts{"3:53: /jobs/j/trigger/1/topic: no topic 'far' is declared here; another pipeline must declare it"});
  CHECK(of_job("alerts: {on: failure, to: {topic: far}}").size() == 1);
  CHECK(of_job("alerts: [{on: failure, to: {topic: {topic: far}}}]").size() == 1);
  CHECK(of_job("trigger: {topic: orders}, alerts: {on: failure, to: {topic: orders}}").empty());
}

TEST_CASE("what goes round for ever is warned of", "[config][warnings]") {
  CHECK(of_job("trigger: {topic: orders}, to: {topic: orders}") ==
        texts{"3:60: /jobs/j/to/topic: the job is started by what it puts there, for ever unless a step ends it"});
  CHECK(warnings_of("name: a\nflows: {f: {from: {topic: t}, to: {topic: {topic: t}}}}").size() == 1);
  CHECK(warnings_of("name: a\nflows: {f: {from: {topic: t}, to: {topic: u}}}").empty());
}

TEST_CASE("settings that change nothing are warned of", "[config][warnings]") {
  for (const char* idle :
       {"retry: {exit_codes: 75}", "retry: {attempts: 1, backoff: 10s}", "trigger: {file: {path: x, max_wait: 5m}}",
        "trigger: {topic: orders, max_events: 1, max_wait: 5m}", "trigger: {file: {path: x, max_files: 1, max_wait: 5m}}",
        "trigger: {topic: orders, max_events: 1, grace_period: 5m}"}) {
    const texts found = of_job(idle);
    INFO(idle);
    REQUIRE(found.size() == 1);
    CHECK_THAT(found.front(), Catch::Matchers::Contains("changes nothing"));
  }
  for (const char* busy :
       {"retry: {attempts: 2, exit_codes: 75}", "retry: 1", "retry: {}", "trigger: {file: {path: x, max_files: 2, max_wait: 5m}}",
        "trigger: {topic: orders, max_wait: 5m}", "trigger: {file: x}"}) {
    INFO(busy);
    CHECK(of_job(busy).empty());
  }
}

TEST_CASE("the example of the design has no warnings", "[config][warnings]") {
  CHECK(warnings_of(testing::orders_yaml).empty());
}

}  // namespace penstock::config
