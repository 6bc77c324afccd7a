// What the steps select, rename and cast have in common: each changes fields of a JSON object and leaves the bytes of
// all others alone.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "runtime/component.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"

namespace penstock::runtime::components {

// Calls change(tree) -> what is wrong, or empty; the changed tree is the new payload. What is no JSON object is a dead
// letter, as is what cannot be changed.
template <class F>
void change_fields(batch& events, step_output& out, F change) {
  std::string made;
  std::size_t kept = 0;
  for (event& e : events.events) {
    std::string wrong = e.is_json() ? check_json(e.data) : "not JSON but " + std::string(e.datacontenttype);
    std::optional<json_tree> tree;
    if (wrong.empty() && !(tree = json_tree::of(e.data))) wrong = "not a JSON object";
    if (wrong.empty()) wrong = change(*tree);
    if (!wrong.empty()) {
      out.dead(e, std::move(wrong));
      continue;
    }
    made.clear();
    tree->append_to(made);
    e.data = events.keep(made);
    e.datacontenttype = {};
    events.events[kept++] = e;
  }
  events.events.resize(kept);
}

// "a.b" of a definition. Throws when it is no way to a field.
inline std::vector<std::string> path_of(const std::string& dotted) {
  auto path = field_path(dotted);
  if (!path) throw std::runtime_error("'" + dotted + "' is not a field: names with a dot between them, as in customer.id");
  return std::move(*path);
}

}  // namespace penstock::runtime::components
