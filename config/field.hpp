// Field records: the single description of everything a person may write by hand.
//
// A record carries name, type, default, documentation, secrecy, example and children. Validation
// (validate.hpp), JSON Schema (json_schema.hpp) and the reference documentation are all made from these
// records, so none of them can drift. Components (runtime/components/*.cpp) describe their settings with the
// same records. Plain values, built once at start, read by any thread afterwards.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace penstock::config {

// A checked value: what the person wrote, with defaults filled in and units resolved. Durations are
// nanoseconds and sizes are bytes, both integers; a duration range is [from, to]; a time is UTC as
// format_time writes it; a component is {its name: its settings}; objects keep the order written, defaults
// come last.
using value = nlohmann::ordered_json;

enum class field_type {
  string,
  integer,
  number,
  boolean,
  duration,        // "5m"
  duration_range,  // "10s..5m", or one duration for both ends
  size,            // "64MiB"
  time,            // RFC 3339
  expression,      // Lua expression; syntax is checked
  script,          // Lua chunk; syntax is checked
  name,            // snake_case identifier: [a-z][a-z0-9_-]{0,62}
  choice,          // one of `choices`
  any,             // any JSON value
  object,          // `children` are its fields
  list,            // `children[0]` describes each item; a single item may stand without the brackets
                   // when `single_allowed`
  map,             // keys are chosen by the writer; `children[0]` describes each value
  from,            // a component of kind source: a mapping with the one key that names it
  step,            // a component of kind step
  to,              // a component of kind sink
};

// Of a child of an object: the sibling, a choice, that it depends on, and the values with which it has a meaning.
struct field_condition {
  std::string sibling;
  std::vector<std::string> values;
};

struct field {
  std::string name{};
  field_type type = field_type::string;
  std::string doc{};
  bool required = false;
  std::string fallback{};  // the default as a person would write it (YAML); empty means none
  std::string example{};   // likewise
  bool secret = false;     // only a reference is allowed: ${env:NAME}, ${file:PATH} or ${secret:NAME}
  std::vector<std::string> choices{};
  std::vector<field> children{};
  std::optional<double> minimum{};  // of a number, a size in bytes, a duration in seconds, or a list's length
  std::optional<double> maximum{};
  bool single_allowed = false;  // list: one item may stand for a list of one
  bool keys_are_names = false;  // map: keys obey the rule of field_type::name
  std::string shorthand{};      // object: a scalar or list here stands for {shorthand: it}; a mapping, too,
                                // when that child is a map and none of its keys is the object's own
  std::string goes_with{};      // only allowed beside the sibling of that name; its default applies only then
  std::vector<std::string> exactly_one{};  // object: of these children exactly one is given
  // Only allowed, required and filled in where it has a meaning.
  std::optional<field_condition> only_where{};
  std::string excludes{};     // not allowed beside the sibling of that name
  std::string names_stand_for{};  // map: a name or a list of names stands for a map in which each has this value
};

enum class component_kind { source, step, sink };

// Where a component is used.
struct usage {
  bool in_run = false;      // in a job's dataflow or command; not in a flow, nor for an alert
  bool input_ends = false;  // what its dataflow reads comes to an end
};

// What a component says of itself. `settings` is the record of what stands behind its name, as in
// `filter: <settings>`; an object without required children may be left out altogether (`to: drop`).
struct component_spec {
  component_kind kind{};
  std::string name;
  std::string doc;
  field settings;
  std::vector<std::string>
      examples{};        // whole uses in YAML, e.g. "filter: event.total > 5000"; a test checks each
  bool bounded = false;  // source: its input ends, so a job may read it
  bool live = true;      // source: a flow may read it
  // step: the names of outputs that it may send events to, beside the next step; of its checked settings. All but
  // "late" must then be there.
  std::function<std::vector<std::string>(const value& settings)> outputs{};
  // step with durable state: the settings without which the state that is kept means nothing. Where one of them has
  // changed the step starts empty.
  std::vector<std::string> state_settings{};
  // Settings that fit their record but can never work there: throws std::runtime_error that says why. Pure; a secret
  // reference may stand for anything. The constructor reads the settings with the same function (see
  // runtime/registry.hpp), so that what is refused when a definition is put is what would fail at each start.
  std::function<void(const value& settings, usage where)> check{};
  // What is likely a slip on this machine now, or empty (a program that is not there).
  std::function<std::string(const value& settings)> doubt{};
  // source that is `bounded`: the setting with which its input never ends after all, such as "follow: true", or empty.
  std::function<std::string(const value& settings)> endless{};
};

// All components by kind and name, and how an expression's syntax is checked (Lua lives in runtime/).
struct catalog {
  std::map<std::string, component_spec, std::less<>> sources, steps, sinks;
  // Returns what is wrong with the text, or nothing. Second argument: true for a whole chunk (script).
  std::function<std::optional<std::string>(std::string_view text, bool chunk)> check_lua;

  const std::map<std::string, component_spec, std::less<>>& of(component_kind kind) const;
};

// The record of a whole pipeline definition (design.md section 2).
const field& pipeline_fields();

// The candidate nearest to `word` by edit distance, when one is near enough to be a likely slip; else empty.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace penstock::config
