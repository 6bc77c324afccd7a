// The library that expressions and scripts see, and nothing else: no files, no processes, no code loading, no
// debug library, no metatables of one's own, no coroutines. Internal to the lua*.cpp files; one thread, the
// engine's.
//
//   assert error ipairs next pairs pcall select tonumber tostring type null
//   math (without randomseed), string (without dump and pack), table, utf8
//   json.decode json.encode json.array iso_time parse_time
//
// Library tables are read-only. Functions that can work long on few instructions are charged for what they
// do; string.find, match, gmatch and gsub run on our own matcher with a step limit. pcall does not catch a
// limit.
#pragma once

struct lua_State;

namespace penstock::runtime {

// Fills a fresh state and leaves two tables on the stack: the real one with all of the above, and a read-only
// front of it that is safe as _ENV. The front also replaces the state's globals. Call once, on an unlimited
// budget.
void open_sandbox(lua_State* state);

}  // namespace penstock::runtime
