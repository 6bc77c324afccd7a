// Fill-ins: Lua expressions inside a command's arguments and environment, ${params.region} or
// ${tasks.extract.output.rows + 1}. Found here, in one place, so that what is checked is what is filled in later.
// Pure, any thread.
//
// A fill-in is "${" and params, run, tasks, item or item_index, directly followed by '.', '[' or '}'. It ends at the next '}'
// outside of Lua quotes and inner braces. All other "${...}" is text: a reference to a secret, ${dir}, or a
// shell's affair. Secrets belong to the text parts alone: what an expression gives is never searched for
// references.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::config {

struct text_part {
  enum class kind { text, expression, unclosed };
  kind type = kind::text;
  std::string text;  // of an expression: the Lua between the braces; unclosed: all from "${" to the end
  bool operator==(const text_part&) const = default;
};

// The parts in order; neither empty texts nor two texts in a row. `unclosed` comes last, and never in a checked
// pipeline.
std::vector<text_part> split_fill_ins(std::string_view text);

// What is wrong with the first "${word.name}" whose word is a slip of a variable ("${parms.x}") or names a kind of
// secret ("${env.HOME}"), or nothing. No shell knows a name with a dot, and "${ word.name}" is left alone.
std::optional<std::string> fill_in_slip(std::string_view text);

// params, run, tasks, item, item_index.
bool is_fill_in_variable(std::string_view word);

}  // namespace penstock::config
