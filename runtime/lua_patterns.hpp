// Lua patterns (Lua 5.4 reference manual, section 6.4.1) with a step limit.
//
// The matcher of Lua's own library can backtrack for hours inside one call, where no instruction hook reaches
// it. This one counts every step and gives up at the limit. Pure, no Lua state; lua_sandbox.cpp makes
// string.find and its siblings of it. Any thread; an object serves one subject and one pattern, which it does
// not own.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

namespace penstock::runtime {

// The pattern is malformed, too deeply recursive, or took more steps than allowed.
class pattern_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class pattern_matcher {
 public:
  struct capture {
    const char* start = nullptr;
    std::ptrdiff_t length = 0;  // or one of:
    static constexpr std::ptrdiff_t open = -1, position = -2;
  };
  static constexpr int most_captures = 32;

  // `pattern` without a leading anchor.
  pattern_matcher(std::string_view subject, std::string_view pattern, std::int64_t most_steps);

  // The end of the match that begins exactly at `at`, or null. Throws pattern_error.
  const char* match(const char* at);

  int captures() const { return level_; }
  // Of the last match; `index` from 0. Throws pattern_error for a capture that was not closed.
  const capture& captured(int index) const;
  std::int64_t steps() const { return steps_; }

 private:
  const char* match_from(const char* s, const char* p);
  const char* match_repeated(const char* s, const char* p, const char* item_end);
  const char* match_lazily(const char* s, const char* p, const char* item_end);
  const char* open_capture(const char* s, const char* p, std::ptrdiff_t kind);
  const char* close_capture(const char* s, const char* p);
  const char* match_balanced(const char* s, const char* p);
  const char* match_reference(const char* s, char digit);
  bool at_frontier(const char* s, const char* set, const char* set_end);
  bool matches_one(const char* s, const char* p, const char* item_end);
  bool in_set(unsigned char c, const char* set, const char* set_end);
  const char* end_of_item(const char* p) const;
  const char* end_of_set(const char* p) const;
  void spend(std::int64_t steps);

  const char* const begin_;
  const char* const end_;
  const char* const pattern_begin_;
  const char* const pattern_end_;
  const std::int64_t most_steps_;
  std::int64_t steps_ = 0;
  int depth_ = 0;
  int level_ = 0;
  std::array<capture, most_captures> captures_{};
};

}  // namespace penstock::runtime
