// Chance, for what many do and shall not do at the same moment.
#pragma once

#include <random>

namespace penstock::runtime {

// In [least, most). Any thread.
inline double random_between(double least, double most) {
  thread_local std::minstd_rand source{std::random_device{}()};
  return std::uniform_real_distribution<double>(least, most)(source);
}

}  // namespace penstock::runtime
