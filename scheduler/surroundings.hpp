// What every object of the control plane needs from around it, made once by the supervisor and passed by reference.
// Lives as long as the supervisor; control thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/component.hpp"
#include "runtime/registry.hpp"
#include "runtime/wakeup.hpp"
#include "scheduler/store.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::scheduler {

// How many runs the whole daemon executes at once. Whoever finds none free is woken when one becomes free.
class run_slots {
 public:
  explicit run_slots(std::int64_t most) : free_(most) {}

  bool take() {
    if (free_ == 0) return false;
    --free_;
    return true;
  }
  void give_back() {
    ++free_;
    // All of them, because the first may not want it any more; who still does takes it or waits again, in this order.
    for (const auto& waiting : std::exchange(waiting_, {})) waiting->notify();
  }
  bool any_free() const { return free_ > 0; }
  void wake_when_free(const std::shared_ptr<runtime::wakeup>& who) {
    if (std::find(waiting_.begin(), waiting_.end(), who) == waiting_.end()) waiting_.push_back(who);
  }

 private:
  std::int64_t free_;
  std::vector<std::shared_ptr<runtime::wakeup>> waiting_;
};

class live_run;

// A run about to be stored, admitted already. `settle(true)` is called once it is durable (it then waits or starts),
// `settle(false)` when it could not be stored; exactly one of them, on the control thread.
struct prepared_run {
  new_run made;
  std::function<void(bool stored)> settle;
};

struct surroundings {
  executors where;
  scheduler::store& store;
  runtime::services& offered;
  const runtime::registry& components;
  supervisor_options options;
  run_slots slots;
  std::map<std::string, std::shared_ptr<live_run>> unfinished{};  // every run that is not final, by id
  int hanging_tasks = 0;  // given up on, but a thread still waits in their sink
  // The runs that other jobs' `after` triggers make of a run that ends now.
  std::function<std::vector<prepared_run>(const run_record& ended)> dependents{};
};

}  // namespace penstock::scheduler
