#include "runtime/json_field.hpp"

#include <simdjson.h>

#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "runtime/text.hpp"

namespace penstock::runtime {

namespace {

// Where the value of the first field `name` stands in the object; empty with a null pointer: nowhere.
std::string_view value_of(std::string_view object, std::string_view name) {
  thread_local simdjson::ondemand::parser parser;
  simdjson::ondemand::document root =
      parser.iterate(object.data(), object.size(), object.size() + padding).value();
  for (auto field : root.get_object()) {
    if (field.unescaped_key().value() != name) continue;
    std::string_view found = simdjson::to_json_string(field.value()).value();
    found.remove_suffix(found.size() - 1 - found.find_last_not_of(whitespace));
    return found;
  }
  return {};
}

}  // namespace

std::string append_with_field(std::string& out, std::string_view object, std::string_view name,
                              std::string_view value) {
  if (std::string wrong = check_json(object); !wrong.empty()) return wrong;
  const std::size_t begin = object.find_first_not_of(whitespace);
  if (begin == std::string_view::npos || object[begin] != '{') return "the payload is not a JSON object";
  std::string_view old;
  try {
    old = value_of(object, name);
  } catch (const simdjson::simdjson_error& failure) {
    return std::string("not valid JSON: ") + failure.what();
  }
  if (old.data()) {
    const auto at = static_cast<std::size_t>(old.data() - object.data());
    out.append(object.substr(0, at)).append(value).append(object.substr(at + old.size()));
    return {};
  }
  const std::size_t end = object.rfind('}');
  const bool has_fields = object.find_last_not_of(whitespace, end - 1) != begin;
  out.append(object.substr(0, end)).append(has_fields ? "," : "");
  append_json_string(out, name);
  out.append(":").append(value).append(object.substr(end));
  return {};
}

}  // namespace penstock::runtime
