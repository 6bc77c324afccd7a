#include "config/validate.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "config/in_quotes.hpp"
#include "config/lua_mentions.hpp"
#include "config/scalar.hpp"
#include "config/secrets.hpp"
#include "config/time.hpp"

namespace penstock::config {
namespace {

// Longer times cannot be added to a point in time without overflow.
constexpr nanoseconds longest_duration = std::chrono::hours{24 * 36'500};

constexpr std::string_view step_name_key = "name";

void put(value& object, const std::string& key, value&& v) {
  // Keys are unique already, and the ordered object would search all of them again for each.
  object.get_ref<value::object_t&>().emplace_back(key, std::move(v));
}

component_kind kind_of_field(field_type type) {
  switch (type) {
    case field_type::from:
      return component_kind::source;
    case field_type::step:
      return component_kind::step;
    case field_type::to:
      return component_kind::sink;
    default:
      throw std::logic_error("not a component field");
  }
}

std::string word_for(component_kind kind) {
  switch (kind) {
    case component_kind::source:
      return "source";
    case component_kind::step:
      return "step";
    case component_kind::sink:
      return "sink";
  }
  throw std::logic_error("unknown component kind");
}

std::vector<std::string> names_of(const field& record) {
  std::vector<std::string> out;
  for (const field& child : record.children) out.push_back(child.name);
  return out;
}

std::vector<std::string> names_of(const std::map<std::string, component_spec, std::less<>>& specs) {
  std::vector<std::string> out;
  for (const auto& [name, spec] : specs) out.push_back(name);
  return out;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

// The record of the keys that a mapping under this key has, or null.
const field* keys_inside(const field& f) {
  if (f.type == field_type::list && f.children.at(0).type == field_type::object) return &f.children.front();
  return f.type == field_type::object ? &f : nullptr;
}

// "goes inside 'file'" of a key that stands beside the mapping which it belongs to, else empty.
std::string goes_inside(const node& n, const field& f, const std::string& key) {
  for (const auto& entry : n.fields) {
    const field* sibling = find_child(f, entry.key);
    const field* inner = sibling ? keys_inside(*sibling) : nullptr;
    if (!inner || !find_child(*inner, key)) continue;
    const bool shortened = entry.value.type == node::kind::scalar && !inner->shorthand.empty();
    return "goes inside '" + entry.key + "'" +
           (shortened ? ": {" + inner->shorthand + ": …, " + key + ": …}" : "");
  }
  return {};
}

// Which of the keys that exclude each other is given, or null.
const std::string* chosen_of(const node& n, const field& f) {
  for (const std::string& key : f.exactly_one) {
    if (n.find(key)) return &key;
  }
  return nullptr;
}

std::vector<std::string> names_beside(const field& f, const std::string& chosen) {
  std::vector<std::string> out;
  for (const field& child : f.children) {
    const bool excluded = std::find(f.exactly_one.begin(), f.exactly_one.end(), child.name) != f.exactly_one.end();
    if (!excluded && (child.goes_with.empty() || child.goes_with == chosen)) out.push_back(child.name);
  }
  return out;
}

std::string name_rule(std::string_view text) {
  std::string near;
  for (char c : text) {
    const bool upper = c >= 'A' && c <= 'Z';
    near += upper ? static_cast<char>(c - 'A' + 'a') : is_name(std::string("a") + c) ? c : '_';
  }
  const std::string hint = is_name(near) ? "; write '" + near + "'" : "";
  return in_quotes(text) +
         " is not a name: a letter from a to z, then a-z, 0-9, '_' and '-', at most 63 in all" + hint;
}

// What a field of this type wants to see.
std::string wanted(const field& f) {
  const auto such_as = [&f](const std::string& what, const std::string& usual) {
    return what + ", such as " + (f.example.empty() ? usual : f.example);
  };
  switch (f.type) {
    case field_type::string:
      return "a text";
    case field_type::integer:
      return "a whole number";
    case field_type::number:
      return "a number";
    case field_type::boolean:
      return "true or false";
    case field_type::duration:
      return such_as("a duration with its unit", "30s or 5m");
    case field_type::duration_range:
      return such_as("a duration or a range of two", "10s..5m");
    case field_type::size:
      return such_as("a size with its unit", "64MiB");
    case field_type::time:
      return such_as("a time as in RFC 3339", "2018-02-07T00:00:00Z");
    case field_type::expression:
      return such_as("a Lua expression", "event.total > 5000");
    case field_type::script:
      return "a Lua script";
    case field_type::name:
      return "a name";
    case field_type::choice:
      return "one of " + joined(f.choices);
    case field_type::any:
      return "a value";
    case field_type::object:
      return f.example.empty() ? "a mapping" : such_as("a mapping", "");
    case field_type::map:
      return f.example.empty() ? "a mapping" : such_as("a mapping", "");
    case field_type::list:
      return f.example.empty() ? "a list" : such_as("a list", "");
    case field_type::from:
      return "a source, such as {topic: orders}";
    case field_type::step:
      return "a step, such as {filter: event.total > 5000}";
    case field_type::to:
      return "a sink, such as {topic: orders}";
  }
  throw std::logic_error("unknown field type");
}

// A bound as the field's writer would write it.
std::string bound_text(const field& f, double bound) {
  if (f.type == field_type::duration || f.type == field_type::duration_range) {
    return format_duration(nanoseconds{static_cast<std::int64_t>(bound * 1e9)});
  }
  if (f.type == field_type::size) return format_size(static_cast<std::int64_t>(bound));
  return value(bound == static_cast<double>(static_cast<std::int64_t>(bound))
                   ? value(static_cast<std::int64_t>(bound))
                   : value(bound))
      .dump();
}

// What the sibling says on which a child depends, written or by default; empty where it says nothing that
// can be understood.
std::string chosen_beside(const node& n, const field& object, const field& child) {
  const field* choice = find_child(object, child.only_where->sibling);
  if (!choice) throw std::logic_error("'" + child.name + "' depends on a sibling that is not there");
  const node* written = n.find(choice->name);
  if (!written) return given_or_meant(n, object, choice->name) ? "" : choice->fallback;
  const bool known = written->type == node::kind::scalar &&
                     std::find(choice->choices.begin(), choice->choices.end(), written->text) != choice->choices.end();
  return known ? written->text : "";
}

bool has_meaning_beside(const std::string& chosen, const field& child) {
  const auto& values = child.only_where->values;
  return std::find(values.begin(), values.end(), chosen) != values.end();
}

class validator {
 public:
  validator(const catalog& components, problem_list& problems)
      : components_(components), problems_(problems) {}

  value check(const place& p, const field& f);

 private:
  value nothing(const place& p, const std::string& detail) {
    problems_.wrong_value(p, detail);
    return {};
  }
  value unexpected(const place& p, const field& f) {
    const bool may_show =
        !f.secret && f.type != field_type::object && f.type != field_type::list && f.type != field_type::map;
    const node& n = p.what();
    return nothing(p, "expected " + wanted(f) + ", got " + (may_show ? kind_and_text_of(n) : kind_of(n)));
  }

  value check_empty(const place& p, const field& f);
  value check_text(const place& p, const field& f);
  value check_string(const place& p, const field& f);
  value check_integer(const place& p, const field& f);
  value check_number(const place& p, const field& f);
  value check_boolean(const place& p, const field& f);
  value check_duration(const place& p, const field& f);
  value check_duration_range(const place& p, const field& f);
  value check_size(const place& p, const field& f);
  value check_time(const place& p, const field& f);
  value check_lua(const place& p, const field& f);
  value check_choice(const place& p, const field& f);
  value check_object(const place& p, const field& f);
  value check_list(const place& p, const field& f);
  value check_map(const place& p, const field& f);
  value check_names_of_map(const place& p, const field& f);
  value check_component(const place& p, const field& f);
  value check_bare_component(const place& p, component_kind kind);

  void check_bounds(const place& p, const field& f, double amount);
  void check_siblings(const place& p, const field& f);
  std::string about_unknown(const node& n, const field& f, const std::string& key);
  void add_missing(const place& p, const field& f, value& object);
  value fallback_of(const field& f);
  value settings_of(const place& p, const component_spec& spec);
  void unknown_component(const place& p, component_kind kind, std::string_view word);

  const catalog& components_;
  problem_list& problems_;
};

value validator::check(const place& p, const field& f) {
  if (problems_.full()) return {};
  const node& n = p.what();
  if (n.type == node::kind::null && f.type != field_type::any) return check_empty(p, f);
  switch (f.type) {
    case field_type::any:
      return json_of(n);
    case field_type::object:
      return check_object(p, f);
    case field_type::list:
      return check_list(p, f);
    case field_type::map:
      return check_map(p, f);
    case field_type::from:
    case field_type::step:
    case field_type::to:
      return check_component(p, f);
    default:
      break;
  }
  return n.type == node::kind::scalar ? check_text(p, f) : unexpected(p, f);
}

// `orders:` with nothing behind it is an empty mapping where a mapping belongs, and an error elsewhere.
value validator::check_empty(const place& p, const field& f) {
  if (f.type == field_type::object) return check_object(p, f);
  if (f.type == field_type::map) return check_map(p, f);
  return nothing(p, "nothing stands here; expected " + wanted(f));
}

value validator::check_text(const place& p, const field& f) {
  switch (f.type) {
    case field_type::string:
      return check_string(p, f);
    case field_type::integer:
      return check_integer(p, f);
    case field_type::number:
      return check_number(p, f);
    case field_type::boolean:
      return check_boolean(p, f);
    case field_type::duration:
      return check_duration(p, f);
    case field_type::duration_range:
      return check_duration_range(p, f);
    case field_type::size:
      return check_size(p, f);
    case field_type::time:
      return check_time(p, f);
    case field_type::expression:
    case field_type::script:
      return check_lua(p, f);
    case field_type::choice:
      return check_choice(p, f);
    case field_type::name:
      if (!is_name(p.what().text)) return nothing(p, name_rule(p.what().text));
      return p.what().text;
    default:
      throw std::logic_error("not a scalar field: " + f.name);
  }
}

value validator::check_string(const place& p, const field& f) {
  const std::string& text = p.what().text;
  if (f.secret && !is_secret_reference(text)) {
    const auto fault = check_references(text);
    return nothing(
        p,
        fault ? *fault : "a secret is given by reference only: ${env:NAME}, ${file:PATH} or ${secret:NAME}");
  }
  if (text.find('\0') != text.npos) return nothing(p, "this text holds a NUL character");
  if (auto fault = check_references(text)) return nothing(p, *fault);
  return text;
}

value validator::check_integer(const place& p, const field& f) {
  const auto number = integer_of(p.what());
  if (!number) return unexpected(p, f);
  check_bounds(p, f, static_cast<double>(*number));
  return *number;
}

value validator::check_number(const place& p, const field& f) {
  const auto number = number_of(p.what());
  if (!number) return unexpected(p, f);
  check_bounds(p, f, *number);
  if (const auto integer = integer_of(p.what())) return *integer;
  return *number;
}

value validator::check_boolean(const place& p, const field& f) {
  const auto boolean = boolean_of(p.what());
  return boolean ? value(*boolean) : unexpected(p, f);
}

value validator::check_duration(const place& p, const field& f) {
  const auto duration = parse_duration(p.what().text);
  if (!duration) return unexpected(p, f);
  if (*duration > longest_duration) return nothing(p, "longer than " + format_duration(longest_duration));
  check_bounds(p, f, static_cast<double>(duration->count()) / 1e9);
  return duration->count();
}

value validator::check_duration_range(const place& p, const field& f) {
  const std::string_view text = p.what().text;
  const auto dots = text.find("..");
  const auto from = parse_duration(text.substr(0, dots));
  const auto to = dots == text.npos ? from : parse_duration(text.substr(dots + 2));
  if (!from || !to) return unexpected(p, f);
  if (*to > longest_duration) return nothing(p, "longer than " + format_duration(longest_duration));
  if (*from > *to) return nothing(p, "the range " + in_quotes(text) + " runs backwards");
  check_bounds(p, f, static_cast<double>(from->count()) / 1e9);
  check_bounds(p, f, static_cast<double>(to->count()) / 1e9);
  return value::array({from->count(), to->count()});
}

value validator::check_size(const place& p, const field& f) {
  const auto size = parse_size(p.what().text);
  if (!size) return unexpected(p, f);
  check_bounds(p, f, static_cast<double>(*size));
  return *size;
}

value validator::check_time(const place& p, const field& f) {
  const auto time = parse_time(p.what().text);
  return time ? value(format_time(*time)) : unexpected(p, f);
}

value validator::check_lua(const place& p, const field& f) {
  const std::string& text = p.what().text;
  if (text.find_first_not_of(" \t\r\n") == text.npos) return nothing(p, "empty; expected " + wanted(f));
  if (components_.check_lua) {
    if (auto fault = components_.check_lua(text, f.type == field_type::script)) {
      return nothing(p, "not valid Lua: " + *fault);
    }
  }
  if (f.type == field_type::expression) {
    if (auto slip = lua_slip(text)) return nothing(p, *slip);
  }
  return text;
}

value validator::check_choice(const place& p, const field& f) {
  const std::string& text = p.what().text;
  if (std::find(f.choices.begin(), f.choices.end(), text) != f.choices.end()) return text;
  return nothing(p, in_quotes(text) + " is not possible here; " + suggestion(text, f.choices));
}

void validator::check_bounds(const place& p, const field& f, double amount) {
  const bool low = f.minimum && amount < *f.minimum;
  const bool high = f.maximum && amount > *f.maximum;
  if (!low && !high) return;
  const std::string limits = f.minimum && f.maximum
                                 ? "from " + bound_text(f, *f.minimum) + " to " + bound_text(f, *f.maximum)
                             : low ? "at least " + bound_text(f, *f.minimum)
                                   : "at most " + bound_text(f, *f.maximum);
  if (f.type == field_type::list || f.type == field_type::map) {
    problems_.wrong_key(p, "the number of entries must be " + limits);
  } else {
    problems_.wrong_value(p, "must be " + limits + ", not " + p.what().text);
  }
}

value validator::check_list(const place& p, const field& f) {
  const field& item_record = f.children.at(0);
  const node& n = p.what();
  value out = value::array();
  if (n.type == node::kind::sequence) {
    for (std::size_t i = 0; i < n.items.size(); ++i) out.push_back(check(p.item(i), item_record));
  } else if (f.single_allowed) {
    out.push_back(check(p, item_record));
  } else {
    return unexpected(p, f);
  }
  check_bounds(p, f, static_cast<double>(out.size()));
  return out;
}

value validator::check_map(const place& p, const field& f) {
  const node& n = p.what();
  const bool short_form = n.type == node::kind::scalar || n.type == node::kind::sequence;
  if (short_form && !f.names_stand_for.empty()) return check_names_of_map(p, f);
  if (n.type != node::kind::mapping && n.type != node::kind::null) return unexpected(p, f);
  value out = value::object();
  for (const auto& entry : n.fields) {
    if (problems_.full()) return out;
    const place at_entry = p.child(entry);
    if (f.keys_are_names && !is_name(entry.key)) problems_.wrong_key(at_entry, name_rule(entry.key));
    put(out, entry.key, check(at_entry, f.children.at(0)));
  }
  check_bounds(p, f, static_cast<double>(out.size()));
  return out;
}

// `[db, api]` where {db: 1, api: 1} is meant.
value validator::check_names_of_map(const place& p, const field& f) {
  field each = f.children.at(0);
  each.fallback = f.names_stand_for;
  const field name{.name = "name", .type = field_type::name};
  value out = value::object();
  std::set<std::string> taken;
  const auto add = [&](const place& item) {
    const value word = check(item, name);
    if (!word.is_string()) return;
    const auto& key = word.get_ref<const std::string&>();
    if (taken.insert(key).second) {
      put(out, key, fallback_of(each));
    } else {
      problems_.wrong_value(item, in_quotes(key) + " is named twice");
    }
  };
  if (p.what().type == node::kind::scalar) add(p);
  for (std::size_t i = 0; i < p.what().items.size() && !problems_.full(); ++i) add(p.item(i));
  check_bounds(p, f, static_cast<double>(p.what().type == node::kind::scalar ? 1 : p.what().items.size()));
  return out;
}

value validator::check_object(const place& p, const field& f) {
  const node& n = p.what();
  value out = value::object();
  const bool short_form = is_short_form(n, f);
  if (short_form && f.shorthand.empty()) return unexpected(p, f);
  if (short_form) {
    put(out, f.shorthand, check(p, *find_child(f, f.shorthand)));
  } else {
    for (const auto& entry : n.fields) {
      if (problems_.full()) return out;
      const place at_entry = p.child(entry);
      const field* child = find_child(f, entry.key);
      if (child) {
        put(out, entry.key, check(at_entry, *child));
        continue;
      }
      problems_.wrong_key(at_entry, "unknown key " + in_quotes(entry.key) + "; " + about_unknown(n, f, entry.key));
    }
    check_siblings(p, f);
  }
  add_missing(p, f, out);
  return out;
}

// Where an unknown key belongs, or which one was meant: of those that may stand beside what is given, else of those
// that stand inside of it.
std::string validator::about_unknown(const node& n, const field& f, const std::string& key) {
  if (std::string where = goes_inside(n, f, key); !where.empty()) return "it " + where;
  const std::string* kind = chosen_of(n, f);
  if (!kind) return suggestion(key, names_of(f));
  const std::vector<std::string> beside = names_beside(f, *kind);
  if (std::string near = nearest(key, beside); !near.empty()) return "did you mean '" + near + "'?";
  const field* inner = keys_inside(*find_child(f, *kind));
  const std::string near = inner ? nearest(key, names_of(*inner)) : "";
  if (!near.empty()) return "did you mean '" + near + "' inside '" + *kind + "'?";
  if (std::string other = nearest(key, names_of(f)); !other.empty()) return "did you mean '" + other + "'?";
  if (!beside.empty()) return "known beside '" + *kind + "': " + joined(beside);
  return inner ? "known inside '" + *kind + "': " + joined(names_of(*inner)) : "nothing goes beside '" + *kind + "'";
}

// The rules between the keys of one mapping: exactly_one, goes_with and excludes.
void validator::check_siblings(const place& p, const field& f) {
  const node& n = p.what();
  const auto is_one = [&f](const std::string& key) {
    return std::find(f.exactly_one.begin(), f.exactly_one.end(), key) != f.exactly_one.end();
  };
  const std::string* first = nullptr;
  for (const auto& entry : n.fields) {
    if (is_one(entry.key)) {
      if (first) {
        problems_.wrong_key(p.child(entry), "'" + entry.key + "' and '" + *first +
                                                "' exclude each other; give exactly one of " +
                                                joined(f.exactly_one));
      } else {
        first = &entry.key;
      }
    }
    const field* child = find_child(f, entry.key);
    if (child && !child->excludes.empty() && n.find(child->excludes)) {
      problems_.wrong_key(p.child(entry), "'" + entry.key + "' and '" + child->excludes +
                                              "' exclude each other; give one of them");
    }
    const std::string beside = child && child->only_where ? chosen_beside(n, f, *child) : "";
    if (!beside.empty() && !has_meaning_beside(beside, *child)) {
      problems_.wrong_key(p.child(entry), "'" + entry.key + "' means nothing beside '" + child->only_where->sibling + ": " +
                                              beside + "'; it is for " + joined(child->only_where->values));
    }
    if (!child || child->goes_with.empty() || given_or_meant(n, f, child->goes_with)) continue;
    const std::string inside = goes_inside(n, f, entry.key);
    problems_.wrong_key(p.child(entry),
                        "'" + entry.key + "' " +
                            (!inside.empty()            ? inside
                             : is_one(child->goes_with) ? "goes with a " + child->goes_with + " " + f.name
                                                        : "goes with '" + child->goes_with + "'"));
  }
  const bool meant = std::any_of(f.exactly_one.begin(), f.exactly_one.end(),
                                 [&](const std::string& key) { return given_or_meant(n, f, key); });
  if (!f.exactly_one.empty() && !meant) {
    problems_.wrong_key(p, "one of these is missing: " + joined(f.exactly_one));
  }
}

void validator::add_missing(const place& p, const field& f, value& object) {
  const auto excluded = [&object](const field& child) { return !child.excludes.empty() && object.contains(child.excludes); };
  for (const field& child : f.children) {
    if (object.contains(child.name)) continue;
    if (!child.goes_with.empty() && !object.contains(child.goes_with)) continue;
    if (child.only_where && !has_meaning_beside(chosen_beside(p.what(), f, child), child)) continue;
    if (child.required) {
      if (given_or_meant(p.what(), f, child.name)) continue;
      const std::string hint = child.doc.empty() ? "" : " (" + child.doc + ")";
      problems_.wrong_key(p, "the key '" + child.name + "' is missing" + hint);
    } else if (!child.fallback.empty() && !excluded(child)) {
      put(object, child.name, fallback_of(child));
    }
  }
  // Last, because as_written() leaves them out: a definition that is read as it is shown has all in the same order.
  for (const field& child : f.children) {
    if (excluded(child) && !child.fallback.empty() && !object.contains(child.name)) put(object, child.name, fallback_of(child));
  }
}

value validator::fallback_of(const field& f) {
  node written;
  if (f.fallback.find_first_of("[{\"'") == 0) {
    auto parsed = parse_document(f.fallback);
    if (!parsed)
      throw std::logic_error("the default of '" + f.name + "' is not YAML: " + parsed.error().detail);
    written = std::move(*parsed);
  } else {
    written.type = node::kind::scalar;
    written.text = f.fallback;
  }
  problem_list problems;
  value out = validator(components_, problems).check(place(written), f);
  if (!problems.empty()) {
    throw std::logic_error("the default of '" + f.name +
                           "' breaks its record: " + problems.take_sorted().front().detail);
  }
  return out;
}

void validator::unknown_component(const place& p, component_kind kind, std::string_view word) {
  std::string detail = "unknown " + word_for(kind) + " " + in_quotes(word);
  for (component_kind other : {component_kind::source, component_kind::step, component_kind::sink}) {
    if (other == kind || components_.of(other).count(word) == 0) continue;
    problems_.wrong_key(
        p, detail + ": that is a " + word_for(other) + "; known: " + joined(names_of(components_.of(kind))));
    return;
  }
  problems_.wrong_key(p, detail + "; " + suggestion(word, names_of(components_.of(kind))));
}

value validator::settings_of(const place& p, const component_spec& spec) {
  const bool empty = p.what().type == node::kind::null;
  if (empty && !needs_no_settings(spec)) {
    const std::string example = spec.examples.empty() ? "" : ", such as " + spec.examples.front();
    problems_.wrong_key(p, "'" + spec.name + "' needs settings" + example);
    return {};
  }
  return check(p, spec.settings);
}

// Named without settings: `to: drop`.
value validator::check_bare_component(const place& p, component_kind kind) {
  const node& n = p.what();
  const auto found = components_.of(kind).find(n.text);
  if (found == components_.of(kind).end()) {
    unknown_component(p, kind, n.text);
    return {};
  }
  node no_settings;
  no_settings.at = n.at;
  value out = value::object();
  put(out, found->first, settings_of(p.with(no_settings), found->second));
  return out;
}

value validator::check_component(const place& p, const field& f) {
  const component_kind kind = kind_of_field(f.type);
  const auto& specs = components_.of(kind);
  const node& n = p.what();
  if (n.type == node::kind::scalar) return check_bare_component(p, kind);
  if (n.type != node::kind::mapping) return unexpected(p, f);
  value out = value::object();
  const std::string* chosen = nullptr;
  for (const auto& entry : n.fields) {
    if (problems_.full()) return out;
    const place at_entry = p.child(entry);
    if (kind == component_kind::step && entry.key == step_name_key) {
      const field name{.name = std::string(step_name_key), .type = field_type::name};
      put(out, entry.key, check(at_entry, name));
      continue;
    }
    const auto found = specs.find(entry.key);
    if (found == specs.end()) {
      unknown_component(at_entry, kind, entry.key);
    } else if (chosen) {
      problems_.wrong_key(at_entry, "only one " + word_for(kind) + " can stand here, and '" + *chosen +
                                        "' is one already" +
                                        (kind == component_kind::step ? "; begin a new list item" : ""));
    } else {
      put(out, entry.key, settings_of(at_entry, found->second));
    }
    if (!chosen) chosen = &entry.key;
  }
  if (!chosen) {
    problems_.wrong_key(p, "a " + word_for(kind) + " is missing; known: " + joined(names_of(specs)));
  }
  return out;
}

value component_as_written(const value& use, const field& record, const catalog& components) {
  const auto& specs = components.of(kind_of_field(record.type));
  value out = value::object();
  for (const auto& [key, settings] : use.items()) {
    const auto spec = specs.find(key);
    out[key] = spec == specs.end() ? settings : as_written(settings, spec->second.settings, components);
  }
  return out;
}

value range_as_written(const value& range) {
  const std::string from = format_duration(nanoseconds{range.at(0).get<std::int64_t>()});
  const std::string to = format_duration(nanoseconds{range.at(1).get<std::int64_t>()});
  return from == to ? from : from + ".." + to;
}

}  // namespace

value validate(const place& where, const field& record, const catalog& components, problem_list& problems) {
  return validator(components, problems).check(where, record);
}

value as_written(const value& checked, const field& record, const catalog& components) {
  value out;
  switch (record.type) {
    case field_type::duration:
      return format_duration(nanoseconds{checked.get<std::int64_t>()});
    case field_type::duration_range:
      return range_as_written(checked);
    case field_type::size:
      return format_size(checked.get<std::int64_t>());
    case field_type::from:
    case field_type::step:
    case field_type::to:
      return component_as_written(checked, record, components);
    case field_type::list:
      out = value::array();
      for (const value& item : checked) out.push_back(as_written(item, record.children.at(0), components));
      return out;
    case field_type::map:
      out = value::object();
      for (const auto& [key, item] : checked.items()) {
        put(out, key, as_written(item, record.children.at(0), components));
      }
      return out;
    case field_type::object:
      out = value::object();
      for (const auto& [key, item] : checked.items()) {
        const field& child = *find_child(record, key);
        // A default beside what excludes it: nobody could have written it.
        if (!child.excludes.empty() && checked.contains(child.excludes)) continue;
        put(out, key, as_written(item, child, components));
      }
      return out;
    default:
      return checked;
  }
}

bool is_short_form(const node& n, const field& object) {
  if (n.type == node::kind::scalar || n.type == node::kind::sequence) return true;
  const field* meant = n.type == node::kind::mapping ? find_child(object, object.shorthand) : nullptr;
  const auto is_own = [&object](const auto& entry) { return find_child(object, entry.key) != nullptr; };
  return meant && meant->type == field_type::map && !n.fields.empty() &&
         std::none_of(n.fields.begin(), n.fields.end(), is_own);
}

bool given_or_meant(const node& mapping, const field& record, std::string_view key) {
  return std::any_of(mapping.fields.begin(), mapping.fields.end(), [&](const node::entry& entry) {
    if (entry.key == key) return true;
    return !find_child(record, entry.key) && nearest(entry.key, names_of(record)) == key;
  });
}

bool needs_no_settings(const component_spec& spec) {
  const field& settings = spec.settings;
  if (settings.type == field_type::map) return !settings.minimum;
  if (settings.type != field_type::object || !settings.exactly_one.empty()) return false;
  return std::none_of(settings.children.begin(), settings.children.end(),
                      [](const field& child) { return child.required; });
}

bool is_name(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !text.empty() && text.size() <= 63 && text.front() >= 'a' && text.front() <= 'z' &&
         std::all_of(text.begin(), text.end(), allowed);
}

const field* find_child(const field& record, std::string_view name) {
  for (const field& child : record.children) {
    if (child.name == name) return &child;
  }
  return nullptr;
}

const std::string& component_name(const value& use) {
  for (const auto& entry : use.get_ref<const value::object_t&>()) {
    if (entry.first != step_name_key) return entry.first;
  }
  throw std::logic_error("a component use without a component");
}

}  // namespace penstock::config
