#include "config/fill_in.hpp"

#include <algorithm>
#include <array>

namespace penstock::config {
namespace {

constexpr std::array<std::string_view, 5> variables{"params", "run", "tasks", "item", "item_index"};

bool begins_fill_in(std::string_view text) {
  return std::any_of(variables.begin(), variables.end(), [text](std::string_view variable) {
    if (!text.starts_with(variable) || text.size() == variable.size()) return false;
    const char next = text[variable.size()];
    return next == '.' || next == '[' || next == '}';
  });
}

// Behind the closing quote of the Lua string that begins at `at`, or the end of the text.
std::size_t behind_string(std::string_view text, std::size_t at) {
  const char quote = text[at++];
  while (at < text.size() && text[at] != quote) at += text[at] == '\\' ? 2 : 1;
  return std::min(at + 1, text.size());
}

// The brace that closes the expression beginning at `at`, or npos.
std::size_t closing_brace(std::string_view text, std::size_t at) {
  int depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"' || c == '\'') {
      at = behind_string(text, at);
      continue;
    }
    if (c == '{') ++depth;
    if (c == '}' && depth-- == 0) return at;
    ++at;
  }
  return text.npos;
}

}  // namespace

bool is_fill_in_variable(std::string_view word) {
  return std::find(variables.begin(), variables.end(), word) != variables.end();
}

std::vector<text_part> split_fill_ins(std::string_view text) {
  using kind = text_part::kind;
  std::vector<text_part> parts;
  std::size_t done = 0;
  for (std::size_t at = text.find("${"); at != text.npos; at = text.find("${", at)) {
    if (!begins_fill_in(text.substr(at + 2))) {
      at += 2;
      continue;
    }
    if (at > done) parts.push_back({kind::text, std::string(text.substr(done, at - done))});
    const std::size_t end = closing_brace(text, at + 2);
    if (end == text.npos) {
      parts.push_back({kind::unclosed, std::string(text.substr(at))});
      return parts;
    }
    parts.push_back({kind::expression, std::string(text.substr(at + 2, end - at - 2))});
    at = done = end + 1;
  }
  if (done < text.size()) parts.push_back({kind::text, std::string(text.substr(done))});
  return parts;
}

}  // namespace penstock::config
