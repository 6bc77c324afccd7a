#include "config/json_schema.hpp"

#include <algorithm>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "config/node.hpp"
#include "config/scalar.hpp"
#include "config/validate.hpp"

namespace penstock::config {
namespace {

constexpr std::string_view duration_pattern = R"(([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d|w))+)";
constexpr std::string_view size_pattern = R"(^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$)";
constexpr std::string_view name_pattern = "^[a-z][a-z0-9_-]{0,62}$";
constexpr std::string_view secret_pattern = R"(^\$\{(env|file|secret):[^}].*\}$)";

class schema_maker {
 public:
  explicit schema_maker(const catalog& components) : components_(components) {}

  value of(const field& f) const;
  value of_components(component_kind kind) const;

 private:
  value type_of(const field& f) const;
  value object_of(const field& f) const;
  value list_of(const field& f) const;
  value map_of(const field& f) const;
  value of_component(const component_spec& spec) const;

  const catalog& components_;
};

value text_matching(std::string_view pattern) { return {{"type", "string"}, {"pattern", pattern}}; }

// Unquoted numbers and booleans are taken for their text.
value any_scalar() { return {{"type", {"string", "number", "boolean"}}}; }

// A default or example as JSON. What is text stays text, whatever it looks like, and an expression need not
// be YAML.
value example_of(const field& f, const std::string& written) {
  const bool text =
      f.type == field_type::string || f.type == field_type::expression || f.type == field_type::script;
  const auto parsed = parse_document(written);
  if (!parsed) return written;
  return text && parsed->type == node::kind::scalar ? value(parsed->text) : json_of(*parsed);
}

std::string reference_to(component_kind kind) {
  switch (kind) {
    case component_kind::source:
      return "#/$defs/source";
    case component_kind::step:
      return "#/$defs/step";
    case component_kind::sink:
      return "#/$defs/sink";
  }
  throw std::logic_error("unknown component kind");
}

value bounded(value schema, const field& f, const char* least, const char* most) {
  const auto number = [](double bound) {
    const auto whole = static_cast<std::int64_t>(bound);
    return bound == static_cast<double>(whole) ? value(whole) : value(bound);
  };
  if (f.minimum) schema[least] = number(*f.minimum);
  if (f.maximum) schema[most] = number(*f.maximum);
  return schema;
}

value schema_maker::type_of(const field& f) const {
  const std::string duration(duration_pattern);
  switch (f.type) {
    case field_type::string:
      return f.secret ? text_matching(secret_pattern) : any_scalar();
    case field_type::integer:
      return bounded({{"type", "integer"}}, f, "minimum", "maximum");
    case field_type::number:
      return bounded({{"type", "number"}}, f, "minimum", "maximum");
    case field_type::boolean:
      return {{"type", "boolean"}};
    case field_type::duration:
      return text_matching("^" + duration + "$");
    case field_type::duration_range:
      return text_matching("^" + duration + "(\\.\\." + duration + ")?$");
    case field_type::size:
      return text_matching(size_pattern);
    case field_type::time:
      return {{"type", "string"}, {"format", "date-time"}};
    case field_type::expression:
      return any_scalar();
    case field_type::script:
      return {{"type", "string"}};
    case field_type::name:
      return text_matching(name_pattern);
    case field_type::choice:
      return {{"enum", f.choices}};
    case field_type::any:
      return value::object();
    case field_type::object:
      return object_of(f);
    case field_type::list:
      return list_of(f);
    case field_type::map:
      return map_of(f);
    case field_type::from:
      return {{"$ref", reference_to(component_kind::source)}};
    case field_type::step:
      return {{"$ref", reference_to(component_kind::step)}};
    case field_type::to:
      return {{"$ref", reference_to(component_kind::sink)}};
  }
  throw std::logic_error("unknown field type");
}

value schema_maker::of(const field& f) const {
  value schema = type_of(f);
  if (!f.doc.empty()) schema["description"] = f.doc;
  if (!f.fallback.empty()) schema["default"] = example_of(f, f.fallback);
  if (!f.example.empty()) schema["examples"] = value::array({example_of(f, f.example)});
  if (f.secret) schema["writeOnly"] = true;
  return schema;
}

// A child that has a meaning only beside some values of a sibling.
value condition_of(const field& object, const field& child) {
  const field_condition& where = *child.only_where;
  value beside{{"properties", {{where.sibling, {{"enum", where.values}}}}}};
  const field& sibling = *find_child(object, where.sibling);
  const bool by_default =
      std::find(where.values.begin(), where.values.end(), sibling.fallback) != where.values.end();
  if (!by_default) beside["required"] = value::array({where.sibling});
  value out{{"if", beside}, {"else", {{"properties", {{child.name, false}}}}}};
  if (child.required) out["then"] = value{{"required", value::array({child.name})}};
  return out;
}

value schema_maker::object_of(const field& f) const {
  value object{{"type", "object"}, {"properties", value::object()}, {"additionalProperties", false}};
  for (const field& child : f.children) {
    object["properties"][child.name] = of(child);
    if (child.only_where) {
      object["allOf"].push_back(condition_of(f, child));
    } else if (child.required) {
      object["required"].push_back(child.name);
    }
    if (!child.goes_with.empty()) object["dependentRequired"][child.name] = value::array({child.goes_with});
    if (!child.excludes.empty()) {
      const value both{{"required", value::array({child.name, child.excludes})}};
      object["allOf"].push_back(value{{"not", both}});
    }
  }
  for (const std::string& name : f.exactly_one) {
    object["oneOf"].push_back(value{{"required", value::array({name})}});
  }
  // `orders:` with nothing behind it is an empty mapping.
  const bool may_be_empty = !object.contains("required") && f.exactly_one.empty();
  if (may_be_empty) object["type"] = value::array({"object", "null"});
  if (f.shorthand.empty()) return object;
  for (const field& child : f.children) {
    if (child.name != f.shorthand) continue;
    value short_form = of(child);
    // A mapping is the long form.
    if (child.type == field_type::any) short_form["type"] = {"string", "number", "boolean", "array"};
    return {{"anyOf", value::array({short_form, object})}};
  }
  throw std::logic_error("the shorthand of '" + f.name + "' is none of its keys");
}

value schema_maker::list_of(const field& f) const {
  const value item = of(f.children.at(0));
  value list = bounded({{"type", "array"}, {"items", item}}, f, "minItems", "maxItems");
  return f.single_allowed ? value{{"anyOf", value::array({list, item})}} : list;
}

value schema_maker::map_of(const field& f) const {
  value map{{"type", "object"}, {"additionalProperties", of(f.children.at(0))}};
  if (!f.minimum) map["type"] = value::array({"object", "null"});
  if (f.keys_are_names) map["propertyNames"] = value{{"pattern", name_pattern}};
  map = bounded(std::move(map), f, "minProperties", "maxProperties");
  if (f.names_stand_for.empty()) return map;
  const value name = text_matching(name_pattern);
  const value names = bounded({{"type", "array"}, {"items", name}}, f, "minItems", "maxItems");
  return {{"anyOf", value::array({map, names, name})}};
}

value schema_maker::of_component(const component_spec& spec) const {
  value use{{"type", "object"}, {"properties", value::object()}};
  if (!spec.doc.empty()) use["description"] = spec.doc;
  use["properties"][spec.name] = of(spec.settings);
  if (spec.kind == component_kind::step) {
    use["properties"]["name"] = text_matching(name_pattern);
    use["properties"]["name"]["description"] = "What the step is called in taps, metrics and dead letters";
  }
  use["required"] = value::array({spec.name});
  use["additionalProperties"] = false;
  return use;
}

value schema_maker::of_components(component_kind kind) const {
  value choices = value::array();
  value bare = value::array();
  for (const auto& [name, spec] : components_.of(kind)) {
    choices.push_back(of_component(spec));
    if (needs_no_settings(spec)) bare.push_back(name);
  }
  if (!bare.empty()) {
    choices.push_back({{"enum", bare}, {"description", "By its name alone, with all defaults"}});
  }
  return {{"oneOf", choices}};
}

}  // namespace

value pipeline_json_schema(const catalog& components) {
  const schema_maker maker(components);
  value schema{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "Penstock pipeline"}};
  schema.update(maker.of(pipeline_fields()));
  schema["$defs"] = {{"source", maker.of_components(component_kind::source)},
                     {"step", maker.of_components(component_kind::step)},
                     {"sink", maker.of_components(component_kind::sink)}};
  return schema;
}

}  // namespace penstock::config
