// When something is due: the earlier of two times, where there may be none, and a time of day on the clock that waits go by.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

#include "config/time.hpp"

namespace penstock::scheduler {

inline std::optional<timestamp> earlier(std::optional<timestamp> a, std::optional<timestamp> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

inline std::chrono::steady_clock::time_point steady_time(timestamp wall) {
  using std::chrono::steady_clock;
  return steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(wall - wall_now());
}

}  // namespace penstock::scheduler
