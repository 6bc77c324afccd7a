// Lua patterns: our matcher, which counts its steps, finds what Lua's own finds.
// Input: a pattern, then the subject, which may have many lines.
#include <string>

#include <lua.hpp>

#include "runtime/lua_patterns.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

constexpr std::int64_t most_steps = 20'000;  // where ours is done by then, so is Lua's

// "from to capture capture …", "none", or nothing when it is no pattern.
std::string found_by_lua(std::string_view pattern, std::string_view subject) {
  lua_State* state = luaL_newstate();
  luaL_openlibs(state);
  lua_getglobal(state, "string");
  lua_getfield(state, -1, "find");
  lua_pushlstring(state, subject.data(), subject.size());
  lua_pushlstring(state, pattern.data(), pattern.size());
  const int below = lua_gettop(state) - 3;
  std::string out;
  if (lua_pcall(state, 2, LUA_MULTRET, 0) == LUA_OK) {
    for (int i = below + 1; i <= lua_gettop(state); ++i) {
      std::size_t size = 0;
      const char* text = lua_isnil(state, i) ? "none" : luaL_tolstring(state, i, &size);
      out.append(size > 0 ? std::string(text, size) : lua_isnil(state, i) ? "none" : "").append(" ");
      if (!lua_isnil(state, i)) lua_pop(state, 1);
    }
  }
  lua_close(state);
  return out;
}

std::string found_by_us(std::string_view pattern, std::string_view subject) {
  const bool anchored = pattern.starts_with('^');
  if (anchored) pattern.remove_prefix(1);
  runtime::pattern_matcher matcher(subject, pattern, most_steps);
  for (const char* at = subject.data(); at <= subject.data() + subject.size(); ++at) {
    if (const char* end = matcher.match(at)) {
      std::string out = std::to_string(at - subject.data() + 1) + " " + std::to_string(end - subject.data()) + " ";
      for (int i = 0; i < matcher.captures(); ++i) {
        const auto& c = matcher.captured(i);
        const bool position = c.length == runtime::pattern_matcher::capture::position;
        out += (position ? std::to_string(c.start - subject.data() + 1) : std::string(c.start, static_cast<std::size_t>(c.length))) + " ";
      }
      return out;
    }
    if (anchored) break;
  }
  return "none ";
}

}  // namespace

void try_input(std::string_view text) {
  const std::string_view pattern = take_line(text);
  std::string ours;
  try {
    ours = found_by_us(pattern, text);
  } catch (const runtime::pattern_error&) {
    return;  // no pattern, or too many steps
  }
  if (pattern.find_first_of("^$*+?.([%-") == pattern.npos) return;  // Lua looks for it as it stands, without its matcher
  const std::string theirs = found_by_lua(pattern, text);
  require(ours == theirs, "Lua finds the same", ours + "/ " + theirs);
}

}  // namespace penstock::fuzz
