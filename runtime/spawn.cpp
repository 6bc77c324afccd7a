#include "runtime/spawn.hpp"

#include <cerrno>
#include <climits>
#include <fcntl.h>
#include <mutex>
#include <new>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
extern "C" int __clone(int (*run)(void*), void* stack, int flags, void* argument, ...);  // glibc's other name of clone()
#endif

namespace penstock::runtime {

namespace {

// ---- in the child -------------------------------------------------------------------------------
//
// It has its own descriptors, signal dispositions and credentials, but our memory and the suspended thread's
// errno. So: no sanitizer's bookkeeping, no allocation, and bare system calls (glibc's setresuid() would make
// all threads of this program change theirs).
#ifdef __clang__
#define PENSTOCK_IN_CHILD [[clang::no_sanitize("address", "undefined", "thread", "coverage")]]
#else
#define PENSTOCK_IN_CHILD [[gnu::no_sanitize("address,undefined,thread")]]
#endif

struct child_work {
  const spawn_plan* plan;
  spawned* result;
};

constexpr int signals = 64;                    // of the kernel
constexpr std::size_t signal_set_bytes = signals / 8;
constexpr int ioprio_who_process = 1;

PENSTOCK_IN_CHILD bool fail(spawned& result, spawn_step step) {
  result.error_number = errno;
  result.failed_step = step;
  return false;
}

// Ignored signals would stay ignored, and a handler of ours must not run once they are no longer blocked.
// SIGKILL and SIGSTOP refuse, which is fine.
PENSTOCK_IN_CHILD void reset_signals() {
  const std::uint64_t defaults[4] = {};  // struct sigaction as the kernel has it: SIG_DFL, nothing else
  for (int signal = 1; signal <= signals; ++signal)
    ::syscall(SYS_rt_sigaction, signal, defaults, nullptr, signal_set_bytes);
}

PENSTOCK_IN_CHILD bool set_priorities(const spawn_plan& plan, spawned& result) {
  if (plan.nice != 0) {
    const long inverted = ::syscall(SYS_getpriority, PRIO_PROCESS, 0);  // 20 - niceness: getpriority(2)
    const long wanted = 20 - inverted + plan.nice;
    if (inverted < 0 || ::syscall(SYS_setpriority, PRIO_PROCESS, 0, wanted < 19 ? wanted : 19) != 0)
      return fail(result, spawn_step::priority);
  }
  if (plan.io_priority != 0 && ::syscall(SYS_ioprio_set, ioprio_who_process, 0, plan.io_priority) != 0)
    return fail(result, spawn_step::io_priority);
  return true;
}

// Those that are among 0, 1 and 2 themselves get out of the way first.
PENSTOCK_IN_CHILD bool set_descriptors(const spawn_plan& plan, spawned& result) {
  int given[3] = {plan.in, plan.out, plan.err};
  for (int& fd : given) {
    if (fd <= STDERR_FILENO) fd = static_cast<int>(::syscall(SYS_fcntl, fd, F_DUPFD, STDERR_FILENO + 1));
    if (fd < 0) return fail(result, spawn_step::descriptors);
  }
  for (int i = 0; i < 3; ++i)
    if (::syscall(SYS_dup3, given[i], i, 0) < 0) return fail(result, spawn_step::descriptors);
  // Libraries (Asio's sockets among them) open descriptors without close-on-exec.
  if (::syscall(SYS_close_range, STDERR_FILENO + 1, UINT_MAX, 0) != 0)
    return fail(result, spawn_step::descriptors);
  return true;
}

PENSTOCK_IN_CHILD bool set_limits(const spawn_plan& plan, spawned& result) {
  for (std::size_t i = 0; i < plan.limit_count; ++i) {
    const std::uint64_t pair[2] = {plan.limits[i].soft, plan.limits[i].hard};  // struct rlimit64
    if (::syscall(SYS_prlimit64, 0, plan.limits[i].resource, pair, nullptr) == 0) continue;
    result.failed_limit = i;
    return fail(result, spawn_step::limit);
  }
  return true;
}

PENSTOCK_IN_CHILD bool become_user(const spawn_plan& plan, spawned& result) {
  if (!plan.changes_user) return true;
  // What our service manager gave us is not for other users. Refused by kernels that have no such set.
  ::syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (plan.groups && ::syscall(SYS_setgroups, plan.group_count, plan.groups) != 0)
    return fail(result, spawn_step::groups);
  if (::syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid) != 0) return fail(result, spawn_step::gid);
  if (::syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid) != 0) return fail(result, spawn_step::uid);
  return true;
}

