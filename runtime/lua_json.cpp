#include "runtime/lua_json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <new>
#include <optional>

#include <lua.hpp>
#include <simdjson.h>

#include "runtime/json.hpp"

namespace penstock::runtime {

namespace {

namespace dom = simdjson::dom;

// A parser that has grown beyond this is thrown away after the call (it holds about 14 bytes per byte of
// JSON).
constexpr std::size_t kept_capacity = 256 << 10;

struct view {
  std::uint64_t generation = 0;
  dom::element element{};
  // Where the last array access stood (1-based; 0: nowhere), because a parsed array is a list: going through
  // it in order must not start from the front each time.
  std::int64_t at = 0;
  dom::array::iterator next{};
};

// What json.decode takes: its parser's memory is outside of the Lua state, hence outside of the call's memory
// limit.
constexpr std::size_t most_decoded = 1 << 20;

constexpr const char* view_name = "event";
constexpr const char* array_name = "json array";

dom::element parse(dom::parser& parser, std::string_view padded, std::string& failure) {
  simdjson::error_code error = simdjson::SUCCESS;
  if (parser.max_depth() != static_cast<std::size_t>(most_json_depth) + 1)
    error = parser.allocate(0, static_cast<std::size_t>(most_json_depth) + 1);
  dom::element root;
  if (!error) error = parser.parse(padded.data(), padded.size(), false).get(root);
  if (error) failure = "the payload is not valid JSON: " + check_json(padded, most_json_depth);
  return root;
}

// ---- reading

view& new_view(lua_State* state) { return *new (lua_newuserdatauv(state, sizeof(view), 0)) view{}; }

// Pushes anything but objects and arrays. Returns false for those.
bool push_scalar(lua_State* state, const dom::element& e) {
  switch (e.type()) {
    case dom::element_type::INT64:
      lua_pushinteger(state, e.get_int64().value_unsafe());
      return true;
    case dom::element_type::UINT64:
      lua_pushnumber(state, static_cast<lua_Number>(e.get_uint64().value_unsafe()));
      return true;
    case dom::element_type::DOUBLE:
      lua_pushnumber(state, e.get_double().value_unsafe());
      return true;
    case dom::element_type::STRING: {
      const std::string_view text = e.get_string().value_unsafe();
      lua_pushlstring(state, text.data(), text.size());
      return true;
    }
    case dom::element_type::BOOL:
      lua_pushboolean(state, e.get_bool().value_unsafe());
      return true;
    case dom::element_type::NULL_VALUE:
      lua_pushnil(state);
      return true;
    default:
      return false;
  }
}

void push_element(lua_State* state, const dom::element& e) {
  if (push_scalar(state, e)) return;
  view& v = new_view(state);
  v.generation = context_of(state).generation;
  v.element = e;
  lua_rawgeti(state, LUA_REGISTRYINDEX, context_of(state).view_metatable_reference);
  lua_setmetatable(state, -2);
}

// The metamethods of views cannot be reached by scripts (there is no getmetatable), so argument 1 is always a
// view.
view& live_view(lua_State* state, int index) {
  view& v = *static_cast<view*>(lua_touserdata(state, index));
  if (v.generation != context_of(state).generation)
    luaL_error(state, "this part of an earlier event is gone");
  return v;
}

bool find_item(lua_State* state, view& v, const dom::array& items, std::int64_t index, dom::element& found) {
  if (index < 1) return false;
  if (v.at == 0 || index < v.at) {
    v.at = 1;
    v.next = items.begin();
  }
  charge(state, (index - v.at) * 4);
  const dom::array::iterator end = items.end();
  while (v.next != end && v.at < index) {
    ++v.next;
    ++v.at;
  }
  if (v.next != end) {
    found = *v.next;
    return true;
  }
  v.at = 0;
  return false;
}

int view_index(lua_State* state) {
  view& v = live_view(state, 1);
  dom::element found;
  bool exists = false;
  if (v.element.is_object()) {
    if (lua_type(state, 2) == LUA_TSTRING) {
      std::size_t length = 0;
      const char* name = lua_tolstring(state, 2, &length);
      const dom::object fields = v.element.get_object().value_unsafe();
      charge(state, static_cast<std::int64_t>(fields.size()) * 4);
      exists = fields.at_key({name, length}).get(found) == simdjson::SUCCESS;
    }
  } else {
    int whole = 0;
    const lua_Integer index = lua_tointegerx(state, 2, &whole);
    if (whole && lua_type(state, 2) == LUA_TNUMBER)
      exists = find_item(state, v, v.element.get_array().value_unsafe(), index, found);
  }
  if (exists)
    push_element(state, found);
  else
    lua_pushnil(state);
  return 1;
}

std::int64_t count_items(const dom::array& items) {
  // size() saturates, so beyond its range the items are counted.
  constexpr std::size_t saturated = 0xFFFFFF;
  if (items.size() < saturated) return static_cast<std::int64_t>(items.size());
  std::int64_t count = 0;
  for ([[maybe_unused]] const dom::element item : items) ++count;
  return count;
}

int view_length(lua_State* state) {
  const view& v = live_view(state, 1);
  lua_pushinteger(state, v.element.is_array() ? count_items(v.element.get_array().value_unsafe()) : 0);
  return 1;
}

int view_newindex(lua_State* state) { return luaL_error(state, "this table is read-only in an expression"); }

struct field_cursor {
  std::uint64_t generation = 0;
  dom::object::iterator next{};
  dom::object::iterator end{};
};

// Upvalue 1: the position. The arguments come from the script and are not looked at.
int next_field(lua_State* state) {
  field_cursor& c = *static_cast<field_cursor*>(lua_touserdata(state, lua_upvalueindex(1)));
  if (c.generation != context_of(state).generation)
    return luaL_error(state, "this part of an earlier event is gone");
  if (!(c.next != c.end)) {
    lua_pushnil(state);
    return 1;
  }
  const std::string_view key = c.next.key();
  lua_pushlstring(state, key.data(), key.size());
  push_element(state, c.next.value());
  ++c.next;
  return 2;
}

struct item_cursor {
  std::uint64_t generation = 0;
  std::int64_t count = 0;
  dom::array::iterator next{};
  dom::array::iterator end{};
};

int next_item(lua_State* state) {
  item_cursor& c = *static_cast<item_cursor*>(lua_touserdata(state, lua_upvalueindex(1)));
  if (c.generation != context_of(state).generation)
    return luaL_error(state, "this part of an earlier event is gone");
  if (!(c.next != c.end)) {
    lua_pushnil(state);
    return 1;
  }
  lua_pushinteger(state, ++c.count);
  push_element(state, *c.next);
  ++c.next;
  return 2;
}

int view_pairs(lua_State* state) {
  const view& v = live_view(state, 1);
  if (v.element.is_object()) {
    const dom::object fields = v.element.get_object().value_unsafe();
    new (lua_newuserdatauv(state, sizeof(field_cursor), 0))
        field_cursor{v.generation, fields.begin(), fields.end()};
    lua_pushcclosure(state, next_field, 1);
  } else {
    const dom::array items = v.element.get_array().value_unsafe();
    new (lua_newuserdatauv(state, sizeof(item_cursor), 0))
        item_cursor{v.generation, 0, items.begin(), items.end()};
    lua_pushcclosure(state, next_item, 1);
  }
  return 1;
}

// ---- to tables

void push_as_table(lua_State* state, const dom::element& e);

void push_object(lua_State* state, const dom::object& fields) {
  lua_createtable(state, 0, static_cast<int>(std::min<std::size_t>(fields.size(), 1 << 16)));
  for (const dom::key_value_pair field : fields) {
    lua_pushlstring(state, field.key.data(), field.key.size());
    // Of a repeated key the first counts, as in a view.
    lua_pushvalue(state, -1);
    const bool repeated = lua_rawget(state, -3) != LUA_TNIL;
    lua_pop(state, 1);
    if (repeated) {
      lua_pop(state, 1);
      continue;
    }
    push_as_table(state, field.value);
    lua_rawset(state, -3);
  }
}

void push_array(lua_State* state, const dom::array& items) {
  lua_createtable(state, static_cast<int>(std::min<std::size_t>(items.size(), 1 << 16)), 0);
  luaL_setmetatable(state, array_name);
  lua_Integer index = 0;
  for (const dom::element item : items) {
    push_as_table(state, item);
    lua_rawseti(state, -2, ++index);
  }
}

void push_as_table(lua_State* state, const dom::element& e) {
  luaL_checkstack(state, 8, "JSON nested too deep");
  if (e.is_object())
    push_object(state, e.get_object().value_unsafe());
  else if (e.is_array())
    push_array(state, e.get_array().value_unsafe());
  else if (e.is_null())
    lua_pushlightuserdata(state, nullptr);
  else
    push_scalar(state, e);
}

// ---- writing

void append_float(std::string& out, double number) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, number);
  const std::string_view written(text, static_cast<std::size_t>(end - text));
  out += written;
  if (written.find_first_of(".e") == std::string_view::npos) out += ".0";
}

