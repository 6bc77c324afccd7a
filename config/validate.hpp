// Checks what a person wrote against its field record: the one checker for definitions and for component
// settings. Knows no particular key; what spans several values (a DAG, a time zone) is check_pipeline's
// affair. Pure, any thread.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "config/field.hpp"
#include "config/place.hpp"

namespace penstock::config {

// The checked value, with defaults (see `value` in field.hpp). Everything wrong goes to `problems`; then the
// value is incomplete and of use to nobody. A default or record that breaks its own rules throws
// std::logic_error.
value validate(const place& where, const field& record, const catalog& components, problem_list& problems);

// A checked value as a person would write it, for showing: durations and sizes with their units. Validating
// it again gives the same checked value.
value as_written(const value& checked, const field& record, const catalog& components);

// The child record of that name, or null.
const field* find_child(const field& record, std::string_view name);

// True when the mapping has the key, or an unknown key that is most likely a slip of it. What is meant is not
// reported as missing: one slip is one problem.
bool given_or_meant(const node& mapping, const field& record, std::string_view key);

// True when what stands here is the short form of the object: a scalar or list, or, where the shorthand is a map, a
// mapping with none of the object's own keys.
bool is_short_form(const node& n, const field& object);

// The rule of field_type::name: [a-z][a-z0-9_-]{0,62}.
bool is_name(std::string_view text);

// A component that may be named without settings, as in `to: drop`.
bool needs_no_settings(const component_spec& spec);

// The component that a checked `from`, step or `to` names.
const std::string& component_name(const value& use);

}  // namespace penstock::config
