// Where a checker stands in a document: the node, and the way to it. And the list of what it found wrong
// there.
//
// A place is a link in a chain on the stack, so walking a good document builds no strings; the pointer is
// spelled out only when there is a problem to report. A place must not outlive the place it was made from.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/error.hpp"
#include "config/node.hpp"

namespace penstock::config {

class place {
 public:
  explicit place(const node& document) : what_(&document), at_(document.at) {}

  place child(const node::entry& e) const { return place(e.value, e.at, this, &e.key, 0); }
  place item(std::size_t index) const {
    const node& n = what_->items[index];
    return place(n, n.at, this, nullptr, index);
  }
  // The same place as if another node stood there.
  place with(const node& other) const { return place(other, at_, parent_, key_, index_); }

  const node& what() const { return *what_; }
  mark at() const { return at_; }  // the key, where there is one, else the node
  std::string pointer() const;     // RFC 6901

 private:
  place(const node& what, mark at, const place* parent, const std::string* key, std::size_t index)
      : what_(&what), at_(at), parent_(parent), key_(key), index_(index) {}

  const node* what_;
  mark at_;
  const place* parent_ = nullptr;
  const std::string* key_ = nullptr;
  std::size_t index_ = 0;
};

class problem_list {
 public:
  // More than a person can use; walking on would only cost time. Walks through a document stop here.
  static constexpr std::size_t most = 200;

  // The value itself is wrong: points at the value.
  void wrong_value(const place& where, std::string detail) { add(where, where.what().at, std::move(detail)); }
  // The key should not be here, or something is missing below it: points at the key.
  void wrong_key(const place& where, std::string detail) { add(where, where.at(), std::move(detail)); }
  void add(problem p);

  bool empty() const { return found_.empty(); }
  // Whether one was found at this place, or inside of it.
  bool found_in(const place& p) const;
  bool full() const { return found_.size() >= most; }
  std::vector<problem> take_sorted();  // by line and column; the order of equals stays

 private:
  void add(const place& where, mark at, std::string detail);

  std::vector<problem> found_;
};

// A key as a part of an RFC 6901 pointer: ~ is ~0, / is ~1.
std::string pointer_part(std::string_view key);

}  // namespace penstock::config
