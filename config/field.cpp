#include "config/field.hpp"

#include <algorithm>
#include <span>
#include <stdexcept>

namespace penstock::config {
namespace {

constexpr std::size_t longest_word = 64;        // longer words are no slip of anything we know
constexpr std::size_t most_candidates = 1'000;  // beyond so many, looking on costs more than it helps

// Case and the choice of separator are slips that should cost nothing.
std::string folded(std::string_view word) {
  std::string out(word);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-' || c == ' ') c = '_';
  }
  return out;
}

// Edits to turn one word into the other, where swapping two neighbours is one edit ("optimal string
// alignment").
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1), last(b.size() + 1), current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({last[j] + 1, current[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) current[j] = std::min(current[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, current);
  }
  return last[b.size()];
}

// The one candidate that the word is the beginning of ("env" of "environment"), else empty.
std::string only_completion(const std::string& word, const std::vector<std::string>& candidates) {
  std::string found;
  if (word.size() < 3) return found;
  for (const std::string& candidate : candidates) {
    if (!folded(candidate).starts_with(word)) continue;
    if (!found.empty()) return {};
    found = candidate;
  }
  return found;
}

}  // namespace

const std::map<std::string, component_spec, std::less<>>& catalog::of(component_kind kind) const {
  switch (kind) {
    case component_kind::source:
      return sources;
    case component_kind::step:
      return steps;
    case component_kind::sink:
      return sinks;
  }
  throw std::logic_error("unknown component kind");
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.empty() || word.size() > longest_word) return {};
  const std::string wanted = folded(word);
  std::size_t best = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  std::string found;
  for (const std::string& candidate :
       std::span(candidates).first(std::min(candidates.size(), most_candidates))) {
    if (candidate.size() > longest_word) continue;
    const std::size_t distance = edit_distance(wanted, folded(candidate));
    // A distance as long as the candidate itself means that nothing is left of it.
    if (distance < best && distance < candidate.size()) {
      best = distance;
      found = candidate;
    }
  }
  return found.empty() ? only_completion(wanted, candidates) : found;
}

}  // namespace penstock::config