template <class Integer>
void append_integer(std::string& out, Integer number) {
  char text[24];
  const auto [end, error] = std::to_chars(text, text + sizeof text, number);
  out.append(text, end);
}

void append_element(std::string& out, const dom::element& e) {
  switch (e.type()) {
    case dom::element_type::INT64:
      append_integer(out, e.get_int64().value_unsafe());
      break;
    case dom::element_type::UINT64:
      append_integer(out, e.get_uint64().value_unsafe());
      break;
    case dom::element_type::DOUBLE:
      append_float(out, e.get_double().value_unsafe());
      break;
    case dom::element_type::STRING:
      append_json_string(out, e.get_string().value_unsafe());
      break;
    case dom::element_type::BOOL:
      out += e.get_bool().value_unsafe() ? "true" : "false";
      break;
    case dom::element_type::NULL_VALUE:
      out += "null";
      break;
    case dom::element_type::ARRAY: {
      char before = '[';
      const dom::array items = e.get_array().value_unsafe();
      for (const dom::element item : items) {
        out += before;
        append_element(out, item);
        before = ',';
      }
      out += before == '[' ? "[]" : "]";
      break;
    }
    case dom::element_type::OBJECT: {
      char before = '{';
      const dom::object fields = e.get_object().value_unsafe();
      for (const dom::key_value_pair field : fields) {
        out += before;
        append_json_string(out, field.key);
        out += ':';
        append_element(out, field.value);
        before = ',';
      }
      out += before == '{' ? "{}" : "}";
      break;
    }
  }
}

