// Failures as HTTP: which status an errc has, and RFC 9457 problem documents. Pure, any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "api/http.hpp"
#include "config/error.hpp"

namespace penstock::api {

int http_status(errc code);

// application/problem+json with type ("/problems/not_found"), title, status, detail and, where there are
// some, errors
// [{pointer, line, column, detail}]. Adds Retry-After for what may be tried again (RFC 9110 section 10.2.3).
response problem_response(const error& e);

// 406 that lists what there is (RFC 9110 section 15.5.7).
response not_acceptable(const request& r, std::span<const std::string_view> offers);

// The same for what only HTTP knows: `token` names the type, e.g. "method_not_allowed".
response problem_response(int status, std::string_view token, std::string detail);

}  // namespace penstock::api
