#include <catch2/catch.hpp>

#include "config/definition.hpp"
#include "from_text.hpp"
#include "good_definitions.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

using namespace std::chrono_literals;
using testing::parsed;
using testing::small_catalog;

// REST shows definitions as JSON; what it shows must be a definition of the same pipeline.
void check_round_trip(const pipeline& p) {
  const pipeline again = parsed(p.document.dump());
  CHECK(again.name == p.name);
  CHECK(again.description == p.description);
  CHECK(again.workdir == p.workdir);
  CHECK(again.max_active == p.max_active);
  CHECK(again.pools == p.pools);
  CHECK(again.topics == p.topics);
  CHECK(again.flows == p.flows);
  CHECK(again.jobs == p.jobs);
  CHECK(again.document == p.document);
}

}  // namespace

TEST_CASE("the example of the design", "[config][pipeline]") {
  const pipeline p = parsed(testing::orders_yaml);
  CHECK(p.name == "orders");
  CHECK(p.topics.at("orders").retain == nanoseconds{168h});
  CHECK(p.topics.at("orders").dedupe == dedupe_rule{"event.order_id", 24h});

  const auto& intake = std::get<dataflow>(p.flows.at("intake").does);
  CHECK(intake.from->component == "webhook");
  CHECK(intake.from->name == "from");
  CHECK(intake.from->settings.at("signature").at("secret") == "${env:WEBHOOK_SECRET}");
  REQUIRE(intake.steps.size() == 2);
  CHECK(intake.steps[0].name == "filter_1");
  CHECK(intake.steps[0].settings == "event.total_price ~= nil");
  CHECK(intake.steps[1].name == "map_2");
  CHECK(intake.steps[1].settings.begin().key() == "order_id");
  CHECK(intake.to->settings.at("topic") == "orders");

  const job& load = p.jobs.at("load");
  CHECK(load.triggers == std::vector<trigger>{topic_trigger{"orders", "", 500, 5min, 0s, 0s}});
  REQUIRE(load.tasks.size() == 1);
  CHECK(load.tasks[0].name == "main");
  CHECK_FALSE(std::get<dataflow>(load.tasks[0].does).from);
  CHECK(std::get<dataflow>(load.tasks[0].does).to->settings.at("cache") == 8 << 20);
  CHECK(load.retry == retry_rule{1, 1s, 1min, {}, {}, {}});
  CHECK(load.queue_limit == 1000);
  CHECK(load.grace == nanoseconds{10s});

  const job& report = p.jobs.at("report");
  const auto& cron = std::get<cron_trigger>(report.triggers.at(0));
  CHECK(cron.timezone == "Europe/Madrid");
  CHECK(cron.missed == missed_policy::skip);
  CHECK(cron.expression == *parse_cron("0 6 * * *"));
  CHECK(report.tasks.at(1).needs == std::vector<std::string>{"extract"});
  CHECK(report.timeout == nanoseconds{15min});
  CHECK(report.retry == retry_rule{3, 10s, 5min, {}, {}, {}});
}

