// Which of the daemon's variables a Lua expression mentions, read from its text without running it. Good enough to
// refuse slips early; what only shows at run time fails there. Pure, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::config {

// `params.region` and `params["region"]` name {"params", "region"}; `params` by itself, or with a key that has to be
// computed, names {"params", ""}.
struct lua_mention {
  std::string variable, key;
  bool operator==(const lua_mention&) const = default;
};

// The mentions of event, meta, params, run, tasks, item and item_index, in order; each pair once. What stands in
// strings, comments, behind a dot or as a key in {braces} is none. Nothing is said of a text with a function in it,
// whose own variables may have these names.
std::vector<lua_mention> lua_mentions(std::string_view expression);

// What is wrong with a text that looks into something of no such name, "evnt.total" or "Params.x", where the name is
// most likely a slip of one of these variables; or nothing.
std::optional<std::string> lua_slip(std::string_view expression);

}  // namespace penstock::config
