// One mistake, and exactly where and how it must be reported.
#pragma once

#include <algorithm>
#include <string>

#include <catch2/catch.hpp>

#include "config/definition.hpp"
#include "test_catalog.hpp"

namespace penstock::testing {

struct broken_definition {
  const char* rule;
  const char* yaml;  // '@' marks the place that must be named, and is taken out
  const char* pointer;
  const char* says;  // a key phrase of the detail
};

inline void check_broken(const broken_definition& row) {
  std::string yaml = row.yaml;
  const std::size_t at = yaml.find('@');
  REQUIRE(at != yaml.npos);
  yaml.erase(at, 1);
  const std::string before = yaml.substr(0, at);
  const auto line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');

  const auto parsed = config::parse_pipeline(yaml, small_catalog());
  INFO(yaml);
  REQUIRE(!parsed);
  const error e = parsed.error();
  std::string all;
  for (const problem& p : e.problems) all += "\n" + config::describe(p, "");
  INFO("problems:" << all);
  REQUIRE(e.problems.size() == 1);
  const problem& p = e.problems.front();
  CHECK(p.pointer == row.pointer);
  CHECK(p.line == line);
  CHECK(p.column == static_cast<int>(at - line_begin) + 1);
  CHECK_THAT(p.detail, Catch::Matchers::Contains(row.says));
  CHECK(p.detail.find('\n') == std::string::npos);
}

}  // namespace penstock::testing
