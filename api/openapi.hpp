// The document at /openapi.json: OpenAPI 3.1, made from the rules of the same endpoints that are routed (endpoints.cpp), the table of
// parameters (query_rules.hpp) and the schemas of schemas.json. Pure, any thread; made once, at the start.
//
// What follows from the rules of an endpoint is not written in its row: which problems it may answer (a body: 413, 415, 422; a path
// with parameters: 404; a role: 401, 403; ...), its tag, its security.
#pragma once

#include <string>
#include <vector>

#include "api/server.hpp"

namespace penstock::api {

// Throws std::logic_error for a schema that is named and not there, and a parameter that query_rules.hpp lacks.
std::string openapi_text(const std::vector<endpoint_rules>& endpoints);

// The word for an access in the document and in what is told to people: "read", "open", ...
std::string_view token(access needed);

}  // namespace penstock::api
