// Lua source as text: which names it mentions, plain field paths, and JSON written as a Lua literal. Pure functions, any
// thread. Internal to the lua*.cpp files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock::runtime {

// Whether `word` stands in the text as a name. May err on the safe side, but knows that 'event' is a text and that the
// last part of `order.event` is a field.
bool mentions(std::string_view text, std::string_view word);

// {"a", "b"} of `event.a.b`; empty when the text is anything else. The text was checked before, so no keyword stands
// there.
std::vector<std::string> plain_path(std::string_view text);

// The statement that gives `text` its `params` and `run`, on one line, so that line numbers stay:
// "local params, run = {…}, {…} ". Only what the text mentions is there; when that is nothing, or `run_context` is null,
// the statement is empty. `run_context` is the JSON {"params":…,"run":…}; a part that is missing is nil. Throws
// std::invalid_argument when it is not JSON or nested too deep.
//
// The literal reads as the JSON does everywhere else: fields that are null are absent, items that are null are `null`,
// the first of a repeated field counts, an integer is an integer (float beyond 64 signed bits). Nothing in the JSON can
// end the literal.
std::string run_locals(std::string_view text, const std::string* run_context);

}  // namespace penstock::runtime
