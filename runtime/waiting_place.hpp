// A request's place among those that wait until what they brought is stored. So many wait at once and no more: whoever gets
// no place is refused.
//
// Control thread. Who stores it owns the count (a topic, the runs of a job) and outlives the place.
#pragma once

#include <cstddef>

namespace penstock::runtime {

class waiting_place {
 public:
  // One of `taken` as long as it lives. False, and not counted: `most` are taken.
  waiting_place(std::size_t& taken, std::size_t most) : taken_(taken < most ? &taken : nullptr) {
    if (taken_) ++*taken_;
  }
  ~waiting_place() {
    if (taken_) --*taken_;
  }
  waiting_place(const waiting_place&) = delete;
  waiting_place& operator=(const waiting_place&) = delete;
  explicit operator bool() const { return taken_ != nullptr; }

 private:
  std::size_t* const taken_;
};

}  // namespace penstock::runtime
