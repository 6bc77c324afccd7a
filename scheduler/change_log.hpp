// What has changed state, newest last, for whoever follows it: runs, flows and pipelines.
//
// Control thread; part of the surroundings. The last `most` changes are kept in memory, each with a number from 1; numbers
// begin anew with each start of the daemon, so a place is a number and the `life` it belongs to. A run's end is told once
// it is stored; what is told of a start may be told again after a crash. Costs a few hundred nanoseconds a change; followers
// are woken, never waited for.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/time.hpp"
#include "runtime/wakeup.hpp"
#include "scheduler/model.hpp"

namespace penstock::scheduler {

struct change {
  std::string_view kind;   // "run", "flow" or "pipeline"
  std::string pipeline;
  std::string name{};      // of the job or flow; of a pipeline itself: empty
  std::string run{};       // its id
  std::string state;       // of a run or flow; "registered", "replaced", "removed", "paused" or "resumed" of a pipeline
  std::string reason{};
  std::int64_t number = 0;  // set by add()
  timestamp at{};           // likewise
};

// As the run stands: with what it waits for, or why it ended so.
change change_of(const run_record& run);

class change_log {
 public:
  explicit change_log(std::string life, std::size_t most = 5'000) : life_(std::move(life)), most_(most) {}

  void add(change one);
  const std::string& life() const { return life_; }
  std::int64_t last() const { return last_; }
  // The least number that is still kept; one more than last() when there is none.
  std::int64_t first() const { return last_ - static_cast<std::int64_t>(kept_.size()) + 1; }
  // At most so many of those behind `number`, in order.
  std::vector<change> after(std::int64_t number, std::size_t limit) const;
  // Notified after each change, as long as somebody else holds it.
  void follow(const std::shared_ptr<runtime::wakeup>& follower) { followers_.push_back(follower); }

 private:
  const std::string life_;
  const std::size_t most_;
  std::deque<change> kept_;
  std::int64_t last_ = 0;
  std::vector<std::weak_ptr<runtime::wakeup>> followers_;
};

}  // namespace penstock::scheduler
