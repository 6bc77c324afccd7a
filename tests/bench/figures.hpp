// How benchmarks tell their figures to a program: with --lines among the arguments they print nothing but "NAME VALUE UNIT", one
// figure a line, for tests/bench/run; without it, tables for people. Used by the main thread.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

namespace penstock::testing {

// Takes --lines out of the arguments; was it there?
inline bool take_lines_option(int& count, char** arguments) {
  char** const end = arguments + count;
  char** const kept = std::remove_if(arguments + 1, end, [](const char* word) { return std::strcmp(word, "--lines") == 0; });
  const bool there = kept != end;
  count = static_cast<int>(kept - arguments);
  return there;
}

// `name` and `unit` hold no blanks.
inline void print_line(const std::string& name, double value, const char* unit) {
  std::printf("%s %.6g %s\n", name.c_str(), value, unit);
}

}  // namespace penstock::testing
