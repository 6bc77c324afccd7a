// Small steps through a document for those checkers that look at it by key: what is not there, or not of the
// expected kind, is passed over, because the records have reported it. Pure, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/node.hpp"
#include "config/place.hpp"

namespace penstock::config {

inline const node::entry* find_entry(const node& mapping, std::string_view key) {
  for (const auto& entry : mapping.fields) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

// What is under `key` of the mapping at `p`, or of no interest: calls `then` only if it is there.
template <class Then>
void look_at(const place& p, std::string_view key, Then then) {
  if (const auto* entry = find_entry(p.what(), key)) then(p.child(*entry));
}

template <class Then>
void look_at_text(const place& p, std::string_view key, Then then) {
  look_at(p, key, [&then](const place& found) {
    if (found.what().type == node::kind::scalar) then(found);
  });
}

template <class Then>
void for_each_entry(const place& p, Then then) {
  for (const auto& entry : p.what().fields) then(entry.key, p.child(entry));
}

// Each item of a list, or the thing itself where it stands without the brackets.
template <class Then>
void for_each_item(const place& p, Then then) {
  if (p.what().type != node::kind::sequence) {
    if (p.what().type != node::kind::null) then(p);
    return;
  }
  for (std::size_t i = 0; i < p.what().items.size(); ++i) then(p.item(i));
}

inline std::vector<std::string> keys_of(const node& mapping) {
  std::vector<std::string> out;
  for (const auto& entry : mapping.fields) out.push_back(entry.key);
  return out;
}

inline bool is_mapping_or_null(const node& n) {
  return n.type == node::kind::mapping || n.type == node::kind::null;
}

}  // namespace penstock::config
