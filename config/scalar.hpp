// What an unquoted scalar means: the core schema of YAML 1.2 (section 10.3), where only true and false are
// booleans and numbers look like numbers. A quoted scalar is always a text. Pure, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "config/field.hpp"
#include "config/node.hpp"

namespace penstock::config {

// Nothing when the node is not an unquoted integer (decimal, 0x or 0o) that fits in 64 bits.
std::optional<std::int64_t> integer_of(const node& n);
// Nothing when the node is not an unquoted, finite number.
std::optional<double> number_of(const node& n);
// Nothing when the node is not an unquoted true or false.
std::optional<bool> boolean_of(const node& n);

// Any JSON value: mappings, lists, and scalars by the rules above.
value json_of(const node& n);

// For messages: "a list", "a mapping", "nothing", "a text".
std::string kind_of(const node& n);
// The same, naming what a scalar says: "the number 5", "the text 'abc'". Not for what may be a secret.
std::string kind_and_text_of(const node& n);

}  // namespace penstock::config
