// JSON as payloads are read (simdjson, without building a document): agrees with nlohmann/json on what is JSON, and what is
// taken apart is put together as it was.
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "api/json.hpp"
#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "runtime/json_parts.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

using json = nlohmann::ordered_json;

bool is_json(std::string_view text) { return runtime::check_json(runtime::buffer(std::string(text)).text()).empty(); }

void try_parts(std::string_view text) {
  if (const auto items = runtime::json_items(text)) {
    for (const auto item : *items) require(is_json(item), "an item is JSON", item);
  }
  const auto members = runtime::json_members(text);
  if (!members) return;
  auto tree = runtime::json_tree::of(text);
  require(tree.has_value(), "an object is a tree");
  for (const auto& m : *members) {
    require(is_json(m.value), "a value is JSON", m.value);
    if (m.value.starts_with('"')) require(runtime::json_text(m.value).has_value(), "a string says something", m.value);
  }
  std::string same;
  tree->append_to(same);
  require(json::parse(same) == json::parse(text), "a tree is written as it was read", same);
  if (members->empty() || members->front().name.empty()) return;
  require(tree->set({members->front().name}, "true"), "a field can be set");
  static_cast<void>(tree->set({"new", "inner"}, "[1]"));  // false where something else is in the way
  tree->remove({members->back().name});
  std::string other;
  tree->append_to(other);
  require(is_json(other), "a changed tree is JSON", other);
}

}  // namespace

void try_input(std::string_view text) {
  const runtime::buffer padded{std::string(text)};
  const std::string wrong = runtime::check_json(padded.text());
  const auto document = api::parse_json(text);
  std::string string;
  runtime::append_json_string(string, text);
  require(is_json(string), "any bytes can be a JSON string", string);
  require(is_json("\"" + std::string() + "\""), "an empty string is JSON");
  std::string strict;
  if (runtime::append_utf8_json_string(strict, text)) {
    require(json::parse(strict).get<std::string>() == text, "a text is read as it was written", strict);
  } else {
    require(strict.empty(), "nothing is appended of what is no text");
  }
  std::string shown;
  runtime::append_json_string(shown, runtime::excerpt(text));
  require(json::parse(shown).get<std::string>().size() <= 63, "an excerpt is short", shown);
  // Numbers beyond a double are JSON to one and an error to the other; so are bytes of a leading mark.
  if (!wrong.empty() || !document) return;
  require(is_json(api::to_text(*document)), "a document is written as JSON");
  try_parts(padded.text());
}

}  // namespace penstock::fuzz
