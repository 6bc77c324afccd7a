// Expressions over a run: conditions of tasks, lists to fan out over, overlap keys, and the fill-ins of commands.
//
// They are Lua as everywhere (lua.hpp: same sandbox, same limits, on whatever thread calls), but see the run instead of an
// event. Their context is one JSON text,
//   {"params":{…},"run":{…},"tasks":{NAME:{"state":…,"exit_code":…,"output":{…}}},"item":…,"item_index":n,"event":{…}}
// of which any part may be missing; it is nil then. Fields are read lazily, null reads as nil. `meta` is always nil.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "config/error.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime {

// Cheap to copy; usable on any thread, one at a time. What fails says so in the words of the writer's own text.
class run_expression {
 public:
  explicit run_expression(std::string text);  // syntax was checked with check_lua before

  lua_outcome<bool> truth(const std::string& context) const;  // nil and false are false, as in Lua
  // The value as JSON; null where it is nil.
  lua_outcome<std::string> json(const std::string& context) const;
  // Strings as they are, numbers and booleans, tables as JSON; nothing where it is nil.
  lua_outcome<std::optional<std::string>> text_if_any(const std::string& context) const;
  // The same; empty where it is nil.
  lua_outcome<std::string> text(const std::string& context) const;
  // text() over the context {"event": payload of e}.
  lua_outcome<std::string> text(const event& e) const;

 private:
  lua_expression over_context_, over_event_;
};

// The text with its fill-ins (config/fill_in.hpp) replaced by what they are in this context; all other `${…}` stays.
// errc::invalid names the first one that fails or is nil: "${params.region} has no value". `of_plain`, when given, is
// called with what stands between them and gives what to write there; that is the place to fill in secrets, because
// then a parameter cannot name one.
result<std::string> fill_in(std::string_view text, const std::string& context,
                            const std::function<std::string(const std::string&)>& of_plain = {});

// What is wrong with the fill-ins of a text: one that is not closed or is no expression. Or nothing.
std::optional<std::string> check_fill_ins(std::string_view text);

}  // namespace penstock::runtime
