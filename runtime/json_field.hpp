// One field of a JSON object set in its text; all other bytes stay as they are. Pure, any thread.
#pragma once

#include <string>
#include <string_view>

namespace penstock::runtime {

// Appends `object` to `out` with the field `name` set to `value` (JSON): behind the last field, or in the place of the
// first of that name. `object` is a payload (padded, see event.hpp). Returns what is wrong, and then appends nothing:
// it is no JSON object.
std::string append_with_field(std::string& out, std::string_view object, std::string_view name,
                              std::string_view value);

}  // namespace penstock::runtime
