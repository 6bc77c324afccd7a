// A person's own words inside a message: on one line, cut when long, in quotes. Pure, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock::config {

// 'text', with control characters as spaces and at most 60 bytes of it (cut between characters).
std::string in_quotes(std::string_view text);

// "did you mean 'x'?" when a candidate is near, else "known: a, b, c" (at most 12 of them).
std::string suggestion(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace penstock::config
