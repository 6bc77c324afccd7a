// Every parameter that a path or a query takes, in one table: what it means, and which values it has. What refuses a wrong value
// (parameters.hpp), what the handlers take as a limit and what /openapi.json says come from here. Constant, any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::api {

enum class value_kind { text, flag, integer, time, duration, word, words };

struct parameter_rules {
  std::string name;
  std::string path{};         // the endpoint it stands in, as a pattern; empty: any that has no entry of its own
  value_kind kind = value_kind::text;
  std::string meaning{};      // one line for people
  std::int64_t least = 0, most = INT64_MAX;  // integer
  std::vector<std::string> known{};          // word: one of these; words: some of them, with commas
};

inline constexpr std::int64_t most_items = 1000;  // of one page
inline constexpr std::chrono::nanoseconds most_wait = std::chrono::minutes{10};

enum class place { path, query };

// The entry for a parameter of the endpoint at `path` (a pattern); null when the table lacks it.
const parameter_rules* find_rules(std::string_view name, std::string_view path, place in);

// Of a query, for handlers, which know that there is one.
const parameter_rules& rules_of(std::string_view name, std::string_view path = {});

}  // namespace penstock::api
