// Query parameters and pages: text of a request to checked values. Pure, any thread.
//
// A list is read page by page: `next_cursor` is opaque to the client (base64url of the list's name and the
// position of the last item shown); a cursor of another list, or anything else, is errc::malformed.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/http.hpp"
#include "api/query_rules.hpp"
#include "config/error.hpp"
#include "config/time.hpp"

namespace penstock::api {

struct page {
  std::size_t limit = 100;
  std::string after{};  // position of the last item seen; empty: from the beginning
};

// `limit` (1 to 1000) and `cursor` of a request to the list `name`.
result<page> read_page(const request& r, std::string_view name);
std::string make_cursor(std::string_view name, std::string_view position);

// Absent: nothing. Otherwise errc::malformed names the parameter and what it takes.
result<std::optional<std::int64_t>> read_integer(const request& r, const parameter_rules& rules);
result<std::string> read_word(const request& r, const parameter_rules& rules);  // absent: empty
result<std::vector<std::string>> read_words(const request& r, const parameter_rules& rules);
result<bool> read_flag(const request& r, std::string_view name);  // absent: false; without a value: true
result<std::optional<timestamp>> read_time(const request& r, std::string_view name);
result<std::optional<std::chrono::nanoseconds>> read_duration(const request& r, std::string_view name,
                                                              std::chrono::nanoseconds most);

// RFC 4648 section 5, without padding.
std::string base64url(std::string_view bytes);
std::optional<std::string> base64url_decode(std::string_view text);

}  // namespace penstock::api
