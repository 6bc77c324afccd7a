// Values and pipelines from their text, which must be right.
#pragma once

#include <string>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "config/definition.hpp"
#include "test_catalog.hpp"

namespace penstock::testing {

inline config::value json(const char* text) { return config::value::parse(text); }

inline config::pipeline parsed(const std::string& text) {
  const auto out = config::parse_pipeline(text, small_catalog());
  if (!out) {
    const error e = out.error();
    for (const problem& p : e.problems) UNSCOPED_INFO(config::describe(p, ""));
    FAIL(e.detail);
  }
  return *out;
}

}  // namespace penstock::testing
