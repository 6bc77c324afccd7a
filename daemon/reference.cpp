// See reference.hpp. A record becomes a table with one row for each key; keys within keys are rows with a dotted path, so
// that a reader finds `rotate.size` by searching for it.
#include "daemon/reference.hpp"

#include <array>
#include <chrono>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "config/time.hpp"
#include "daemon/sentence.hpp"
#include "daemon/settings.hpp"

namespace penstock::daemon {

namespace {

using config::field;
using config::field_type;

constexpr std::string_view intro =
    "# Reference\n\n"
    "Every key of a definition, every component and every setting, as this version checks them. Printed by `penstockd --reference`; "
    "how things behave is said in [jobs.md](jobs.md) and [flows.md](flows.md).\n\n"
    "**required** keys have no default. In a path, `[]` stands for an item of a list and `NAME` for a key that you choose. "
    "A duration is a number with its unit, or several, the largest first: `250ms`, `1h30m`; units ns us ms s m h d w. A size is in bytes: "
    "`512B`, `64MiB`, `10kB`; kB MB GB TB are powers of 1000, KiB MiB GiB TiB of 1024. Expressions are described in the "
    "[README](../README.md).\n";

std::string joined(const std::vector<std::string>& words, std::string_view between) {
  std::string all;
  for (const auto& word : words) all.append(all.empty() ? "" : between).append(word);
  return all;
}

// For a cell of a table.
std::string cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

std::string in_code(const std::string& text) { return text.empty() ? text : "`" + cell(text) + "`"; }

std::string type_name(const field& f) {
  switch (f.type) {
    case field_type::string: return f.secret ? "secret reference" : "string";
    case field_type::integer: return "integer";
    case field_type::number: return "number";
    case field_type::boolean: return "boolean";
    case field_type::duration: return "duration";
    case field_type::duration_range: return "duration, or a range of them";
    case field_type::size: return "size";
    case field_type::time: return "time";
    case field_type::expression: return "expression";
    case field_type::script: return "Lua script";
    case field_type::name: return "name";
    case field_type::choice: return in_code(joined(f.choices, "`, `"));
    case field_type::any: return "any";
    case field_type::object: return "mapping";
    case field_type::list: {
      const field& item = f.children.at(0);
      const std::string of = item.type == field_type::object ? "mappings" : type_name(item);
      return (f.single_allowed ? "one or a list: " : "list: ") + of;
    }
    case field_type::map: {
      const field& each = f.children.at(0);
      return "mapping of names to " + (each.type == field_type::object ? "mappings" : type_name(each));
    }
    case field_type::from: return "source";
    case field_type::step: return "step";
    case field_type::to: return "sink";
  }
  return {};
}

std::string in_units(const field& f, double limit) {
  if (f.type == field_type::duration || f.type == field_type::duration_range) {
    return format_duration(std::chrono::nanoseconds(std::llround(limit * 1e9)));
  }
  constexpr std::array units{"KiB", "MiB", "GiB", "TiB"};
  std::string unit;
  for (std::size_t i = 0; f.type == field_type::size && i < units.size() && limit >= 1024 && std::fmod(limit, 1024) == 0; ++i) {
    limit /= 1024;
    unit = units.at(i);
  }
  if (f.type == field_type::size && unit.empty()) unit = "B";
  return (limit == std::floor(limit) ? fmt::format("{:.0f}", limit) : fmt::format("{}", limit)) + unit;
}

std::string limits(const field& f) {
  const bool counted = f.type == field_type::list;
  if (f.minimum && f.maximum) return " From " + in_units(f, *f.minimum) + " to " + in_units(f, *f.maximum) + (counted ? " items." : ".");
  if (counted && f.minimum == 1) return " Not empty.";
  if (f.minimum && *f.minimum != 0) return " At least " + in_units(f, *f.minimum) + (counted ? " items." : ".");
  if (f.maximum) return " At most " + in_units(f, *f.maximum) + (counted ? " items." : ".");
  return {};
}

// What else is to be known of the key: how it stands to others, and how it looks.
std::string notes(const field& f) {
  std::string text = limits(f);
  if (f.only_where) text += " Only where `" + f.only_where->sibling + "` is `" + joined(f.only_where->values, "` or `") + "`.";
  if (!f.goes_with.empty()) text += " Only beside `" + f.goes_with + "`.";
  if (!f.excludes.empty()) text += " Not beside `" + f.excludes + "`.";
  if (!f.exactly_one.empty()) text += " Exactly one of `" + joined(f.exactly_one, "`, `") + "`.";
  if (!f.shorthand.empty()) text += " A bare value stands for `" + f.shorthand + "`.";
  if (!f.example.empty()) text += " Example: " + in_code(f.example) + ".";
  return text;
}

void add_rows(const std::vector<field>& fields, const std::string& above, std::string& out);

void add_below(const field& f, const std::string& path, std::string& out) {
  if (f.type == field_type::object) add_rows(f.children, path + ".", out);
  if (f.type == field_type::list) add_below(f.children.at(0), path + "[]", out);
  if (f.type == field_type::map) add_below(f.children.at(0), path + ".NAME", out);
}

void add_rows(const std::vector<field>& fields, const std::string& above, std::string& out) {
  for (const field& f : fields) {
    const std::string path = above + f.name;
    const std::string fallback = f.required ? "**required**" : in_code(f.fallback);
    out += fmt::format("| {} | {} | {} | {}{} |\n", in_code(path), type_name(f), fallback, cell(sentence(f.doc)), notes(f));
    add_below(f, path, out);
  }
}

void add_table(const std::vector<field>& fields, const std::string& above, std::string& out) {
  out += "| key | type | default | |\n| --- | --- | --- | --- |\n";
  add_rows(fields, above, out);
}

std::string settings_table(const field& settings) {
  std::string out;
  switch (settings.type) {
    case field_type::object:
      if (settings.children.empty()) return "No settings.\n";
      if (!settings.shorthand.empty()) out += "A bare value stands for `" + settings.shorthand + "`.\n\n";
      if (!settings.exactly_one.empty()) out += "Exactly one of `" + joined(settings.exactly_one, "`, `") + "`.\n\n";
      add_table(settings.children, "", out);
      return out;
    default:
      out = "Takes: " + type_name(settings) + ". " + sentence(settings.doc) + notes(settings) + "\n";
      std::string rows;
      add_below(settings, "", rows);
      if (!rows.empty()) out += "\n| key | type | default | |\n| --- | --- | --- | --- |\n" + rows;
      return out;
  }
}

std::string component_text(const config::component_spec& spec, const char* key) {
  std::string out = "\n### " + std::string(key) + spec.name + "\n\n" + sentence(spec.doc) + "\n\n";
  if (spec.kind == config::component_kind::source) {
    const char* where = !spec.bounded ? "In flows only: its input never ends." : spec.live ? "In flows, and in jobs as far as its input ends." : "In jobs only.";
    out.append(where).append("\n\n");
  }
  out += settings_table(spec.settings);
  if (!spec.examples.empty()) {
    out += "\n```yaml\n";
    for (const auto& example : spec.examples) out += example + (example.ends_with('\n') ? "" : "\n");
    out += "```\n";
  }
  return out;
}

}  // namespace

std::string reference_text(const config::catalog& components) {
  std::string out(intro);
  out += "\n## A definition\n\n";
  const field& pipeline = config::pipeline_fields();
  add_table(pipeline.children, "", out);
  using kind = config::component_kind;
  struct chapter {
    const char *title, *before_name;
    kind of;
  };
  constexpr chapter chapters[] = {{"Sources", "from: ", kind::source}, {"Steps", "", kind::step}, {"Sinks", "to: ", kind::sink}};
  for (const auto& [title, before_name, of] : chapters) {
    out += fmt::format("\n## {}\n", title);
    for (const auto& [name, spec] : components.of(of)) out += component_text(spec, before_name);
  }
  out += "\n## Settings of the daemon\n\nOf the file behind `penstockd --config`; flags win over it.\n\n";
  add_table(settings_fields().children, "", out);
  return out;
}

}  // namespace penstock::daemon
