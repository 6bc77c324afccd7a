// Expressions and scripts: whatever the Lua, a call ends, within its limits; what comes out is JSON.
// Input: the Lua text. It is tried as an expression, as a field of a map, as a run's expression and as a script.
#include <string>

#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "runtime/lua.hpp"
#include "runtime/run_expression.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

constexpr std::string_view payload =
    R"({"id":7,"total":12.50,"name":"Zoë","tags":["a","b",null],"customer":{"id":9007199254740993,"vip":true,"note":null},"empty":{},"list":[]})";

bool is_json(const std::string& text) { return runtime::check_json(runtime::buffer(text).text(), 200).empty(); }

void try_expression(const std::string& lua, const runtime::event& e) {
  const runtime::lua_expression expression(lua);
  const auto truth = expression.truth(e);
  const auto json = expression.json_of(e);
  if (json.failure.empty()) require(is_json(json.value), "a value is JSON", json.value);
  // Equal calls have equal outcomes, but for chance. A null is nil, or what `json.decode` calls null, which is true.
  if (json.failure.empty() && truth.failure.empty() && lua.find("random") == lua.npos && json.value != "null") {
    require(truth.value == (json.value != "false"), "false is false, and what has a value is true", json.value);
  }
  static_cast<void>(expression.text_of(e));
  static_cast<void>(expression.text_or_json_of(e));
  std::string object;
  const runtime::lua_mapping mapping({{"a", lua}, {"b", "event.id"}, {"c", "event.customer.id"}});
  const auto mapped = mapping.apply(e, object);
  if (mapped.failure.empty()) require(is_json(object), "what a map makes is JSON", object);
  if (!mapped.failure.empty()) require(object.empty(), "a map that fails leaves nothing behind", object);
  const runtime::run_expression of_run(lua);
  const auto run_json = of_run.json(R"({"params":{"n":3,"list":[1,null]},"run":{"id":"R1"},"event":{"id":7}})");
  if (run_json.failure.empty()) require(is_json(run_json.value), "a value is JSON", run_json.value);
}

}  // namespace

void try_input(std::string_view text) {
  const std::string lua(text);
  runtime::batch events;
  runtime::event e;
  e.id = "1";
  e.source = "/topics/orders";
  e.type = "event";
  e.data = events.keep(payload);
  if (!runtime::check_lua(lua, false)) try_expression(lua, e);
  if (!runtime::check_lua(lua, true)) {
    const auto made = runtime::lua_script(lua).run(e);
    if (made.failure.empty()) {
      for (const std::string& one : made.value) require(is_json(one), "what a script makes is JSON", one);
    }
  }
}

}  // namespace penstock::fuzz
