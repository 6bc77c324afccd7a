// The field `headers` of components that call others over HTTP or WebSocket: names, and values that may hold secret references.
//
// Pure but for the secrets; any thread. What always holds: what is handed on cannot end a header before its time, add another
// one or say how long the body is.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/field.hpp"
#include "runtime/component.hpp"

namespace penstock::runtime {

// Throws std::runtime_error that names the header, and shows no value: a name that is none (RFC 9110, section 5.1), or one by which
// a message is framed (Content-Length, Transfer-Encoding); a value with a line break or another control character (section 5.5).
void check_request_headers(const config::value& settings);

// Names and values, with secrets. Throws as check_request_headers().
std::vector<std::pair<std::string, std::string>> read_request_headers(const config::value& settings,
                                                                      const component_context& context);

// The same, each as libcurl takes one: "NAME: VALUE", and "NAME;" for one without a value (CURLOPT_HTTPHEADER).
std::vector<std::string> read_header_lines(const config::value& settings, const component_context& context);

}  // namespace penstock::runtime
