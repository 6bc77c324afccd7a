// Control groups (cgroup v2): one for each program whose memory, processors or number of processes is limited, so
// that the limit holds for all of its processes together and none of them gets away.
//
// `cgroup_tree` is made once by the daemon, before anything runs, and outlives every cgroup made from it:
//   BASE/daemon/   this program (a group that has controllers may hold no processes itself: the kernel's
//                  "no internal processes" rule)
//   BASE/run-*/    one for each program; what a killed daemon left of them is ended and removed at the start
// BASE is the group that this program is started in; it must have been given to it (systemd: Delegate=yes).
// Rules: the kernel's Documentation/admin-guide/cgroup-v2.rst; whose a group is: systemd's CGROUP_DELEGATION.
// Making groups is safe from any thread; a cgroup belongs to one run.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "config/error.hpp"
#include "runtime/process.hpp"

namespace penstock::runtime {

class cgroup_tree;

// Absent: not limited.
struct cgroup_limits {
  std::optional<std::int64_t> memory{};  // bytes
  std::optional<double> cpus{};
  std::optional<std::int64_t> processes{};
  int niceness = 0;  // against BASE/daemon: the kernel shares processors between groups first, as if each were one program
};

class cgroup {
 public:
  cgroup(cgroup_tree& tree, std::filesystem::path folder, unique_fd procs);
  ~cgroup();  // ends what is still in it
  cgroup(const cgroup&) = delete;
  cgroup& operator=(const cgroup&) = delete;

  // For process_start::cgroup.
  int procs() const { return procs_.get(); }
  // Who runs in it, at most `most`. Throws when the machine is out of descriptors.
  std::vector<process> members(std::size_t most) const;
  // SIGKILL to all of them at once; they have not ended yet when it returns.
  void kill();
  // How often the kernel killed for its memory limit, and refused a process for its limit of those.
  std::int64_t memory_kills() const;
  std::int64_t refused_processes() const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  cgroup_tree& tree_;
  const std::filesystem::path folder_;
  unique_fd procs_;
};

class cgroup_tree {
 public:
  // The tree below this program's own group. errc::unavailable: it may not make groups; the text says why.
  static result<std::unique_ptr<cgroup_tree>> of_this_process(
      const std::filesystem::path& mount = "/sys/fs/cgroup",
      const std::filesystem::path& own = "/proc/self/cgroup");
  // The same below `base`, whoever was given it; this program moves only if it is in `base` itself.
  static result<std::unique_ptr<cgroup_tree>> make(const std::filesystem::path& base);
  ~cgroup_tree();  // leaves BASE as it was found
  cgroup_tree(const cgroup_tree&) = delete;
  cgroup_tree& operator=(const cgroup_tree&) = delete;

  // Which limits it can set: those whose controllers BASE was given.
  bool limits_memory() const { return memory_; }
  bool limits_cpus() const { return cpus_; }
  bool limits_processes() const { return processes_; }

  // `label` is for people who look at the machine, e.g. "RUN/TASK". Only limits that it can set. errc::unavailable: not
  // made, and why.
  result<std::unique_ptr<cgroup>> make_group(const std::string& label, const cgroup_limits& limits);

 private:
  friend class cgroup;
  explicit cgroup_tree(std::filesystem::path base) : base_(std::move(base)) {}
  result<void> settle();
  void remove(const std::filesystem::path& folder);

  const std::filesystem::path base_;
  bool moved_ = false;  // this program is in BASE/daemon
  bool memory_ = false, cpus_ = false, processes_ = false;
  std::atomic<std::int64_t> made_{0};
  std::mutex mutex_;
  std::vector<std::filesystem::path> not_removed_;  // the kernel had not let go of their last process
};

// "/system.slice/penstock.service" out of the text of /proc/self/cgroup: the v2 line. Nothing: there is none.
std::optional<std::string> own_cgroup(const std::string& text);

}  // namespace penstock::runtime
