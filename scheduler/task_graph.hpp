// The order of a run's tasks: what may start, what is skipped, what fans out. Pure; expressions are evaluated by the
// caller, who answers.
//
// Owned by live_run for one attempt; control thread. Records are those of the run: one for each task of the definition,
// in its order, and behind them the instances of tasks that fan out, named TASK[0], TASK[1], …. The graph keeps no
// reference to them; it is told what happens and refers to them by index.
//
// A task is considered once all its needs have ended. Without `if` it starts when all of them succeeded (or failed or
// timed out with allow_failure), else it is skipped. With `if` the caller evaluates the condition: it starts or is
// skipped. A task that fans out is expanded instead of started; it runs at most max_parallel instances at once, and
// ends when the last instance has: succeeded if all did, else failed. A task with instances of an earlier attempt that
// is skipped, or fails before they run, has those of them skipped that had not succeeded. Each step is told once. Work
// in all is proportional to the number of tasks, instances and needs.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "scheduler/model.hpp"

namespace penstock::scheduler {

struct task_step {
  enum class action {
    start,   // the record's command or dataflow
    skip,    // for good; `reason` says why
    decide,  // evaluate its `if`, then decided()
    expand,  // evaluate its for_each, add records behind the last one, then expanded()
    end,     // a task that fans out has ended, with `state` and `reason`; the graph counts it as ended already
  };
  action what{};
  std::size_t record = 0;
  std::string reason{};
  run_state state{};  // end
  bool operator==(const task_step&) const = default;
};

class task_graph {
 public:
  // Begins an attempt: what has succeeded in an earlier one stays so (with its instances); all else is to be done
  // again. Instances that are there are not expanded a second time. `job` must outlive the graph.
  task_graph(const config::job& job, const std::vector<task_record>& records);
  ~task_graph();

  // What can be done now.
  std::vector<task_step> next();

  void decided(std::size_t record, bool holds);
  // Instances `first` to `first + count - 1`. None: the task has succeeded, which next() tells as `end`.
  void expanded(std::size_t record, std::size_t first, std::size_t count);
  // A started record has ended, in a final state (else std::logic_error); or one that could not be decided or expanded
  // has failed. What was not started, or has ended before, is ignored.
  void ended(std::size_t record, run_state how);

  // Nothing was started that has not ended, and next() has nothing more to say.
  bool idle() const;
  // The name of the task whose record or instance this is: its index in job.tasks.
  std::size_t task_of(std::size_t record) const;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

// "render[3]"
std::string instance_name(const std::string& task, std::size_t index);

}  // namespace penstock::scheduler
