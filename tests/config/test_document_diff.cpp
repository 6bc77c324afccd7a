#include "config/document_diff.hpp"

#include <catch2/catch.hpp>

#include "config/definition.hpp"
#include "from_text.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

using testing::json;

std::string paths(const std::vector<field_change>& changes) {
  std::string all;
  for (const auto& c : changes) {
    const std::string before = c.before.is_discarded() ? "nothing" : c.before.dump();
    const std::string after = c.after.is_discarded() ? "nothing" : c.after.dump();
    all += c.path + ":" + before + "->" + after + ";";
  }
  return all;
}

TEST_CASE("values that differ are named with their paths", "[config][diff]") {
  CHECK(field_changes(json(R"({"a":1,"b":[1,{"c":2}]})"), json(R"({"b":[1,{"c":2}],"a":1})")).empty());
  CHECK(paths(field_changes(json(R"({"a":1,"b":[1,{"c":2}]})"), json(R"({"b":[1,{"c":3}],"d":null})"))) ==
        "/a:1->nothing;/b/1/c:2->3;/d:nothing->null;");
  CHECK(paths(field_changes(json("[1,2]"), json("[1]"))) == ":[1,2]->[1];");
  CHECK(paths(field_changes(json(R"({"a/b~":1})"), json("{}"))) == "/a~1b~0:1->nothing;");
  CHECK(paths(field_changes(no_value(), json("1"))) == ":nothing->1;");
  CHECK(field_changes(no_value(), no_value()).empty());
}

TEST_CASE("a unified diff has three lines of context and joins near hunks", "[config][diff]") {
  const auto numbered = [](int from, int to) {
    std::string text;
    for (int i = from; i <= to; ++i) text += std::to_string(i) + "\n";
    return text;
  };
  CHECK(unified_diff(numbered(1, 9), numbered(1, 9), "a", "b").empty());
  CHECK(unified_diff("", "x\n", "a", "b") == "--- a\n+++ b\n@@ -0,0 +1 @@\n+x\n");
  CHECK(unified_diff("x\n", "", "a", "b") == "--- a\n+++ b\n@@ -1 +0,0 @@\n-x\n");
  CHECK(unified_diff(numbered(1, 20), numbered(1, 9) + "new\n" + numbered(11, 20), "a", "b") ==
        "--- a\n+++ b\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+new\n 11\n 12\n 13\n");
  // Seven equal lines between two changes keep them apart, six do not.
  const auto two = [&](int second) {
    std::string text = numbered(1, 30);
    text.replace(text.find("\n10\n") + 1, 2, "ten");
    const std::string line = "\n" + std::to_string(second) + "\n";
    text.replace(text.find(line) + 1, line.size() - 2, "other");
    const std::string diff = unified_diff(numbered(1, 30), text, "a", "b");
    int hunks = 0;
    for (std::size_t at = 0; (at = diff.find("@@ -", at)) != std::string::npos; ++at) ++hunks;
    return hunks;
  };
  CHECK(two(17) == 1);
  CHECK(two(18) == 2);
}

TEST_CASE("the canonical text reads as the same definition, whatever is in its texts", "[config][diff]") {
  const char* text = R"yaml(
name: odd
description: "  yes: no # '~' \"\\ \u00e9 \x01"
topics: {b: {}, a: {retain: 7d}}
jobs:
  j:
    run: ["-", "", "null", "0x10", "1_000", "1e3", "1:30", "2001-01-01", "a: b", "#c", "[x", "multi\nline\n", " lead\nx", "tab\tx\ny", "x\n\n", "true", "~", "- a", "%", "@", "`"]
    trigger: {every: 90m}
    retry: {attempts: 2, backoff: 1s..10s}
)yaml";
  const auto first = parse_pipeline(text, testing::small_catalog());
  REQUIRE(first.has_value());
  const std::string canonical = canonical_text(first->document);
  INFO(canonical);
  const auto second = parse_pipeline(canonical, testing::small_catalog());
  REQUIRE(second.has_value());
  CHECK(field_changes(first->document, second->document).empty());
  CHECK(second->jobs == first->jobs);
  CHECK(second->topics == first->topics);
  CHECK(canonical_text(second->document) == canonical);
  CHECK(canonical.find("  a:\n") < canonical.find("  b:"));
  CHECK(canonical_text(no_value()).empty());
}

}  // namespace
}  // namespace penstock::config