PENSTOCK_IN_CHILD bool set_place(const spawn_plan& plan, spawned& result) {
  if (::syscall(SYS_setpgid, 0, 0) != 0) return fail(result, spawn_step::process_group);
  if (plan.cgroup >= 0 && ::syscall(SYS_write, plan.cgroup, "0", 1) != 1)  // cgroups(7): "0" is the writer
    return fail(result, spawn_step::cgroup);
  return true;
}

PENSTOCK_IN_CHILD int child(void* argument) {
  const child_work& work = *static_cast<child_work*>(argument);
  const spawn_plan& plan = *work.plan;
  spawned& result = *work.result;
  reset_signals();
  if (!set_place(plan, result) || !set_priorities(plan, result) || !set_descriptors(plan, result)) return 127;
  if (plan.umask >= 0) ::syscall(SYS_umask, plan.umask);
  if (!set_limits(plan, result) || !become_user(plan, result)) return 127;
  if (::syscall(SYS_chdir, plan.folder) != 0) {
    fail(result, spawn_step::folder);
    return 127;
  }
  const std::uint64_t none = 0;
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, signal_set_bytes);
  ::syscall(SYS_execve, plan.program, plan.arguments, plan.environment);
  fail(result, spawn_step::execute);
  return 127;
}

#undef PENSTOCK_IN_CHILD

// ---- in the caller ------------------------------------------------------------------------------

// ThreadSanitizer takes its clone() for a fork, and would have a child that shares our memory forget all other threads.
#ifdef __SANITIZE_THREAD__
constexpr auto start_child = &::__clone;
#else
constexpr auto start_child = &::clone;
#endif

// What the child's few frames are on. One for each thread, which is suspended while its child uses it.
class child_stack {
 public:
  child_stack() {
    void* made = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (made == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(made);
    ::mprotect(base_, guard, PROT_NONE);
  }
  ~child_stack() { ::munmap(base_, bytes); }
  child_stack(const child_stack&) = delete;
  child_stack& operator=(const child_stack&) = delete;
  void* top() const { return base_ + bytes; }

 private:
  static constexpr std::size_t bytes = 64 * 1024, guard = 4096;
  char* base_;
};

// Also the two that glibc keeps for itself, which is why this is a bare system call.
class all_signals_blocked {
 public:
  all_signals_blocked() {
    const std::uint64_t all = ~std::uint64_t{0};
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before_, signal_set_bytes);
  }
  ~all_signals_blocked() {
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, signal_set_bytes);
  }
  all_signals_blocked(const all_signals_blocked&) = delete;
  all_signals_blocked& operator=(const all_signals_blocked&) = delete;

 private:
  std::uint64_t before_ = 0;
};

// A child that has become another user shares our memory until it executes its program. The kernel keeps that
// user's other processes from looking into it (commit_creds() makes memory undumpable: prctl(2)), but leaves it
// so for us as well. This puts it right afterwards, once no such child is left: so there is one at a time.
class other_user_inside {
 public:
  explicit other_user_inside(bool is_one) {
    if (!is_one) return;
    alone_ = std::unique_lock(door());
    dumpable_ = ::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
  }
  ~other_user_inside() {
    if (alone_ && dumpable_ == 1) ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  }
  other_user_inside(const other_user_inside&) = delete;
  other_user_inside& operator=(const other_user_inside&) = delete;

 private:
  static std::mutex& door() {
    static std::mutex one;
    return one;
  }
  std::unique_lock<std::mutex> alone_;
  int dumpable_ = 0;
};

}  // namespace

spawned spawn(const spawn_plan& plan) {
  thread_local const child_stack stack;
  const other_user_inside guard(plan.changes_user);
  spawned result;
  child_work work{&plan, &result};
  int pidfd = -1;
  {
    const all_signals_blocked quiet;
    result.pid = start_child(child, stack.top(), CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &work, &pidfd);
    if (result.pid < 0) fail(result, spawn_step::clone);
  }
  if (result.pid < 0) return result;
  result.exit = unique_fd(pidfd);
  if (result.failed_step != spawn_step::none) {
    siginfo_t ignored{};
    while (::waitid(P_PID, static_cast<id_t>(result.pid), &ignored, WEXITED) != 0 && errno == EINTR) {
    }
  }
  return result;
}

}  // namespace penstock::runtime
