#include "config/in_quotes.hpp"

#include <algorithm>

#include "config/field.hpp"

namespace penstock::config {
namespace {

constexpr std::size_t shown_bytes = 60;
constexpr std::size_t shown_candidates = 12;

bool continues_a_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

std::string in_quotes(std::string_view text) {
  std::size_t end = std::min(text.size(), shown_bytes);
  while (end > 0 && end < text.size() && continues_a_character(text[end])) --end;
  std::string out = "'";
  for (char c : text.substr(0, end)) out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  return out + (end < text.size() ? "…'" : "'");
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  if (std::string near = nearest(word, candidates); !near.empty()) return "did you mean '" + near + "'?";
  if (candidates.empty()) return "none is known here";
  std::string known = "known: ";
  for (std::size_t i = 0; i < std::min(candidates.size(), shown_candidates); ++i) {
    known += (i ? ", " : "") + candidates[i];
  }
  return candidates.size() > shown_candidates ? known + ", …" : known;
}

}  // namespace penstock::config
