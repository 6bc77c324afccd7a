#include <stdexcept>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "config/check_pipeline.hpp"
#include "config/in_quotes.hpp"
#include "config/validate.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

using names = std::vector<std::string>;

// Every record in the tree has what its type needs, and its default obeys it.
void check_record(const field& f, const std::string& path) {
  INFO(path);
  const bool holds_one = f.type == field_type::list || f.type == field_type::map;
  CHECK((!holds_one || f.children.size() == 1));
  CHECK((f.type != field_type::choice || !f.choices.empty()));
  CHECK((f.shorthand.empty() || find_child(f, f.shorthand)));
  CHECK((!f.required || f.fallback.empty()));
  for (const auto& name : f.exactly_one) CHECK(find_child(f, name));
  for (const field& child : f.children) {
    CHECK((child.goes_with.empty() || find_child(f, child.goes_with)));
    if (f.type == field_type::object) CHECK_FALSE(child.doc.empty());
    for (const std::string& written : {child.fallback, child.example}) {
      if (written.empty()) continue;
      const auto parsed = parse_document(written);
      REQUIRE(parsed.has_value());
      problem_list problems;
      validate(place(*parsed), child, testing::small_catalog(), problems);
      const auto found = problems.take_sorted();
      INFO(child.name << ": " << written << (found.empty() ? "" : ": " + found.front().detail));
      // The small catalog lacks one sink that an example names.
      CHECK((found.empty() || found.front().detail.find("unknown sink 'stdout'") != std::string::npos));
    }
    check_record(child, path + "/" + child.name);
  }
}

}  // namespace

TEST_CASE("the records of a pipeline obey themselves", "[config][field]") {
  check_record(pipeline_fields(), "");
}

TEST_CASE("a default that breaks its record is a bug", "[config][field]") {
  const field record{.type = field_type::object,
                     .children = {{.name = "a", .type = field_type::duration, .fallback = "5"}}};
  problem_list problems;
  const node empty;
  CHECK_THROWS_AS(validate(place(empty), record, testing::small_catalog(), problems), std::logic_error);
}

TEST_CASE("the nearest word is a likely slip, or none", "[config][field]") {
  const names keys{"from", "steps", "to", "run", "environment", "on_overlap", "timeout", "trigger", "retry"};
  CHECK(nearest("form", keys) == "from");
  CHECK(nearest("frm", keys) == "from");
  CHECK(nearest("From", keys) == "from");
  CHECK(nearest("step", keys) == "steps");
  CHECK(nearest("onOverlap", keys) == "on_overlap");
  CHECK(nearest("on-overlap", keys) == "on_overlap");
  CHECK(nearest("ot", keys) == "to");
  CHECK(nearest("env", keys) == "environment");
  CHECK(nearest("enviroment", keys) == "environment");
  CHECK(nearest("triger", keys) == "trigger");
  CHECK(nearest("x", keys).empty());
  CHECK(nearest("schedule", keys).empty());
  CHECK(nearest("", keys).empty());
  CHECK(nearest("form", {}).empty());
  CHECK(nearest(std::string(1'000'000, 'x'), keys).empty());
}

TEST_CASE("a person's words are shown on one line and cut", "[config][field]") {
  CHECK(in_quotes("a\nb") == "'a b'");
  CHECK(in_quotes(std::string(60, 'x')) == "'" + std::string(60, 'x') + "'");
  CHECK(in_quotes(std::string(61, 'x')) == "'" + std::string(60, 'x') + "…'");
  CHECK(in_quotes(std::string(59, 'x') + "é!") == "'" + std::string(59, 'x') + "…'");
}

TEST_CASE("cycles are found, each once, from its smallest name", "[config][field]") {
  CHECK(find_cycles({}).empty());
  CHECK(find_cycles({{"a", {"b", "gone"}}, {"b", {"c"}}, {"c", {}}}).empty());
  CHECK(find_cycles({{"a", {"a", "a"}}}) == std::vector<names>{{"a", "a"}});
  CHECK(find_cycles({{"c", {"a"}}, {"a", {"b"}}, {"b", {"c"}}, {"z", {"c"}}}) ==
        std::vector<names>{{"a", "b", "c", "a"}});
  CHECK(find_cycles({{"a", {"b"}}, {"b", {"a"}}, {"x", {"a", "y"}}, {"y", {"x"}}}) ==
        std::vector<names>{{"a", "b", "a"}, {"x", "y", "x"}});
  waits_for long_chain;
  for (int i = 0; i < 50'000; ++i)
    long_chain["n" + std::to_string(i)] = {"n" + std::to_string((i + 1) % 50'000)};
  REQUIRE(find_cycles(long_chain).size() == 1);
  CHECK(find_cycles(long_chain).front().size() == 50'001);
}

}  // namespace penstock::config
