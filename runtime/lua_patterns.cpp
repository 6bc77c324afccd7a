#include "runtime/lua_patterns.hpp"

#include <cctype>
#include <cstring>

namespace penstock::runtime {

namespace {

// Nested match_from calls. Each holds little more than its arguments, so this stays far below a thread's
// stack.
constexpr int most_depth = 200;

unsigned char byte(char c) { return static_cast<unsigned char>(c); }

bool in_class(unsigned char c, unsigned char letter) {
  bool found = false;
  switch (std::tolower(letter)) {
    case 'a':
      found = std::isalpha(c) != 0;
      break;
    case 'c':
      found = std::iscntrl(c) != 0;
      break;
    case 'd':
      found = std::isdigit(c) != 0;
      break;
    case 'g':
      found = std::isgraph(c) != 0;
      break;
    case 'l':
      found = std::islower(c) != 0;
      break;
    case 'p':
      found = std::ispunct(c) != 0;
      break;
    case 's':
      found = std::isspace(c) != 0;
      break;
    case 'u':
      found = std::isupper(c) != 0;
      break;
    case 'w':
      found = std::isalnum(c) != 0;
      break;
    case 'x':
      found = std::isxdigit(c) != 0;
      break;
    case 'z':  // in no manual since Lua 5.2, but known all the same
      found = c == 0;
      break;
    default:
      return letter == c;
  }
  return std::isupper(letter) ? !found : found;
}

}  // namespace

pattern_matcher::pattern_matcher(std::string_view subject, std::string_view pattern, std::int64_t most_steps)
    : begin_(subject.data()),
      end_(subject.data() + subject.size()),
      pattern_begin_(pattern.data()),
      pattern_end_(pattern.data() + pattern.size()),
      most_steps_(most_steps) {}

const char* pattern_matcher::match(const char* at) {
  level_ = 0;
  depth_ = 0;
  return match_from(at, pattern_begin_);
}

const pattern_matcher::capture& pattern_matcher::captured(int index) const {
  if (index >= level_) throw pattern_error("invalid capture index %" + std::to_string(index + 1));
  const capture& c = captures_[static_cast<std::size_t>(index)];
  if (c.length == capture::open) throw pattern_error("unfinished capture");
  return c;
}

void pattern_matcher::spend(std::int64_t steps) {
  steps_ += steps;
  if (steps_ > most_steps_) throw pattern_error("the pattern takes too many steps");
}

const char* pattern_matcher::match_from(const char* s, const char* p) {
  struct nesting {
    int& depth;
    explicit nesting(int& d) : depth(d) {
      if (++depth > most_depth) throw pattern_error("pattern too complex");
    }
    ~nesting() { --depth; }
  } const nested(depth_);

  while (p != pattern_end_) {
    spend(1);
    if (*p == '(') {
      const bool position = p + 1 != pattern_end_ && p[1] == ')';
      return position ? open_capture(s, p + 2, capture::position) : open_capture(s, p + 1, capture::open);
    }
    if (*p == ')') return close_capture(s, p + 1);
    if (*p == '$' && p + 1 == pattern_end_) return s == end_ ? s : nullptr;
    if (*p == '%' && p + 1 != pattern_end_) {
      if (p[1] == 'b') {
        s = match_balanced(s, p + 2);
        if (!s) return nullptr;
        p += 4;
        continue;
      }
      if (p[1] == 'f') {
        p += 2;
        if (p == pattern_end_ || *p != '[') throw pattern_error("missing '[' after '%f' in pattern");
        const char* set_end = end_of_item(p);
        if (!at_frontier(s, p, set_end)) return nullptr;
        p = set_end;
        continue;
      }
      if (std::isdigit(byte(p[1]))) {
        s = match_reference(s, p[1]);
        if (!s) return nullptr;
        p += 2;
        continue;
      }
    }
    const char* item_end = end_of_item(p);
    switch (item_end != pattern_end_ ? *item_end : '\0') {
      case '*':
        return match_repeated(s, p, item_end);
      case '+':
        return matches_one(s, p, item_end) ? match_repeated(s + 1, p, item_end) : nullptr;
      case '-':
        return match_lazily(s, p, item_end);
      case '?':
        if (matches_one(s, p, item_end)) {
          if (const char* found = match_from(s + 1, item_end + 1)) return found;
        }
        p = item_end + 1;
        break;
      default:
        if (!matches_one(s, p, item_end)) return nullptr;
        ++s;
        p = item_end;
    }
  }
  return s;
}

const char* pattern_matcher::match_repeated(const char* s, const char* p, const char* item_end) {
  std::ptrdiff_t count = 0;
  while (matches_one(s + count, p, item_end)) {
    spend(1);
    ++count;
  }
  for (; count >= 0; --count) {
    if (const char* found = match_from(s + count, item_end + 1)) return found;
    spend(1);
  }
  return nullptr;
}

const char* pattern_matcher::match_lazily(const char* s, const char* p, const char* item_end) {
  for (;; ++s) {
    spend(1);
    if (const char* found = match_from(s, item_end + 1)) return found;
    if (!matches_one(s, p, item_end)) return nullptr;
  }
}

const char* pattern_matcher::open_capture(const char* s, const char* p, std::ptrdiff_t kind) {
  if (level_ >= most_captures) throw pattern_error("too many captures");
  captures_[static_cast<std::size_t>(level_)] = {s, kind};
  ++level_;
  const char* found = match_from(s, p);
  if (!found) --level_;
  return found;
}

const char* pattern_matcher::close_capture(const char* s, const char* p) {
  int index = level_ - 1;
  while (index >= 0 && captures_[static_cast<std::size_t>(index)].length != capture::open) --index;
  if (index < 0) throw pattern_error("invalid pattern capture");
  capture& c = captures_[static_cast<std::size_t>(index)];
  c.length = s - c.start;
  const char* found = match_from(s, p);
  if (!found) c.length = capture::open;
  return found;
}

// %bxy: from an x to the y that balances it.
const char* pattern_matcher::match_balanced(const char* s, const char* p) {
  if (pattern_end_ - p < 2) throw pattern_error("malformed pattern (missing arguments to '%b')");
  if (s == end_ || *s != p[0]) return nullptr;
  std::int64_t nesting = 1;
  for (const char* at = s + 1; at < end_; ++at) {
    spend(1);
    if (*at == p[1]) {
      if (--nesting == 0) return at + 1;
    } else if (*at == p[0]) {
      ++nesting;
    }
  }
  return nullptr;
}

const char* pattern_matcher::match_reference(const char* s, char digit) {
  const int index = digit - '1';
  if (index < 0 || index >= level_ || captures_[static_cast<std::size_t>(index)].length == capture::open)
    throw pattern_error(std::string("invalid capture index %") + digit);
  const capture& c = captures_[static_cast<std::size_t>(index)];
  if (c.length == capture::position) return nullptr;  // as in Lua, a position is equal to no text
  spend(c.length / 16);
  if (end_ - s < c.length || std::memcmp(c.start, s, static_cast<std::size_t>(c.length)) != 0) return nullptr;
  return s + c.length;
}

// %f[set]: between a byte outside and one inside; both ends of the subject count as a zero byte.
bool pattern_matcher::at_frontier(const char* s, const char* set, const char* set_end) {
  const unsigned char before = s == begin_ ? 0 : byte(s[-1]);
  const unsigned char after = s == end_ ? 0 : byte(*s);
  return !in_set(before, set, set_end) && in_set(after, set, set_end);
}

bool pattern_matcher::matches_one(const char* s, const char* p, const char* item_end) {
  if (s >= end_) return false;
  switch (*p) {
    case '.':
      return true;
    case '%':
      return in_class(byte(*s), byte(p[1]));
    case '[':
      return in_set(byte(*s), p, item_end);
    default:
      return *p == *s;
  }
}

// `set` is at the '[', `set_end` is behind the ']'.
bool pattern_matcher::in_set(unsigned char c, const char* set, const char* set_end) {
  spend((set_end - set) / 16);
  const char* p = set + 1;
  const char* last = set_end - 1;
  const bool complement = *p == '^';
  if (complement) ++p;
  for (; p < last; ++p) {
    if (*p == '%') {
      ++p;
      if (in_class(c, byte(*p))) return !complement;
    } else if (last - p > 2 && p[1] == '-') {
      if (byte(p[0]) <= c && c <= byte(p[2])) return !complement;
      p += 2;
    } else if (byte(*p) == c) {
      return !complement;
    }
  }
  return complement;
}

// Behind one single-byte item: a byte, an escape, or a set.
const char* pattern_matcher::end_of_item(const char* p) const {
  if (*p == '%') {
    if (p + 1 == pattern_end_) throw pattern_error("malformed pattern (ends with '%')");
    return p + 2;
  }
  return *p == '[' ? end_of_set(p + 1) : p + 1;
}

const char* pattern_matcher::end_of_set(const char* p) const {
  if (p != pattern_end_ && *p == '^') ++p;
  // A ']' directly after the bracket stands for itself.
  for (bool first = true;; first = false) {
    if (p == pattern_end_) throw pattern_error("malformed pattern (missing ']')");
    if (*p == ']' && !first) return p + 1;
    p += (*p == '%' && p + 1 != pattern_end_) ? 2 : 1;
  }
}

}  // namespace penstock::runtime
