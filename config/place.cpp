#include "config/place.hpp"

#include <algorithm>
#include <tuple>

namespace penstock::config {

std::string pointer_part(std::string_view key) {
  std::string out;
  for (char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

std::string place::pointer() const {
  if (!parent_) return {};
  return parent_->pointer() + "/" + (key_ ? pointer_part(*key_) : std::to_string(index_));
}

void problem_list::add(const place& where, mark at, std::string detail) {
  add(problem{where.pointer(), at.line, at.column, std::move(detail)});
}

void problem_list::add(problem p) {
  if (full()) return;
  // Lua's messages and quoted texts may span lines; a problem is one line.
  std::replace_if(
      p.detail.begin(), p.detail.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  found_.push_back(std::move(p));
}

bool problem_list::found_in(const place& p) const {
  if (found_.empty()) return false;
  const std::string pointer = p.pointer();
  return std::any_of(found_.begin(), found_.end(), [&pointer](const problem& one) {
    return one.pointer == pointer || one.pointer.starts_with(pointer + "/");
  });
}

std::vector<problem> problem_list::take_sorted() {
  std::stable_sort(found_.begin(), found_.end(), [](const problem& a, const problem& b) {
    return std::tie(a.line, a.column) < std::tie(b.line, b.column);
  });
  return std::move(found_);
}

}  // namespace penstock::config
