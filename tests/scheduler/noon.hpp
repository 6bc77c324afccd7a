// The time at which tests begin.
#pragma once

#include "config/time.hpp"

namespace penstock::testing {

inline const timestamp noon = from_micros(1'800'000'000'000'000);

}  // namespace penstock::testing
