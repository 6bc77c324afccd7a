// What all endpoints have in common: a request goes through here between the server and its handler.
//
// In order: is the daemon serving this now; is the body of a type that is read here; can the answer have a form that the client
// takes (RFC 9110 section 12); then the handler; then its JSON as text for a terminal, if that is what the client wants; and for
// what changes something an entry of the audit log. Control thread; `c` and the endpoint outlive the answer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "api/context.hpp"
#include "api/http.hpp"
#include "api/resource_text.hpp"
#include "api/server.hpp"

namespace penstock::api {

struct endpoint {
  endpoint_rules rules;
  asio::awaitable<response> (*handle)(request&, context&);
  std::string (*text)(const shown_json&) = nullptr;  // of its JSON, for a terminal
};

// Media types that its answers may have when all is well, each once.
std::vector<std::string_view> offers_of(const endpoint_rules& rules);

asio::awaitable<response> serve(const endpoint& e, request& r, context& c, const std::vector<std::string_view>& offers);

}  // namespace penstock::api
