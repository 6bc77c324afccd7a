// What a window works out of its events: count, first, last, min, max, sum, mean, stddev, distinct, percentile, collect.
//
// Pure: no clock, no Lua. Values come as JSON texts (the results of the expressions), one for each column; several
// aggregates may share a column. aggregate_plan says what is to be worked out and is constant; an aggregate_state is what
// one window holds of it. The results are those of Python's statistics module and of numpy:
//
// - sum: of whole numbers exact while it fits into 64 signed bits; otherwise a double, added with compensation
//   (Neumaier), which agrees with math.fsum but for the last digit. min and max return the value as it came.
// - mean: Welford's running mean. stddev: of a sample (n - 1), as statistics.stdev and numpy.std(ddof=1); null below two.
// - percentile: exact, with linear interpolation, as numpy.percentile does by default and statistics.quantiles with
//   method='inclusive'.
// - distinct: how many different values. 1 and 1.0 are the same number; "1" is another value.
// - first and last: by the time given with each value; of equal times the one that arrived first, last.
// - collect: the values in order of arrival; of two windows that were joined the earlier one's come first.
// - count: without an expression all events, with one those for which it is neither nil nor false (as a filter).
//
// nil is no value: it is skipped. Where there was no value the result is null; of count and distinct 0. A result that is
// too large for a double is null.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "runtime/state_bytes.hpp"

namespace penstock::runtime {

enum class aggregate_kind {
  events,
  count,
  first,
  last,
  min,
  max,
  sum,
  mean,
  stddev,
  distinct,
  percentile,
  collect
};

struct aggregate_use {
  std::string name;  // in the result
  aggregate_kind kind{};
  std::string expression{};  // empty: events
  double at = 50;            // percentile: 0 to 100
};

// Whole when it was written as an integer that fits into 64 signed bits.
struct json_number {
  bool whole = true;
  std::int64_t integer = 0;  // when whole
  double real = 0;           // always
};

std::optional<json_number> number_of(std::string_view json);
// As JSON: floats in the shortest text that reads back the same, recognisable as floats (2.0); null beyond a double.
void append_number(std::string& out, double value);
// The one text of all that are equal: 1.0 and 1e0 become 1. Other values stay as they are.
std::string_view canonical(std::string_view json, std::string& memory);

// One column's value of one event.
struct aggregate_value {
  std::string_view json{};  // empty: nil
  json_number number{};     // where an aggregate needs it
};

// What one aggregate (or several percentiles of the same expression) holds of its values.
struct aggregate_cell {
  // What grows with the events, and single values that are texts.
  struct kept_values {
    std::vector<double> numbers{};
    std::vector<std::string> texts{};
    std::unordered_set<std::string> known{};
    std::vector<const std::string*> unsaved_known{};  // into `known`
    std::size_t saved = 0;                            // how many of numbers or texts are in the store
  };

  std::int64_t count = 0;  // values so far
  std::int64_t whole = 0;  // min, max, sum: the whole number; first, last: its time
  double a = 0, b = 0;     // sum: the rest and its compensation; mean, stddev: mean and squared deviations; min, max
  bool real = false;       // min, max, sum: not a whole number
  std::unique_ptr<kept_values> kept{};
};

using aggregate_state = std::vector<aggregate_cell>;

class aggregate_plan {
 public:
  explicit aggregate_plan(std::vector<aggregate_use> uses);

  // The expressions to evaluate for each event, each once, with the name of the aggregate that needs it first.
  const std::vector<std::pair<std::string, std::string>>& columns() const { return columns_; }
  // The uses as a text that is equal when the states are of the same making.
  std::string description() const;

  // Fills in the numbers. What is wrong with the values, or empty; to be asked before add().
  std::string check(std::vector<aggregate_value>& values) const;
  aggregate_state begin() const { return aggregate_state(cells_.size()); }
  // Whether each list stays within `most_values` when these are added.
  bool has_room(const aggregate_state& state, const std::vector<aggregate_value>& values,
                std::size_t most_values) const;
  // At most how many bytes add() will return.
  std::size_t most_bytes(const std::vector<aggregate_value>& values) const;
  // `time` orders first and last. Returns by how many bytes the kept values have grown.
  std::size_t add(aggregate_state& state, const std::vector<aggregate_value>& values, std::int64_t time) const;
  // Whether join() keeps each list within `most_values`.
  bool can_join(const aggregate_state& into, const aggregate_state& other, std::size_t most_values) const;
  // As if the other's values had been added behind.
  void join(aggregate_state& into, aggregate_state&& other) const;
  std::size_t kept_bytes(const aggregate_state& state) const;

  // Appends `,"name":value` for each.
  void append_result(std::string& out, const aggregate_state& state) const;

  // All but the lists, which only grow: append_unsaved() writes what was added to them since it was last called, and
  // returns false when that was nothing. A state is restored by read(), then by read_values() of each such row in
  // order, then check_complete(); these throw when the rows are damaged.
  void write(state_writer& out, const aggregate_state& state) const;
  bool append_unsaved(state_writer& out, aggregate_state& state) const;
  aggregate_state read(state_reader& in) const;
  void read_values(state_reader& in, aggregate_state& state) const;
  void check_complete(const aggregate_state& state) const;
  bool has_lists() const { return has_lists_; }

 private:
  struct cell_plan {
    aggregate_kind kind{};
    std::size_t column = 0;
  };
  struct shown {
    std::string prefix;  // `,"name":`
    aggregate_kind kind{};
    std::size_t cell = 0;
    double at = 0;
  };

  std::size_t column_of(const aggregate_use& use);
  std::size_t cell_of(const aggregate_use& use, std::size_t column);

  std::vector<aggregate_use> uses_;
  std::vector<std::pair<std::string, std::string>> columns_;
  std::vector<std::string> needs_number_;  // by column: the aggregate that needs one; empty: none does
  std::vector<cell_plan> cells_;
  std::vector<shown> shown_;
  bool has_lists_ = false;
};

}  // namespace penstock::runtime
