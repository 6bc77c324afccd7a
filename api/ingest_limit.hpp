// How many requests that bring events are being stored at once: a flood of them is refused instead of being kept waiting.
//
// A burst is no flood. What comes beyond the limit is taken in too, four times the limit at once and as many again within the
// minute that follows; only an excess that lasts longer is refused. Control thread.
#pragma once

#include <cstddef>
#include <memory>

#include "scheduler/token.hpp"

namespace penstock::api {

class ingest_limit {
 public:
  using clock = scheduler::token_bucket::clock;
  using place = std::shared_ptr<const void>;  // of a request, until its events are stored; it may outlive the limit

  explicit ingest_limit(std::size_t most)
      : most_(most), beyond_({.per_second = 4.0 / 60 * static_cast<double>(most), .burst = static_cast<int>(4 * most)}) {}

  // Null: the request is to be refused.
  place enter(clock::time_point now) {
    if (*inside_ >= most_ && beyond_.take(now)) return nullptr;
    ++*inside_;
    return place(inside_.get(), [inside = inside_](const void*) { --*inside; });
  }

 private:
  const std::size_t most_;
  const std::shared_ptr<std::size_t> inside_ = std::make_shared<std::size_t>(0);
  scheduler::token_bucket beyond_;
};

}  // namespace penstock::api
