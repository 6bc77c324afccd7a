#include "scheduler/etag.hpp"

#include <algorithm>

namespace penstock::scheduler {

namespace {

// The first tag of the list with its quotes, which it then no longer holds. What stands in no quotes ends at the next comma.
std::string_view take_tag(std::string_view& list) {
  const std::size_t first = std::min(list.find_first_not_of(" \t,"), list.size());
  list.remove_prefix(first);
  const std::size_t quote = list.find('"');
  const std::size_t comma = std::min(list.find(','), list.size());
  std::size_t end = comma;
  if (quote < comma) end = std::min(list.find('"', quote + 1), list.size() - 1) + 1;
  const std::string_view tag = list.substr(0, end);
  list.remove_prefix(end);
  return tag;
}

}  // namespace

std::string make_etag(std::int64_t revision, std::string_view text) {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a, 64 bits: tells texts apart, guards nothing
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return fmt::format("\"{}-{:016x}\"", revision, hash);
}

bool lists_etag(std::string_view list, std::string_view etag, etag_comparison how) {
  while (!list.empty()) {
    std::string_view tag = take_tag(list);
    while (!tag.empty() && (tag.back() == ' ' || tag.back() == '\t')) tag.remove_suffix(1);
    if (tag == "*") return true;
    if (how == etag_comparison::weak && tag.starts_with("W/")) tag.remove_prefix(2);
    if (tag == etag) return true;
  }
  return false;
}

}  // namespace penstock::scheduler
