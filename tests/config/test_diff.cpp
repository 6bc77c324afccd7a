#include <catch2/catch.hpp>

#include "config/diff.hpp"
#include "from_text.hpp"
#include "good_definitions.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

using names = std::vector<std::string>;
using testing::parsed;

}  // namespace

TEST_CASE("start-up is a diff from nothing, removal a diff to nothing", "[config][diff]") {
  const pipeline p = parsed(testing::orders_yaml);
  const pipeline_diff start = diff(nullptr, &p);
  CHECK(start.topics.added == names{"orders"});
  CHECK(start.flows.added == names{"alerts", "intake"});
  CHECK(start.jobs.added == names{"load", "report"});
  CHECK(start.jobs.changed.empty());
  CHECK(start.settings_changed);
  const pipeline_diff end = diff(&p, nullptr);
  CHECK(end.flows.removed == names{"alerts", "intake"});
  CHECK(end.flows.added.empty());
  CHECK(diff(nullptr, nullptr).empty());
}

TEST_CASE("comments, spacing and spelt-out defaults change nothing", "[config][diff]") {
  const pipeline before =
      parsed("name: a\njobs: {j: {run: [x], timeout: 90s}}\ntopics: {t: {max_bytes: 1024B}}\n");
  const pipeline after = parsed(
      "# now with comments\nname: a\ntopics:\n  t:\n    max_bytes: 1KiB\njobs:\n  j:\n    run: [x]\n    "
      "timeout: 1m30s\n"
      "    retry: {attempts: 1}\n    on_overlap: queue\n");
  CHECK(diff(&before, &after).empty());
}

TEST_CASE("each part is compared by what it means", "[config][diff]") {
  const pipeline before = parsed(testing::orders_yaml);
  const auto changed = [&before](const std::string& from, const std::string& to) {
    std::string text = testing::orders_yaml;
    REQUIRE(text.find(from) != std::string::npos);
    const pipeline after = parsed(text.replace(text.find(from), from.size(), to));
    return diff(&before, &after);
  };
  const pipeline_diff flow = changed("event.total > 5000", "event.total > 6000");
  CHECK(flow.flows.changed == names{"alerts"});
  CHECK(flow.topics.empty());
  CHECK(flow.jobs.empty());
  CHECK_FALSE(flow.settings_changed);
  CHECK(changed("retain: 7d", "retain: 8d").topics.changed == names{"orders"});
  CHECK(changed("needs: [extract]", "needs: []").jobs.changed == names{"report"});
  CHECK(changed("  alerts:", "  alarms:").flows.added == names{"alarms"});
  CHECK(changed("  alerts:", "  alarms:").flows.removed == names{"alerts"});
  const pipeline_diff described = changed("Shop orders", "Orders");
  CHECK(described.settings_changed);
  CHECK(described.flows.empty());
}

TEST_CASE("another workdir changes everything that could run there", "[config][diff]") {
  const pipeline before = parsed(testing::orders_yaml);
  const pipeline after = parsed(std::string(testing::orders_yaml) + "workdir: /srv/orders\n");
  const pipeline_diff moved = diff(&before, &after);
  CHECK(moved.settings_changed);
  CHECK(moved.flows.changed == names{"alerts", "intake"});
  CHECK(moved.jobs.changed == names{"load", "report"});
  CHECK(moved.topics.empty());
}

}  // namespace penstock::config
