// The limits of one program: how each is set on this machine, what cannot be set, and whether one of them explains
// how the program ended.
//
// Memory, processors and the number of processes are limited by a control group, if the daemon may make one: for all
// processes of the program together. Else memory is limited for each process (RLIMIT_AS), processes together with
// all others of the same user (RLIMIT_NPROC), and processors not at all. The rest is setrlimit(2), for each process.
// Owned by one command_run, on its strand; the program's group is gone when this is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "runtime/cgroup.hpp"
#include "runtime/process.hpp"

namespace penstock::runtime {

class run_limits {
 public:
  // `nice`: the program's own, added to the calling thread's. `tree` null: no control groups. `label`: see
  // cgroup_tree::make_group.
  run_limits(const config::resource_limits& wanted, int nice, cgroup_tree* tree, const std::string& label);

  const std::vector<process_limit>& of_each_process() const { return each_; }
  cgroup* group() const { return group_.get(); }               // null: none
  const std::vector<std::string>& notes() const { return notes_; }  // for the log: what is not limited, and why

  // How it ended, when a limit was the cause: "killed: over its memory limit of 64MiB". Else empty. `by_itself`: we had
  // not told it to end.
  std::string cause_of(const process_end& end, bool by_itself) const;
  // What is worth knowing about one that failed: "memory limited to 64MiB for each process (no cgroup): its peak was
  // 60MiB". May be empty.
  std::string remark_on(const process_end& end) const;

 private:
  void make_group(int nice, cgroup_tree* tree, const std::string& label);
  void limit_each_process();
  void limit(int resource, std::int64_t most, const std::string& what);

  const config::resource_limits wanted_;
  std::vector<process_limit> each_;
  std::unique_ptr<cgroup> group_;
  bool memory_by_group_ = false, processes_by_group_ = false;
  std::int64_t own_memory_ = 0;  // the most that this program had in memory before the start
  std::vector<std::string> notes_;
};

}  // namespace penstock::runtime
