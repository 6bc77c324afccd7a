#include "runtime/lua_sandbox.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <time.h>

#include <lua.hpp>

#include "config/time.hpp"
#include "runtime/lua_context.hpp"
#include "runtime/lua_json.hpp"
#include "runtime/lua_patterns.hpp"

namespace penstock::runtime {

namespace {

// ---- functions of Lua's library, charged before they run. How the charge follows from the arguments:

std::int64_t text_length(lua_State* state) {
  return lua_type(state, 1) == LUA_TSTRING ? static_cast<std::int64_t>(lua_rawlen(state, 1)) * 4 : 0;
}

std::int64_t list_length(lua_State* state) {
  return lua_type(state, 1) == LUA_TTABLE ? static_cast<std::int64_t>(lua_rawlen(state, 1)) * 16 : 0;
}

std::int64_t joined_items(lua_State* state) { return list_length(state) * 2; }

// table.insert and table.remove with a position shift what comes after it.
std::int64_t shifted_items(lua_State* state, int arguments) {
  if (lua_gettop(state) < arguments) return 0;
  const std::int64_t length = list_length(state) / 16;
  return std::clamp<std::int64_t>(length - lua_tointeger(state, 2), 0, length) * 16;
}

std::int64_t inserted_items(lua_State* state) { return shifted_items(state, 3); }
std::int64_t removed_items(lua_State* state) { return shifted_items(state, 2); }

std::int64_t sort_length(lua_State* state) {
  const std::int64_t length = list_length(state) / 16;
  return length * std::bit_width(static_cast<std::uint64_t>(length)) * 64;
}

// Items between the bounds in arguments `first` and `first + 1`; table.move over 2^60 absent items would
// never end.
std::int64_t span(lua_State* state, int first) {
  const lua_Integer from = lua_tointeger(state, first), to = lua_tointeger(state, first + 1);
  if (to < from) return 0;
  const auto items = static_cast<std::uint64_t>(to) - static_cast<std::uint64_t>(from);
  return static_cast<std::int64_t>(std::min<std::uint64_t>(items, 1'000'000'000)) * 16;
}

std::int64_t moved_items(lua_State* state) { return span(state, 2); }
std::int64_t unpacked_items(lua_State* state) { return list_length(state) + span(state, 2); }

using cost_function = std::int64_t (*)(lua_State*);

struct charged_function {
  const char* name;
  cost_function cost;
};

// Upvalue 1: the library's function (which has no upvalues of its own). Upvalue 2: its cost function.
int call_charged(lua_State* state) {
  const auto cost = *static_cast<cost_function*>(lua_touserdata(state, lua_upvalueindex(2)));
  charge(state, cost(state));
  return lua_tocfunction(state, lua_upvalueindex(1))(state);
}

void wrap_charged(lua_State* state, const charged_function& f) {
  lua_getfield(state, -1, f.name);
  *static_cast<cost_function*>(lua_newuserdatauv(state, sizeof(cost_function), 0)) = f.cost;
  lua_pushcclosure(state, call_charged, 2);
  lua_setfield(state, -2, f.name);
}

int string_rep(lua_State* state) {
  std::size_t length = 0, between = 0;
  luaL_checklstring(state, 1, &length);
  const lua_Integer count = luaL_checkinteger(state, 2);
  luaL_optlstring(state, 3, "", &between);
  // Lua's own function loops over a repeated empty string without looking.
  if (count <= 0 || (length == 0 && between == 0)) {
    lua_pushliteral(state, "");
    return 1;
  }
  charge(state, std::min<lua_Integer>(count, 1'000'000'000) * 8);
  return lua_tocfunction(state, lua_upvalueindex(1))(state);
}

// ---- patterns

// Steps a match may still take, out of the call's budget.
constexpr std::int64_t ticks_per_step = 16;

std::int64_t steps_left(lua_State* state) {
  const lua_budget& budget = context_of(state).budget;
  return std::max<std::int64_t>(0, (budget.most_ticks - budget.ticks) / ticks_per_step);
}

[[noreturn]] void raise(lua_State* state, const pattern_error& e, std::int64_t steps) {
  charge(state, steps * ticks_per_step);
  luaL_error(state, "%s", e.what());
  throw;  // luaL_error does not return, but is not declared so
}

std::string_view text_argument(lua_State* state, int index) {
  std::size_t length = 0;
  const char* text = luaL_checklstring(state, index, &length);
  return {text, length};
}

// The 0-based start that Lua's 1-based `init` (negative: from the end) means; may be beyond the end.
std::size_t start_argument(lua_State* state, int index, std::size_t length) {
  const lua_Integer init = luaL_optinteger(state, index, 1);
  if (init > 0) return static_cast<std::size_t>(init) - 1;
  if (init == 0 || init < -static_cast<lua_Integer>(length)) return 0;
  return length - static_cast<std::size_t>(-init);
}

void push_capture(lua_State* state, const pattern_matcher& matcher, int index, std::string_view subject,
                  const char* from, const char* to) {
  if (index == 0 && matcher.captures() == 0) {
    lua_pushlstring(state, from, static_cast<std::size_t>(to - from));
    return;
  }
  const pattern_matcher::capture& c = matcher.captured(index);
  if (c.length == pattern_matcher::capture::position)
    lua_pushinteger(state, c.start - subject.data() + 1);
  else
    lua_pushlstring(state, c.start, static_cast<std::size_t>(c.length));
}

// The captures, or the whole match when there are none and `whole` asks for it.
int push_captures(lua_State* state, const pattern_matcher& matcher, std::string_view subject,
                  const char* from, const char* to, bool whole) {
  const int count = matcher.captures() == 0 && whole ? 1 : matcher.captures();
  luaL_checkstack(state, count, "too many captures");
  for (int i = 0; i < count; ++i) push_capture(state, matcher, i, subject, from, to);
  return count;
}

int find_plain(lua_State* state, std::string_view subject, std::string_view wanted, std::size_t start) {
  charge(state, static_cast<std::int64_t>(subject.size() - start));
  // memmem, because it is linear where std::string_view::find is not.
  const void* found = ::memmem(subject.data() + start, subject.size() - start, wanted.data(), wanted.size());
  if (!found) {
    lua_pushnil(state);
    return 1;
  }
  const auto at = static_cast<lua_Integer>(static_cast<const char*>(found) - subject.data());
  lua_pushinteger(state, at + 1);
  lua_pushinteger(state, at + static_cast<lua_Integer>(wanted.size()));
  return 2;
}

int find_pattern(lua_State* state, std::string_view subject, std::string_view pattern, std::size_t start,
                 bool positions) {
  const bool anchored = !pattern.empty() && pattern.front() == '^';
  if (anchored) pattern.remove_prefix(1);
  pattern_matcher matcher(subject, pattern, steps_left(state));
  try {
    const char* const end = subject.data() + subject.size();
    for (const char* at = subject.data() + start; at <= end; ++at) {
      if (const char* to = matcher.match(at)) {
        charge(state, matcher.steps() * ticks_per_step);
        if (!positions) return push_captures(state, matcher, subject, at, to, true);
        lua_pushinteger(state, at - subject.data() + 1);
        lua_pushinteger(state, to - subject.data());
        return 2 + push_captures(state, matcher, subject, at, to, false);
      }
      if (anchored) break;
    }
  } catch (const pattern_error& e) {
    raise(state, e, matcher.steps());
  }
  charge(state, matcher.steps() * ticks_per_step);
  lua_pushnil(state);
  return 1;
}

int find_or_match(lua_State* state, bool find) {
  const std::string_view subject = text_argument(state, 1), pattern = text_argument(state, 2);
  const std::size_t start = start_argument(state, 3, subject.size());
  if (start > subject.size()) {
    lua_pushnil(state);
    return 1;
  }
  const bool plain = find && (lua_toboolean(state, 4) || pattern.find_first_of("^$*+?.([%-") == pattern.npos);
  return plain ? find_plain(state, subject, pattern, start)
               : find_pattern(state, subject, pattern, start, find);
}

int string_find(lua_State* state) { return find_or_match(state, true); }
int string_match(lua_State* state) { return find_or_match(state, false); }

// Upvalues: subject, pattern, where to go on, where the last match ended (0-based; -1: none yet).
int gmatch_next(lua_State* state) {
  std::size_t length = 0, pattern_length = 0;
  const char* text = lua_tolstring(state, lua_upvalueindex(1), &length);
  const char* pattern = lua_tolstring(state, lua_upvalueindex(2), &pattern_length);
  const std::string_view subject(text, length);
  const auto start = static_cast<std::size_t>(lua_tointeger(state, lua_upvalueindex(3)));
  const lua_Integer last_end = lua_tointeger(state, lua_upvalueindex(4));
  pattern_matcher matcher(subject, {pattern, pattern_length}, steps_left(state));
  try {
    for (std::size_t at = start; at <= length; ++at) {
      const char* to = matcher.match(text + at);
      // An empty match where the last one ended would be found for ever.
      if (!to || to - text == last_end) continue;
      charge(state, matcher.steps() * ticks_per_step);
      lua_pushinteger(state, to - text);
      lua_copy(state, -1, lua_upvalueindex(3));
      lua_replace(state, lua_upvalueindex(4));
      return push_captures(state, matcher, subject, text + at, to, true);
    }
  } catch (const pattern_error& e) {
    raise(state, e, matcher.steps());
  }
  charge(state, matcher.steps() * ticks_per_step);
  return 0;
}

int string_gmatch(lua_State* state) {
  const std::string_view subject = text_argument(state, 1);
  text_argument(state, 2);
  const std::size_t start = std::min(start_argument(state, 3, subject.size()), subject.size() + 1);
  lua_settop(state, 2);
  lua_pushinteger(state, static_cast<lua_Integer>(start));
  lua_pushinteger(state, -1);
  lua_pushcclosure(state, gmatch_next, 4);
  return 1;
}

// One gsub: subject, pattern, and a replacement that is text with %0..%9, a table, or a function.
class substitution {
 public:
  substitution(lua_State* state, std::string_view subject, std::string_view pattern)
      : state_(state), subject_(subject), matcher_(subject, pattern, steps_left(state)) {
    luaL_buffinit(state, &result_);
  }

  // Leaves the new text and the number of replacements on the stack.
  int run(bool anchored, lua_Integer most) {
    const char* at = subject_.data();
    const char* const end = at + subject_.size();
    const char* last_end = nullptr;
    lua_Integer count = 0;
    while (count < most) {
      const char* to = matcher_.match(at);
      settle_steps();
      if (to && to != last_end) {
        ++count;
        replace(at, to);
        at = last_end = to;
      } else if (at < end) {
        luaL_addchar(&result_, *at++);
      } else {
        break;
      }
      if (anchored) break;
    }
    luaL_addlstring(&result_, at, static_cast<std::size_t>(end - at));
    luaL_pushresult(&result_);
    lua_pushinteger(state_, count);
    return 2;
  }

  std::int64_t unsettled_steps() const { return matcher_.steps() - settled_; }

 private:
  // A replacement function spends from the same budget, so steps are paid match by match.
  void settle_steps() {
    charge(state_, unsettled_steps() * ticks_per_step);
    settled_ = matcher_.steps();
  }

  void replace(const char* from, const char* to) {
    switch (lua_type(state_, 3)) {
      case LUA_TFUNCTION: {
        lua_pushvalue(state_, 3);
        const int captures = push_captures(state_, matcher_, subject_, from, to, true);
        lua_call(state_, captures, 1);
        break;
      }
      case LUA_TTABLE:
        push_capture(state_, matcher_, 0, subject_, from, to);
        lua_gettable(state_, 3);
        break;
      default:
        add_text(from, to);
        return;
    }
    if (!lua_toboolean(state_, -1)) {
      lua_pop(state_, 1);
      luaL_addlstring(&result_, from, static_cast<std::size_t>(to - from));
    } else if (!lua_isstring(state_, -1)) {
      luaL_error(state_, "invalid replacement value (a %s)", luaL_typename(state_, -1));
    } else {
      luaL_addvalue(&result_);
    }
  }

  void add_text(const char* from, const char* to) {
    std::size_t length = 0;
    const char* text = lua_tolstring(state_, 3, &length);
    for (std::size_t i = 0; i < length; ++i) {
      if (text[i] != '%') {
        luaL_addchar(&result_, text[i]);
        continue;
      }
      const char c = ++i < length ? text[i] : '\0';
      if (c == '%') {
        luaL_addchar(&result_, '%');
      } else if (c == '0') {
        luaL_addlstring(&result_, from, static_cast<std::size_t>(to - from));
      } else if (c >= '1' && c <= '9') {
        push_capture(state_, matcher_, c - '1', subject_, from, to);
        luaL_tolstring(state_, -1, nullptr);
        lua_remove(state_, -2);
        luaL_addvalue(&result_);
      } else {
        luaL_error(state_, "invalid use of '%%' in replacement string");
      }
    }
  }

  lua_State* const state_;
  const std::string_view subject_;
  pattern_matcher matcher_;
  std::int64_t settled_ = 0;
  luaL_Buffer result_;
};

int string_gsub(lua_State* state) {
  const std::string_view subject = text_argument(state, 1);
  std::string_view pattern = text_argument(state, 2);
  const int type = lua_type(state, 3);
  luaL_argexpected(state,
                   type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE,
                   3, "string/function/table");
  const lua_Integer most = luaL_optinteger(state, 4, static_cast<lua_Integer>(subject.size()) + 1);
  const bool anchored = !pattern.empty() && pattern.front() == '^';
  if (anchored) pattern.remove_prefix(1);
  substitution work(state, subject, pattern);
  try {
    return work.run(anchored, most);
  } catch (const pattern_error& e) {
    raise(state, e, work.unsettled_steps());
  }
}

// ---- time

// Seconds since 1970 (integer or float) to RFC 3339, UTC.
int iso_time(lua_State* state) {
  constexpr lua_Number first = -62'167'219'200, last = 253'402'300'799;  // years 0000 and 9999
  const lua_Number seconds = luaL_checknumber(state, 1);
  luaL_argcheck(state, seconds >= first && seconds <= last, 1, "seconds out of range (milliseconds?)");
  const lua_Number whole = std::floor(seconds);
  const auto micros = static_cast<std::int64_t>(std::llround((seconds - whole) * 1e6));
  const std::string text = format_time(from_micros(static_cast<std::int64_t>(whole) * 1'000'000 + micros));
  lua_pushlstring(state, text.data(), text.size());
  return 1;
}

// RFC 3339 to seconds since 1970: an integer when whole, else a float; nil when it is not a time.
int parse_time_text(lua_State* state) {
  const std::optional<timestamp> time = parse_time(text_argument(state, 1));
  if (!time) {
    lua_pushnil(state);
  } else if (const std::int64_t micros = to_micros(*time); micros % 1'000'000 == 0) {
    lua_pushinteger(state, micros / 1'000'000);
  } else {
    lua_pushnumber(state, static_cast<lua_Number>(micros) / 1e6);
  }
  return 1;
}

// ---- the rest

// Raising and catching costs some microseconds.
constexpr std::int64_t ticks_per_failure = 20'000;

// Like Lua's, but a limit that was reached ends the whole call.
int protected_call(lua_State* state) {
  luaL_checkany(state, 1);
  const int status = lua_pcall(state, lua_gettop(state) - 1, LUA_MULTRET, 0);
  const lua_budget& budget = context_of(state).budget;
  if (status == LUA_ERRMEM || budget.ticks > budget.most_ticks) return lua_error(state);
  if (status != LUA_OK) charge(state, ticks_per_failure);
  lua_pushboolean(state, status == LUA_OK);
  lua_insert(state, 1);
  return lua_gettop(state);
}

int refuse_assignment(lua_State* state) {
  return luaL_error(state, "'%s' cannot be assigned here", luaL_tolstring(state, 2, nullptr));
}

// Views of JSON objects and arrays answer "table", so that the same text works on views and on tables.
int type_name(lua_State* state) {
  luaL_checkany(state, 1);
  switch (lua_type(state, 1)) {
    case LUA_TUSERDATA:
      lua_pushliteral(state, "table");
      break;
    case LUA_TLIGHTUSERDATA:
      lua_pushliteral(state, "null");
      break;
    default:
      lua_pushstring(state, luaL_typename(state, 1));
  }
  return 1;
}

int null_to_text(lua_State* state) {
  lua_pushliteral(state, "null");
  return 1;
}

// Replaces the table on top by an empty one that reads from it and cannot be written.
void make_read_only(lua_State* state) {
  lua_newtable(state);
  lua_newtable(state);
  lua_rotate(state, -3, -1);
  lua_setfield(state, -2, "__index");
  lua_pushcfunction(state, refuse_assignment);
  lua_setfield(state, -2, "__newindex");
  lua_setmetatable(state, -2);
}

void remove(lua_State* state, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    lua_pushnil(state);
    lua_setfield(state, -2, name);
  }
}

// Opens one of Lua's libraries and leaves its table on the stack.
void open_library(lua_State* state, const char* name, lua_CFunction open) {
  luaL_requiref(state, name, open, 0);
}

void push_string_library(lua_State* state) {
  open_library(state, LUA_STRLIBNAME, luaopen_string);
  remove(state, {"dump", "pack", "packsize", "unpack"});
  for (const charged_function& f : {charged_function{"byte", text_length},
                                    {"format", text_length},
                                    {"lower", text_length},
                                    {"reverse", text_length},
                                    {"upper", text_length}})
    wrap_charged(state, f);
  lua_getfield(state, -1, "rep");
  lua_pushcclosure(state, string_rep, 1);
  lua_setfield(state, -2, "rep");
  const luaL_Reg ours[] = {{"find", string_find},
                           {"match", string_match},
                           {"gmatch", string_gmatch},
                           {"gsub", string_gsub},
                           {nullptr, nullptr}};
  luaL_setfuncs(state, ours, 0);
}

void push_table_library(lua_State* state) {
  open_library(state, LUA_TABLIBNAME, luaopen_table);
  for (const charged_function& f : {charged_function{"concat", joined_items},
                                    {"insert", inserted_items},
                                    {"remove", removed_items},
                                    {"move", moved_items},
                                    {"unpack", unpacked_items},
                                    {"sort", sort_length}})
    wrap_charged(state, f);
}

void push_utf8_library(lua_State* state) {
  open_library(state, LUA_UTF8LIBNAME, luaopen_utf8);
  for (const charged_function& f : {charged_function{"codepoint", text_length},
                                    {"codes", text_length},
                                    {"len", text_length},
                                    {"offset", text_length}})
    wrap_charged(state, f);
}

// Adds the library on top of the stack, read-only, to the table below it.
void add_library(lua_State* state, const char* name) {
  make_read_only(state);
  lua_setfield(state, -2, name);
}

}  // namespace

void open_sandbox(lua_State* state) {
  lua_newtable(state);
  open_library(state, LUA_GNAME, luaopen_base);
  for (const char* name : {"assert", "error", "ipairs", "next", "pairs", "select", "tonumber", "tostring"}) {
    lua_getfield(state, -1, name);
    lua_setfield(state, -3, name);
  }
  lua_pop(state, 1);

  push_string_library(state);
  add_library(state, "string");
  push_table_library(state);
  add_library(state, "table");
  push_utf8_library(state);
  add_library(state, "utf8");
  open_library(state, LUA_MATHLIBNAME, luaopen_math);
  remove(state, {"randomseed"});
  add_library(state, "math");
  push_json_library(state);
  add_library(state, "json");

  const luaL_Reg functions[] = {{"iso_time", iso_time},
                                {"parse_time", parse_time_text},
                                {"pcall", protected_call},
                                {"type", type_name},
                                {nullptr, nullptr}};
  luaL_setfuncs(state, functions, 0);
  lua_pushlightuserdata(state, nullptr);
  lua_newtable(state);
  lua_pushcfunction(state, null_to_text);
  lua_setfield(state, -2, "__tostring");
  lua_setmetatable(state, -2);  // of all light userdata; `null` is the only one
  lua_setfield(state, -2, "null");

  lua_pushvalue(state, -1);
  make_read_only(state);
  lua_pushvalue(state, -1);
  lua_rawseti(state, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

}  // namespace penstock::runtime
