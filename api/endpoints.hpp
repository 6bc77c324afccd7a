// The table of all endpoints, bound to what they serve from.
#pragma once

#include <vector>

#include "api/context.hpp"
#include "api/server.hpp"

namespace penstock::api {

// `c` outlives the routes.
std::vector<route> make_routes(context& c);

}  // namespace penstock::api
