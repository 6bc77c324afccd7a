// What is allowed in a definition but likely a slip: a topic that nothing here declares, a bound that changes nothing,
// a job that starts itself. For a definition without problems. Pure, any thread.
#pragma once

#include <vector>

#include "config/place.hpp"

namespace penstock::config {

// Sorted by position.
std::vector<problem> find_warnings(const place& document);

}  // namespace penstock::config
