// What is different between two checked definitions, for people: their canonical text, a unified diff of two texts, and
// the values that differ, each with its path. Works on `pipeline::document`, in which secrets are references, so no
// secret can be shown. Pure, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/field.hpp"

namespace penstock::config {

// One value that differs. The path is a JSON pointer below what was compared; "" is the whole. A value that is not there
// on one side is discarded (value::is_discarded).
struct field_change {
  std::string path;
  value before, after;
};

// What stands for "not there" in a field_change.
value no_value();

// In the order of `before`, what is only in `after` last. Objects are compared by key, whatever their order; lists of the
// same length item by item, others as a whole. An absent side is given as no_value().
std::vector<field_change> field_changes(const value& before, const value& after);

// The definition as YAML in one fixed layout: the pipeline's own keys in the order of the reference, topics, flows and
// jobs by name, all else in the order of the document. Comments and layout of what a person wrote make no difference to
// it. Reading it again gives an equal pipeline. Not an object: empty.
std::string canonical_text(const value& document);

// `diff -u` of two texts, three lines of context; empty when they are equal. The labels stand behind --- and +++. Where
// the texts differ in thousands of lines, the differing middle is shown as removed and added as a whole.
std::string unified_diff(std::string_view before, std::string_view after, std::string_view before_label,
                         std::string_view after_label);

}  // namespace penstock::config
