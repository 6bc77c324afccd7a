// steps: cast - makes numbers, integers, booleans, times or texts of fields of a JSON object.
//
// A value that is of the wanted type already keeps its text (1.50 stays 1.50), an absent field stays absent and null
// stays null. What cannot be cast makes the event a dead letter that names field and value. Stateless.
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/change_fields.hpp"

namespace penstock::runtime::components::cast_step {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "cast",
      .doc = "Turns fields into the named types; all others stay as they are. Useful behind CSV, where everything is text.",
      .settings =
          {.name = "cast",
           .type = field_type::map,
           .doc = "Field (inner ones with dots): type.",
           .required = true,
           .example = "{total: number, at: time}",
           .children = {{.name = "type",
                         .type = field_type::choice,
                         .doc = "number: also of text, as \" 1.50\". integer: a number without a fraction, within 64 "
                                "bits. boolean: true false yes no on off 1 0, in any case. time: RFC 3339 (also with a "
                                "blank for the T, without a zone for UTC, or a date alone), or seconds, milliseconds or "
                                "microseconds since 1970, told apart by their size; becomes RFC 3339 in UTC. string: "
                                "what stands in the JSON.",
                         .choices = {"number", "integer", "boolean", "time", "string"}}},
           .minimum = 1},
      .examples = {"cast: {total: number, count: integer, paid: boolean, at: time, customer.id: string}"},
  };
}

using cast_result = std::optional<std::string>;  // JSON; nothing: it cannot be

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

// The whole text as a number; no infinities, no hexadecimals.
template <class T>
std::optional<T> parsed(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  T number{};
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (wrong != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Recognisable as one with a fraction, as integers beyond 64 bits would not be read again.
std::string text_of(double number) {
  char text[32];
  const std::string made(text, std::to_chars(text, text + sizeof text, number).ptr);
  return made.find_first_of(".e") == made.npos ? made + ".0" : made;
}

// RFC 8259, section 6.
bool is_json_number(std::string_view text) {
  const auto digits = [&text] {
    std::size_t n = 0;
    while (n < text.size() && text[n] >= '0' && text[n] <= '9') ++n;
    text.remove_prefix(n);
    return n;
  };
  if (text.starts_with('-')) text.remove_prefix(1);
  const bool leading_zero = text.starts_with('0');
  const std::size_t whole = digits();
  if (whole == 0 || (leading_zero && whole > 1)) return false;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    if (digits() == 0) return false;
  }
  if (text.starts_with('e') || text.starts_with('E')) {
    text.remove_prefix(1);
    if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
    if (digits() == 0) return false;
  }
  return text.empty();
}

// Digits beyond 64 bits are no number that the other steps could read.
cast_result number_of(std::string_view text) {
  const auto number = parsed<double>(text);
  if (!number || !std::isfinite(*number)) return std::nullopt;
  const bool whole = text.find_first_of(".eE") == text.npos;
  const bool fits = !whole || parsed<std::int64_t>(text) || parsed<std::uint64_t>(text);
  if (fits && is_json_number(text)) return std::string(text);
  if (const auto integer = parsed<std::int64_t>(text)) return std::to_string(*integer);
  return text_of(*number);
}

cast_result integer_of(std::string_view text) {
  if (const auto integer = parsed<std::int64_t>(text)) return std::to_string(*integer);
  if (const auto integer = parsed<std::uint64_t>(text)) return std::to_string(*integer);
  const auto number = parsed<double>(text);
  constexpr double limit = 9'007'199'254'740'992;  // beyond it a double does not tell integers apart
  if (!number || !(std::fabs(*number) <= limit) || std::trunc(*number) != *number) return std::nullopt;
  if (text.find_first_of(".eE") == text.npos) return std::nullopt;
  return std::to_string(static_cast<std::int64_t>(*number));
}

cast_result boolean_of(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* word : {"true", "yes", "on", "1"}) {
    if (lower == word) return "true";
  }
  for (const char* word : {"false", "no", "off", "0"}) {
    if (lower == word) return "false";
  }
  return std::nullopt;
}

std::optional<timestamp> time_of_number(double number) {
  const double size = std::fabs(number);
  const double us = size < 1e11 ? number * 1e6 : size < 1e14 ? number * 1e3 : number;
  if (!(std::fabs(us) < 253'402'300'800e6)) return std::nullopt;  // the year 10000
  return from_micros(std::llround(us));
}

std::optional<timestamp> time_of_text(std::string text) {
  if (const auto number = parsed<double>(text)) return time_of_number(*number);
  if (text.size() == 10) text += "T00:00:00";
  if (text.size() > 10 && text[10] == ' ') text[10] = 'T';
  if (auto time = parse_time(text)) return time;
  return parse_time(text + "Z");
}

std::string in_json(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

// `value` as it stands in the JSON.
cast_result cast(std::string_view value, const std::string& type) {
  const json_kind kind = json_kind_of(value);
  if (kind == json_kind::null) return std::string(value);
  const std::optional<std::string> string = json_text(value);
  if (type == "string") return string ? std::string(value) : in_json(value);
  if (kind == json_kind::object || kind == json_kind::list) return std::nullopt;
  if (type == "boolean") return boolean_of(string ? trimmed(*string) : value);
  if (kind == json_kind::boolean) return std::nullopt;
  const std::string_view text = string ? trimmed(*string) : value;
  if (type == "number") return string ? number_of(text) : std::string(value);
  if (type == "integer") return integer_of(text);
  const auto time = time_of_text(std::string(text));
  return time ? cast_result(in_json(format_time(*time))) : std::nullopt;
}

class cast_step final : public step {
 public:
  explicit cast_step(const config::value& settings) {
    for (const auto& [field, type] : settings.items())
      fields_.push_back({field, path_of(field), type.get<std::string>()});
  }

  void process(batch& events, step_output& out) override {
    change_fields(events, out, [this](json_tree& tree) {
      for (const wanted& f : fields_) {
        const auto value = tree.find(f.path);
        if (!value) continue;
        cast_result made = cast(*value, f.type);
        if (!made) return "'" + f.name + "': " + excerpt(*value) + " is no " + f.type;
        if (*made != *value) tree.set(f.path, std::move(*made));
      }
      return std::string();
    });
  }

  bool stateless() const override { return true; }

 private:
  struct wanted {
    std::string name;
    std::vector<std::string> path;
    std::string type;
  };

  std::vector<wanted> fields_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), [](const config::value& v) { return cast_step(v); }),
        registry::make_step([](const config::value& settings, const component_context&) {
          return std::make_unique<cast_step>(settings);
        }));
}

}  // namespace penstock::runtime::components::cast_step