// Writes Lua values. Uses raw access only, so it neither runs script code nor raises errors.
class json_writer {
 public:
  json_writer(lua_State* state, std::string& out, std::size_t most, std::string& failure)
      : state_(state), out_(out), most_(most), failure_(failure) {}

  bool append(int index, int depth) {
    if (out_.size() > most_) return fail("the result is too large");
    switch (lua_type(state_, index)) {
      case LUA_TNIL:
        out_ += "null";
        return true;
      case LUA_TBOOLEAN:
        out_ += lua_toboolean(state_, index) ? "true" : "false";
        return true;
      case LUA_TNUMBER:
        return append_number(index);
      case LUA_TSTRING:
        return append_string(index);
      case LUA_TLIGHTUSERDATA:
        out_ += "null";
        return true;  // the sandbox knows no other than `null`
      case LUA_TUSERDATA:
        return append_view(index);
      case LUA_TTABLE:
        return append_table(index, depth);
      default:
        return fail(std::string("a ") + luaL_typename(state_, index) + " cannot be written as JSON");
    }
  }

 private:
  struct member {
    std::string key;
    std::size_t start, length;  // of `"key":value` in out_
  };

  bool fail(std::string reason) {
    failure_ = std::move(reason);
    return false;
  }

  bool append_number(int index) {
    if (lua_isinteger(state_, index)) {
      append_integer(out_, lua_tointeger(state_, index));
      return true;
    }
    const lua_Number number = lua_tonumber(state_, index);
    if (!std::isfinite(number))
      return fail(std::isnan(number) ? "NaN cannot be written as JSON"
                                     : "infinity cannot be written as JSON");
    append_float(out_, number);
    return true;
  }

  bool append_string(int index) {
    std::size_t length = 0;
    const char* text = lua_tolstring(state_, index, &length);
    return append_utf8_json_string(out_, {text, length}) ||
           fail("a string that is not UTF-8 cannot be written as JSON");
  }

  bool has_metatable(int index, const void* identity) {
    if (!lua_getmetatable(state_, index)) return false;
    const bool same = lua_topointer(state_, -1) == identity;
    lua_pop(state_, 1);
    return same;
  }

  bool append_view(int index) {
    const lua_context& context = context_of(state_);
    if (!has_metatable(index, context.view_metatable))
      return fail("meta cannot be written whole; name its fields");
    const view& v = *static_cast<view*>(lua_touserdata(state_, index));
    if (v.generation != context.generation) return fail("this part of an earlier event is gone");
    append_element(out_, v.element);
    return true;
  }

  bool append_table(int index, int depth) {
    if (!lua_checkstack(state_, 8)) return fail("the memory limit was reached");
    const int table = lua_absindex(state_, index);
    const bool marked = has_metatable(table, context_of(state_).array_metatable);
    if (is_empty(table)) {
      out_ += marked ? "[]" : "{}";
      return true;
    }
    // As in reading, an empty table is no further level.
    if (depth >= most_json_depth)
      return fail("a table nested more than " + std::to_string(most_json_depth) + " deep, or in itself");
    const lua_Integer length = static_cast<lua_Integer>(lua_rawlen(state_, table));
    if (is_sequence(table, length)) return append_array(table, length, depth);
    if (marked) return fail("an array with holes or with named fields");
    return append_object(table, depth);
  }

