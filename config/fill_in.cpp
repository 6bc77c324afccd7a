#include "config/fill_in.hpp"

#include <algorithm>
#include <array>

#include "config/characters.hpp"
#include "config/field.hpp"
#include "config/in_quotes.hpp"

namespace penstock::config {
namespace {

constexpr std::array<std::string_view, 5> fill_in_variables{"params", "run", "tasks", "item", "item_index"};

bool begins_fill_in(std::string_view text) {
  return std::any_of(fill_in_variables.begin(), fill_in_variables.end(), [text](std::string_view variable) {
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

// The end of the word that begins at `at`.
std::size_t behind_word(std::string_view text, std::size_t at) {
  while (at < text.size() && is_word(text[at])) ++at;
  return at;
}

// `word` and what stands behind it in ${...}; nothing when it is no slip of anything.
std::optional<std::string> slip_of(const std::string& word, const std::string& rest) {
  const std::string shown = in_quotes("${" + word + rest + "}");
  for (const char* kind : {"env", "file", "secret"}) {
    if (word == kind) return shown + ": a reference is written with a colon, ${" + word + ":" + rest.substr(1) + "}";
  }
  const std::string meant = nearest(word, {fill_in_variables.begin(), fill_in_variables.end()});
  if (meant.empty() || meant == word) return std::nullopt;
  return shown + " is nothing that is filled in; did you mean '${" + meant + rest + "}'?";
}

}  // namespace

std::optional<std::string> fill_in_slip(std::string_view text) {
  for (std::size_t at = text.find("${"); at != text.npos; at = text.find("${", at + 2)) {
    const std::size_t dot = behind_word(text, at + 2);
    if (dot == at + 2 || dot + 1 >= text.size() || text[dot] != '.' || !begins_word(text[dot + 1])) continue;
    const std::size_t end = behind_word(text, dot + 1);
    const std::string word(text.substr(at + 2, dot - at - 2)), rest(text.substr(dot, end - dot));
    if (auto slip = slip_of(word, rest)) return slip;
  }
  return std::nullopt;
}

bool is_fill_in_variable(std::string_view word) {
  return std::find(fill_in_variables.begin(), fill_in_variables.end(), word) != fill_in_variables.end();
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
