// Conditional requests (RFC 9110, section 13) and documents that stay as they are while the daemon runs. Pure, any thread.
// (If-Match is checked where the change is made, by scheduler/etag.hpp, so that nothing comes in between.)
#pragma once

#include <string>
#include <string_view>

#include "api/http.hpp"

namespace penstock::api {

// If-None-Match holds `etag`, or is *: what the client has is still right. Weak tags count here.
bool client_has(const request& r, std::string_view etag);

// A reply with its ETag header: 304 without body when the client has it already.
response unless_known(const request& r, response reply, const std::string& etag);

// Made once, sent often.
struct fixed_document {
  std::string_view content_type;
  std::string text;
  std::string etag;
};

fixed_document make_document(std::string_view content_type, std::string text);
response send_document(const request& r, const fixed_document& document);

}  // namespace penstock::api
