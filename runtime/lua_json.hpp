// Between JSON and Lua: payloads as lazily read views or as tables, Lua values as JSON text.
// One thread, the engine's. Internal to the lua*.cpp files.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "runtime/lua_context.hpp"

namespace penstock::runtime {

// Nesting beyond which JSON is neither read nor written.
constexpr int most_json_depth = 64;

// The parsed payload of the event at hand. A view is userdata that points into it and carries the generation
// it belongs to; opening or closing a payload starts a new one, so a view can never read another event's
// fields. Every call parses again (some 60 ns per 100 bytes), unless somebody holds the payload: then the next call for
// the same bytes finds it parsed.
class payload_document {
 public:
  payload_document();
  ~payload_document();
  payload_document(const payload_document&) = delete;
  payload_document& operator=(const payload_document&) = delete;

  // Creates the metatables and leaves the root view on the stack; the engine keeps it there. Call once, on an
  // unlimited budget.
  void open_views(lua_State* state);

  // Parses `padded` and pushes it: null as nil, scalars as Lua's own, objects and arrays as a view (the root
  // view, at `root_index`). Pushes nothing and returns false, with the reason in `failure`, when it is not
  // JSON.
  bool push_view(lua_State* state, std::string_view padded, int root_index, std::string& failure);
  // Parses and pushes as fresh tables; null is the value `null`. May raise Lua errors (call it protected).
  bool push_table(lua_State* state, std::string_view padded, std::string& failure);
  // Appends what stands at `path` (names of fields, the outermost first) in the payload that push_view
  // parsed; null when the last is absent. False, perhaps after appending something, when the way does not
  // lead through objects.
  bool append_field(const std::vector<std::string>& path, std::string& out) const;
  // Views are dead from here on. Memory of an unusually large payload is given back.
  void close(lua_State* state);
  // No payload is at hand, nor held.
  void forget();
  // Between hold() and release() bytes at one address stay as they are, so that what was parsed there may be used again.
  void hold();
  void release();

 private:
  struct parsed;
  std::unique_ptr<parsed> parsed_;
};

// Pushes the table `json` (decode, encode, array) of the sandbox.
void push_json_library(lua_State* state);

// Appends the value at `index` as JSON. Integers as integers, floats in the shortest text that reads back the
// same (always recognisable as floats), 1..n tables as arrays, other tables as objects with sorted keys,
// views as the JSON they view. Returns false with the reason when it cannot be: functions, NaN, infinities,
// not UTF-8, too deep, longer than `most` bytes in all. Raises no Lua errors.
bool append_lua_value(lua_State* state, int index, std::string& out, std::size_t most, std::string& failure);

}  // namespace penstock::runtime
