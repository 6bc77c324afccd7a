// How the runs of a job have ended since the daemon started: for rates and means in /metrics, where the count of kept runs
// would go down with each that retention deletes. Plain values; control thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>

#include "scheduler/model.hpp"

namespace penstock::scheduler {

struct run_tally {
  std::map<run_state, std::int64_t> ended{};
  std::int64_t started = 0;             // of the ended ones, those that had begun
  std::chrono::microseconds waited{};   // of these, from being made to the first start
  std::chrono::microseconds lasted{};   // and from there to the end, pauses between attempts included

  // `run` has just ended.
  void add(const run_record& run) {
    ++ended[run.state];
    if (!run.started_at || !run.ended_at) return;
    const auto between = [](timestamp from, timestamp until) {
      // The clock may have been set back meanwhile; a sum must not.
      return std::max(std::chrono::microseconds(0), std::chrono::duration_cast<std::chrono::microseconds>(until - from));
    };
    ++started;
    waited += between(run.created_at, *run.started_at);
    lasted += between(*run.started_at, *run.ended_at);
  }
};

}  // namespace penstock::scheduler
