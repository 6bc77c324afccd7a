// A new process out of this one: clone(2), what the child sets about itself, execve(2). No more.
//
// Called by start_process() only, from any thread, which stands still until the program runs (CLONE_VFORK)
// and whose memory the child shares until then (CLONE_VM): nothing of this program is copied, however big it
// is. What always holds: between the two the child makes system calls only, and no signal handler of ours
// runs in it. A child that fails says where and why, and is gone when spawn() returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sys/types.h>

#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

struct spawn_limit {
  int resource;              // RLIMIT_...
  std::uint64_t soft, hard;  // as setrlimit(2) takes them
};

// Pointers belong to the caller.
struct spawn_plan {
  const char* program;  // seen from `folder`
  char* const* arguments;
  char* const* environment;
  const char* folder;
  int in, out, err;     // become 0, 1 and 2; all others are closed
  int cgroup = -1;      // an open cgroup.procs; -1: it stays where we are
  int nice = 0;         // added to the calling thread's; 19 is the end
  int io_priority = 0;  // as ioprio_set(2) takes it; 0: the calling thread's
  int umask = -1;       // -1: ours
  const spawn_limit* limits = nullptr;
  std::size_t limit_count = 0;
  bool changes_user = false;  // to these; the supplementary groups stay when `groups` is null
  uid_t uid = 0;
  gid_t gid = 0;
  const gid_t* groups = nullptr;
  std::size_t group_count = 0;
};

// In the order in which they are taken. (As the new user it enters the folder and executes the program; all
// that needs privileges comes before.)
enum class spawn_step {
  none,
  clone,
  process_group,
  cgroup,
  priority,
  io_priority,
  descriptors,
  umask,
  limit,
  groups,
  gid,
  uid,
  folder,
  execute
};

struct spawned {
  pid_t pid = 0;
  unique_fd exit{};                            // pidfd, close-on-exec
  spawn_step failed_step = spawn_step::none;  // else there is no process, and
  int error_number = 0;                        // why
  std::size_t failed_limit = 0;                // which of `limits`
};

spawned spawn(const spawn_plan& plan);

}  // namespace penstock::runtime
