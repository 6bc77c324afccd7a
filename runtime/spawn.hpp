// A new process out of this one: clone(2), what the child sets about itself, execve(2). No more.
//
// Made by process_launch only, on any thread; belongs to one caller. The child shares our memory until its program runs
// (CLONE_VM): nothing of this program is copied, however big it is. What always holds: until then it makes bare system
// calls only, on a stack of its own, and no signal handler of ours runs in it. What it reads of ours stays until it is
// gone or has become its program; the kernel tells by clearing a word (CLONE_CHILD_CLEARTID). A child that fails says
// where and why.
//
// The thread that makes it stands still until then (CLONE_VFORK; the kernel also spares us when it must kill such a child
// for its memory). But a child may be made ahead of the moment in which it is to start: it waits, with all set but its
// program, until it is let go or told to end, and meanwhile that thread goes on. One that waits ends with the thread
// that made it (PR_SET_PDEATHSIG), so with this program, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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
  // A futex of this process (futex(2), private) that the child waits for before its program: as long as it is 0. 1: it may
  // go on; else it ends. Null: it does not wait. Not together with `changes_user` or `cgroup`, nor where !children_can_wait.
  const std::uint32_t* leave = nullptr;
};

// Without a thread to stand by, a child needs system calls that leave the errno of that thread alone: known for these.
#if defined(__x86_64__) || defined(__aarch64__)
inline constexpr bool children_can_wait = true;
#else
inline constexpr bool children_can_wait = false;
#endif

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

class child_start {
 public:
  // Makes the child. `plan`, and all that it points to, stays until this is gone.
  explicit child_start(const spawn_plan& plan);
  ~child_start();  // kills a child that was not asked for, with its group, and waits until it is gone
  child_start(const child_start&) = delete;
  child_start& operator=(const child_start&) = delete;

  pid_t pid() const;  // 0: there is none
  // Once: blocks until the program runs or has failed; one that failed is gone then.
  spawned finish();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace penstock::runtime
