// What every object of the control plane needs from around it, made once by the supervisor and passed by reference.
// Lives as long as the supervisor; control thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/component.hpp"
#include "runtime/registry.hpp"
#include "runtime/ulid.hpp"
#include "runtime/wakeup.hpp"
#include "scheduler/arrivals.hpp"
#include "scheduler/audit_desk.hpp"
#include "scheduler/change_log.hpp"
#include "scheduler/dispatcher.hpp"
#include "scheduler/late_starts.hpp"
#include "scheduler/run_tally.hpp"
#include "scheduler/store.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::scheduler {

class live_run;

// A run about to be stored, admitted already. `settle(true)` is called once it is durable (it then waits or starts),
// `settle(false)` when it could not be stored; exactly one of them, on the control thread.
struct prepared_run {
  new_run made;
  std::function<void(bool stored)> settle;
  arrivals::guard on_its_way{};
};

struct surroundings {
  executors where;
  scheduler::store& store;
  runtime::services& offered;
  const runtime::registry& components;
  supervisor_options options;
  dispatcher room;
  std::shared_ptr<runtime::wakeup> alerts_wait;  // notified when an alert was stored
  std::map<std::string, std::shared_ptr<live_run>> unfinished{};  // every run that is not final, by id
  arrivals arriving{where.control};                               // those that are about to be among them
  late_starts starts{where.control, store};
  change_log changes{runtime::make_ulid()};
  audit_desk audit{where.control, store, options.keep_audit};
  int ends_unstored = 0;  // runs of which nothing runs any more and whose end is on its way to the store
  int hanging_tasks = 0;  // given up on, but a thread still waits in their sink
  std::map<std::string, std::map<std::string, run_tally>> tallies{};  // by pipeline, then job
  // An end is told once, when it is stored.
  void tell(const run_record& run) {
    changes.add(change_of(run));
    if (is_final(run.state)) tallies[run.pipeline][run.job].add(run);
  }
  // Of a run that was skipped when it was made nobody else tells.
  void tell_if_over(const run_record& made) {
    if (is_final(made.state)) tell(made);
  }
  // The runs that other jobs' `after` triggers make of a run that ends now.
  std::function<std::vector<prepared_run>(const run_record& ended)> dependents{};
};

}  // namespace penstock::scheduler
