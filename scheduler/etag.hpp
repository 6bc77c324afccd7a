// The entity tag of a revision, and whether a list of tags, as in If-Match, holds it (RFC 9110, sections 8.8.3 and 13.1). Pure, any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::scheduler {

// A strong one, with its quotes.
std::string make_etag(std::int64_t revision, std::string_view text);

// strong: a weak tag (W/"...") is never equal, as If-Match wants it; weak: its mark does not count, as for If-None-Match.
enum class etag_comparison { strong, weak };

// `list`: *, or tags with commas between them; a tag stands in quotes and may itself hold commas. `etag`: a strong one, with quotes.
bool lists_etag(std::string_view list, std::string_view etag, etag_comparison how);

}  // namespace penstock::scheduler
