// What came out of a dataflow under test, against what its test expects. Pure, any thread.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/definition.hpp"

namespace penstock::config {

// What became of the given events. Events have all their attributes here.
struct test_seen {
  std::vector<test_event> to;
  std::map<std::string, std::vector<test_event>, std::less<>> outputs;  // every one that the dataflow has
  std::vector<test_death> dead;  // in the order of the events; all is said of each
};

// One event that is missing (only `expected`), surplus (only `got`) or another one than expected (both).
struct mismatch {
  std::size_t index = 0;  // in the list, from 0
  std::optional<value> expected, got;
  std::string detail{};  // where two events differ: "/total: 250 expected, 251 came"
};

// One list that is not as expected. The mismatches are in order; what stands before the first is right.
struct unmet_expectation {
  std::string where;  // "expect", "outputs/late", "dead"
  std::size_t expected = 0, got = 0;  // how many
  std::vector<mismatch> mismatches;
};

// Empty: it is all as the test expects.
std::vector<unmet_expectation> compare(const pipeline_test& test, const test_seen& seen);

// Equal as JSON: numbers by their value (1 is 1.0), members in any order.
bool same_value(const value& one, const value& other);

}  // namespace penstock::config
