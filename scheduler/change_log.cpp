#include "scheduler/change_log.hpp"

#include <algorithm>
#include <utility>

namespace penstock::scheduler {

change change_of(const run_record& run) {
  return {.kind = "run",
          .pipeline = run.pipeline,
          .name = run.job,
          .run = run.id,
          .state = std::string(token(run.state)),
          .reason = is_final(run.state) ? run.reason : run.waiting_reason};
}

void change_log::add(change one) {
  one.number = ++last_;
  one.at = wall_now();
  kept_.push_back(std::move(one));
  if (kept_.size() > most_) kept_.pop_front();
  std::erase_if(followers_, [](const auto& follower) {
    const auto still = follower.lock();
    if (still) still->notify();
    return !still;
  });
}

std::vector<change> change_log::after(std::int64_t number, std::size_t limit) const {
  const auto begin = std::clamp<std::int64_t>(number + 1 - first(), 0, static_cast<std::int64_t>(kept_.size()));
  const auto from = kept_.begin() + begin;
  const auto count = std::min<std::ptrdiff_t>(kept_.end() - from, static_cast<std::ptrdiff_t>(limit));
  return {from, from + count};
}

}  // namespace penstock::scheduler