  bool is_empty(int table) {
    lua_pushnil(state_);
    if (!lua_next(state_, table)) return true;
    lua_pop(state_, 2);
    return false;
  }

  // Of a table that is not empty: whether its keys are 1..length.
  bool is_sequence(int table, lua_Integer length) {
    lua_Integer count = 0;
    lua_pushnil(state_);
    while (lua_next(state_, table)) {
      lua_pop(state_, 1);
      const bool in_range =
          lua_isinteger(state_, -1) && lua_tointeger(state_, -1) >= 1 && lua_tointeger(state_, -1) <= length;
      if (!in_range) {
        lua_pop(state_, 1);
        return false;
      }
      ++count;
    }
    return count == length;
  }

  bool append_array(int table, lua_Integer length, int depth) {
    out_ += '[';
    for (lua_Integer i = 1; i <= length; ++i) {
      if (i > 1) out_ += ',';
      lua_rawgeti(state_, table, i);
      const bool written = append(-1, depth + 1);
      lua_pop(state_, 1);
      if (!written) return false;
    }
    out_ += ']';
    return true;
  }

  bool key_text(int index, std::string& text) {
    if (lua_type(state_, index) == LUA_TSTRING) {
      std::size_t length = 0;
      const char* key = lua_tolstring(state_, index, &length);
      if (!simdjson::validate_utf8(key, length))
        return fail("a key that is not UTF-8 cannot be written as JSON");
      text.assign(key, length);
      return true;
    }
    if (lua_isinteger(state_, index)) {
      append_integer(text, lua_tointeger(state_, index));
      return true;
    }
    return fail(std::string("a key of type ") + luaL_typename(state_, index) + " cannot be written as JSON");
  }

  // Members are written in the table's own order first, then put in the order of their keys.
  bool append_object(int table, int depth) {
    const std::size_t start = out_.size();
    std::vector<member> members;
    lua_pushnil(state_);
    while (lua_next(state_, table)) {
      member m{{}, out_.size(), 0};
      const bool written = key_text(-2, m.key) && append_member(m.key, depth);
      if (!written) {
        lua_pop(state_, 2);
        return false;
      }
      m.length = out_.size() - m.start;
      members.push_back(std::move(m));
      lua_pop(state_, 1);
    }
    std::sort(members.begin(), members.end(), [](const member& a, const member& b) { return a.key < b.key; });
    std::string sorted = "{";
    for (const member& m : members) {
      if (sorted.size() > 1) sorted += ',';
      sorted.append(out_, m.start, m.length);
    }
    sorted += '}';
    out_.replace(start, std::string::npos, sorted);
    return true;
  }

  bool append_member(const std::string& key, int depth) {
    append_json_string(out_, key);
    out_ += ':';
    return append(-1, depth + 1);
  }

  lua_State* const state_;
  std::string& out_;
  const std::size_t most_;
  std::string& failure_;
};

int view_to_text(lua_State* state) {
  std::string text;
  append_element(text, live_view(state, 1).element);
  charge(state, static_cast<std::int64_t>(text.size()) * 4);
  lua_pushlstring(state, text.data(), text.size());
  return 1;
}

// ---- the library

int json_decode(lua_State* state) {
  std::size_t length = 0;
  const char* text = luaL_checklstring(state, 1, &length);
  if (length > most_decoded) return luaL_error(state, "json.decode: the text is longer than 1 MiB");
  charge(state, static_cast<std::int64_t>(length) * 16);
  // Its own parser: the event's document stays as it is.
  const simdjson::padded_string padded(text, length);
  dom::parser parser;
  std::string failure;
  const dom::element root = parse(parser, padded, failure);
  if (!failure.empty()) {
    lua_pushlstring(state, failure.data(), failure.size());
    return lua_error(state);
  }
  push_as_table(state, root);
  return 1;
}

int json_encode(lua_State* state) {
  luaL_checkany(state, 1);
  std::string text, failure;
  const bool written = append_lua_value(state, 1, text, 16 << 20, failure);
  charge(state, static_cast<std::int64_t>(text.size()) * 16);
  if (!written) return luaL_error(state, "%s", failure.c_str());
  lua_pushlstring(state, text.data(), text.size());
  return 1;
}