TEST_CASE("every key, short forms, aliases", "[config][pipeline]") {
  const pipeline p = parsed(testing::everything_yaml);
  CHECK(p.workdir == "${dir}/work");
  CHECK(p.topics.at("empty") == topic{"empty", {}, {}, {}});
  CHECK(p.topics.at("full").max_bytes == 3LL << 29);
  CHECK(p.topics.at("full").dedupe->within == nanoseconds{24h});

  const auto& tail = std::get<command>(p.flows.at("tail").does);
  CHECK(tail.run.size() == 3);
  CHECK(tail.environment.at("LEVEL") == "5");
  CHECK(tail.to->component == "topic");
  CHECK(p.flows.at("tail").grace == nanoseconds{1min});
  CHECK(std::get<dataflow>(p.flows.at("bare").does).from->settings.at("every") == 1'000'000'000);
  const auto& named = std::get<dataflow>(p.flows.at("named").does);
  CHECK(named.steps[0].name == "only_good");
  CHECK(named.steps[0].component == "filter");
  CHECK(named.steps[1].name == "script_2");
  CHECK(named.steps[1].settings == "event.x = f(1)\nreturn event\n");
  CHECK(named.steps[2].settings == "true");

  const auto& by_rest = std::get<command>(p.jobs.at("by_rest").tasks[0].does);
  CHECK(by_rest.run == std::vector<std::string>{"./job", "1", "true", "2018-02-07"});
  CHECK(p.jobs.at("by_rest").retry.attempts == 2);
  CHECK(p.jobs.at("copy").tasks == p.jobs.at("by_rest").tasks);

  const job& many = p.jobs.at("many");
  REQUIRE(many.triggers.size() == 7);
  CHECK(many.triggers[0] == trigger{topic_trigger{"full", "", 10'000, 0s, 2s, 0s}});
  CHECK(std::get<cron_trigger>(many.triggers[1]).timezone == "UTC");
  CHECK(std::get<cron_trigger>(many.triggers[1]).missed == missed_policy::all);
  CHECK(many.triggers[2] == trigger{every_trigger{90s}});
  CHECK(many.triggers[3] == trigger{after_trigger{"", "by_rest", after_outcome::succeeded}});
  CHECK(many.triggers[4] == trigger{after_trigger{"other", "load", after_outcome::succeeded}});
  CHECK(many.triggers[5] == trigger{after_trigger{"", "copy", after_outcome::any}});
  CHECK(many.triggers[6] == trigger{after_trigger{"third", "load", after_outcome::failed}});
  CHECK(many.on_overlap == overlap_rule::replace);
  CHECK(many.grace == 0s);
  const auto& flow = std::get<dataflow>(many.tasks[0].does);
  CHECK(flow.from->settings.at("path") == value::array({"a.ndjson", "b.ndjson"}));
  CHECK(flow.to->settings.at("retry") == value::array({5'000'000'000, 5'000'000'000}));

  const job& graph = p.jobs.at("graph");
  CHECK(graph.triggers.empty());
  REQUIRE(graph.tasks.size() == 4);
  CHECK(graph.tasks[0].name == "last");
  CHECK(graph.tasks[0].timeout == nanoseconds{5min});
  CHECK(graph.tasks[1].needs == std::vector<std::string>{"first"});
  CHECK(std::get<dataflow>(graph.tasks[1].does).from->settings.at("since") == "2018-02-07T00:00:00.000000Z");
  CHECK_FALSE(std::get<dataflow>(graph.tasks[2].does).from);
}

TEST_CASE("what is shown is a definition of the same pipeline", "[config][pipeline]") {
  check_round_trip(parsed(testing::orders_yaml));
  check_round_trip(parsed(testing::everything_yaml));
  check_round_trip(parsed(testing::jobs_yaml));
  check_round_trip(parsed("name: nothing-yet"));
}

TEST_CASE("what is shown has units, defaults and the order written", "[config][pipeline]") {
  const value document = parsed("jobs:\n  z: {run: [x], timeout: 90s}\n  a: {run: [y]}\nname: n\n").document;
  CHECK(document.dump() ==
        R"({"jobs":{"z":{"run":["x"],"timeout":"1m30s","retry":{"attempts":1,"backoff":"1s..1m"},)"
        R"("on_overlap":{"rule":"queue"},"priority":5,"queue_limit":1000,"grace":"10s"},)"
        R"("a":{"run":["y"],"retry":{"attempts":1,"backoff":"1s..1m"},)"
        R"("on_overlap":{"rule":"queue"},"priority":5,"queue_limit":1000,"grace":"10s"}},"name":"n"})");
}

TEST_CASE("defaults go only where their key may stand", "[config][pipeline]") {
  const pipeline p = parsed(
      "name: a\nflows: {f: {from: {topic: t}, to: drop}}\njobs: {j: {run: [x], trigger: {every: 1s}}}");
  CHECK_FALSE(p.document.at("flows").at("f").contains("grace"));
  CHECK(p.document.at("jobs").at("j").at("trigger").at(0).dump() == R"({"every":"1s"})");
}

TEST_CASE("a large definition is no trouble", "[config][pipeline]") {
  std::string yaml = "name: big\njobs:\n  j:\n    tasks:\n      t0: {run: [x]}\n";
  for (int i = 1; i < 5'000; ++i) {
    yaml += "      t" + std::to_string(i) + ": {run: [x], needs: [t" + std::to_string(i - 1) + "]}\n";
  }
  CHECK(parsed(yaml).jobs.at("j").tasks.size() == 5'000);
  yaml += "      loop: {run: [x], needs: [t4999, loop]}\n";
  const auto out = parse_pipeline(yaml, small_catalog());
  REQUIRE_FALSE(out.has_value());
  CHECK_THAT(out.error().detail, Catch::Matchers::Contains("loop -> loop"));
}

// Nothing that a broken disk, editor or network can make of a good definition may crash or hang the checker,
// and whatever it accepts must survive being shown and read again.
TEST_CASE("mangled definitions are accepted or refused, never worse", "[config][pipeline][fuzz]") {
  std::uint32_t state = 12345;
  const auto random = [&state](std::size_t below) {
    state = state * 1664525u + 1013904223u;
    return static_cast<std::size_t>(state >> 8) % below;
  };
  const auto try_it = [](const std::string& text) {
    const auto out = parse_pipeline(text, small_catalog());
    if (out) {
      check_round_trip(*out);
      return;
    }
    const error e = out.error();
    REQUIRE_FALSE(e.problems.empty());
    for (const problem& p : e.problems) {
      REQUIRE(p.line >= 1);
      REQUIRE(p.column >= 1);
    }
  };
  const std::string alphabet = " \n\t:-[]{},\"'&*!|>#%@?~0a$\\\xC3\xA9";
  for (const std::string& original :
       {std::string(testing::orders_yaml), std::string(testing::everything_yaml),
        std::string(testing::jobs_yaml), parsed(testing::everything_yaml).document.dump(),
        parsed(testing::jobs_yaml).document.dump()}) {
    for (std::size_t cut = 0; cut < original.size(); cut += 7) {
      try_it(original.substr(0, cut));
      try_it(original.substr(cut));
    }
    for (int i = 0; i < 1'000; ++i) {
      std::string text = original;
      for (std::size_t n = 0; n <= random(3); ++n) {
        const std::size_t at = random(text.size());
        switch (random(4)) {
          case 0:
            text[at] = static_cast<char>(text[at] ^ (1 << random(8)));
            break;
          case 1:
            text[at] = alphabet[random(alphabet.size())];
            break;
          case 2:
            text.insert(at, 1, alphabet[random(alphabet.size())]);
            break;
          default:
            text.erase(at, 1 + random(20));
            break;
        }
      }
      INFO(text);
      try_it(text);
    }
  }
}

}  // namespace penstock::config
