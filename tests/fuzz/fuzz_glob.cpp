// Patterns of file triggers: any pattern against any name; a name without wildcards is its own pattern.
// Input: a pattern, then a name, one a line.
#include <string>

#include "runtime/folder_watch.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

void try_input(std::string_view text) {
  // As config/ and file systems have them: no NUL, and a name is at most 255 bytes.
  const std::string pattern(take_line(text)), name(take_line(text));
  if ((pattern + name).find('\0') != std::string::npos || name.empty() || name.size() > 255 || pattern.size() > 255) return;
  const bool matches = runtime::matches_arrival(pattern, name);
  require(matches == runtime::matches_arrival(pattern, name), "the same each time");
  const bool plain = name.find_first_of("*?[]\\") == std::string::npos;
  for (const char c : name) {
    if (static_cast<unsigned char>(c) >= 0x80) return;
  }
  if (plain) require(runtime::matches_arrival(name, name), "a plain name matches itself", name);
  if (plain && name.front() == '.') require(!runtime::matches_arrival("*", name), "* leaves hidden files alone", name);
}

}  // namespace penstock::fuzz