// Marks a table as an array, so that it is written as [] even when it is empty.
int json_array(lua_State* state) {
  if (lua_isnoneornil(state, 1)) {
    lua_settop(state, 0);
    lua_newtable(state);
  }
  luaL_checktype(state, 1, LUA_TTABLE);
  lua_settop(state, 1);
  if (lua_getmetatable(state, 1)) {
    // Tables of the sandbox itself have metatables that must stay.
    if (lua_topointer(state, -1) != context_of(state).array_metatable)
      return luaL_error(state, "this table cannot be an array");
    lua_pop(state, 1);
  }
  luaL_setmetatable(state, array_name);
  return 1;
}

}  // namespace

struct payload_document::parsed {
  dom::parser parser;
  std::optional<dom::element>
      root;  // of the payload at hand; absent when it is empty, not JSON, or not parsed
  int holders = 0;
  std::string_view held;  // what root was parsed from, while somebody holds it
};

payload_document::payload_document() : parsed_(std::make_unique<parsed>()) {}
payload_document::~payload_document() = default;

void payload_document::open_views(lua_State* state) {
  const luaL_Reg methods[] = {{"__index", view_index}, {"__newindex", view_newindex}, {"__len", view_length},
                              {"__pairs", view_pairs}, {"__tostring", view_to_text},  {nullptr, nullptr}};
  luaL_newmetatable(state, view_name);
  luaL_setfuncs(state, methods, 0);
  lua_pushliteral(state, "table");  // what Lua's messages call it, as does type()
  lua_setfield(state, -2, "__name");
  context_of(state).view_metatable = lua_topointer(state, -1);
  context_of(state).view_metatable_reference = luaL_ref(state, LUA_REGISTRYINDEX);
  luaL_newmetatable(state, array_name);
  context_of(state).array_metatable = lua_topointer(state, -1);
  lua_pop(state, 1);
  new_view(state);
  luaL_setmetatable(state, view_name);
}

bool payload_document::push_view(lua_State* state, std::string_view padded, int root_index,
                                 std::string& failure) {
  const std::uint64_t generation = ++context_of(state).generation;
  if (padded.empty()) {
    forget();
    lua_pushnil(state);
    return true;
  }
  const bool known = parsed_->root && parsed_->held.data() == padded.data() && parsed_->held.size() == padded.size();
  if (!known) {
    forget();
    const dom::element root = parse(parsed_->parser, padded, failure);
    if (!failure.empty()) return false;
    parsed_->root = root;
    if (parsed_->holders > 0) parsed_->held = padded;
  }
  const dom::element root = *parsed_->root;
  if (push_scalar(state, root)) return true;
  *static_cast<view*>(lua_touserdata(state, root_index)) = view{generation, root};
  lua_pushvalue(state, root_index);
  return true;
}

bool payload_document::push_table(lua_State* state, std::string_view padded, std::string& failure) {
  ++context_of(state).generation;
  if (padded.empty()) {
    lua_pushnil(state);
    return true;
  }
  forget();
  const dom::element root = parse(parsed_->parser, padded, failure);
  if (!failure.empty()) return false;
  push_as_table(state, root);
  return true;
}

bool payload_document::append_field(const std::vector<std::string>& path, std::string& out) const {
  if (!parsed_->root) return false;
  dom::element at = *parsed_->root;
  for (std::size_t i = 0; i < path.size(); ++i) {
    dom::object fields;
    if (at.get(fields)) return false;
    if (fields.at_key(path[i]).get(at)) {
      out += "null";
      return i + 1 == path.size();
    }
  }
  append_element(out, at);
  return true;
}

void payload_document::close(lua_State* state) {
  ++context_of(state).generation;
  const bool large = parsed_->parser.capacity() > kept_capacity;
  if (parsed_->holders == 0 || large) forget();
  if (large) parsed_->parser = dom::parser{};
}

void payload_document::hold() {
  if (parsed_->holders++ == 0) forget();
}

void payload_document::release() {
  if (--parsed_->holders == 0) forget();
}

void payload_document::forget() {
  parsed_->root.reset();
  parsed_->held = {};
}

void push_json_library(lua_State* state) {
  const luaL_Reg functions[] = {
      {"decode", json_decode}, {"encode", json_encode}, {"array", json_array}, {nullptr, nullptr}};
  lua_newtable(state);
  luaL_setfuncs(state, functions, 0);
}

bool append_lua_value(lua_State* state, int index, std::string& out, std::size_t most, std::string& failure) {
  const std::size_t limit =
      out.size() > lua_budget::unlimited - most ? lua_budget::unlimited : out.size() + most;
  return json_writer(state, out, limit, failure).append(lua_absindex(state, index), 0);
}

}  // namespace penstock::runtime
