#include "runtime/spawn.hpp"

#include <cerrno>
#include <climits>
#include <fcntl.h>
#include <linux/futex.h>
#include <memory>
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
#include <vector>

#ifdef __SANITIZE_THREAD__
extern "C" int __clone(int (*run)(void*), void* stack, int flags, void* argument, ...);  // glibc's other name of clone()
#endif

namespace penstock::runtime {

namespace {

// ---- in the child -------------------------------------------------------------------------------
//
// It has its own descriptors, signal dispositions and credentials, but our memory, and the errno of the thread that made
// it, which goes on. So: no sanitizer's bookkeeping, no allocation, and bare system calls (glibc's setresuid() would make
// all threads of this program change theirs, too).
#ifdef __clang__
#define PENSTOCK_IN_CHILD [[clang::no_sanitize("address", "undefined", "thread", "coverage")]]
#else
#define PENSTOCK_IN_CHILD [[gnu::no_sanitize("address,undefined,thread")]]
#endif

struct child_work {
  const spawn_plan* plan;
  spawned* result;
  pid_t parent;
};

constexpr int signals = 64;                    // of the kernel
constexpr std::size_t signal_set_bytes = signals / 8;
constexpr int ioprio_who_process = 1;

// syscall(2) without errno: what the kernel answers, -1 to -4095 being an error's number.
#if defined(__x86_64__)
PENSTOCK_IN_CHILD long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  asm volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return number;
}
#elif defined(__aarch64__)
PENSTOCK_IN_CHILD long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
#else
PENSTOCK_IN_CHILD long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
  const long answer = ::syscall(number, a, b, c, d, e);
  return answer < 0 ? -errno : answer;
}
#endif

PENSTOCK_IN_CHILD long address(const void* of) { return reinterpret_cast<long>(of); }

PENSTOCK_IN_CHILD bool fail(spawned& result, spawn_step step, long answer) {
  result.error_number = static_cast<int>(-answer);
  result.failed_step = step;
  return false;
}

// Ignored signals would stay ignored, and a handler of ours must not run once they are no longer blocked.
// SIGKILL and SIGSTOP refuse, which is fine.
PENSTOCK_IN_CHILD void reset_signals() {
  const std::uint64_t defaults[4] = {};  // struct sigaction as the kernel has it: SIG_DFL, nothing else
  for (int signal = 1; signal <= signals; ++signal)
    call(SYS_rt_sigaction, signal, address(defaults), 0, signal_set_bytes);
}

PENSTOCK_IN_CHILD bool set_place(const spawn_plan& plan, spawned& result) {
  if (const long answer = call(SYS_setpgid, 0, 0); answer < 0) return fail(result, spawn_step::process_group, answer);
  if (plan.cgroup < 0) return true;
  const long answer = call(SYS_write, plan.cgroup, address("0"), 1);  // cgroups(7): "0" is the writer
  return answer >= 0 || fail(result, spawn_step::cgroup, answer);
}

PENSTOCK_IN_CHILD bool set_priorities(const spawn_plan& plan, spawned& result) {
  if (plan.nice != 0) {
    const long inverted = call(SYS_getpriority, PRIO_PROCESS, 0);  // 20 - niceness: getpriority(2)
    const long wanted = 20 - inverted + plan.nice;
    const long answer = inverted < 0 ? inverted : call(SYS_setpriority, PRIO_PROCESS, 0, wanted < 19 ? wanted : 19);
    if (answer < 0) return fail(result, spawn_step::priority, answer);
  }
  if (plan.io_priority == 0) return true;
  const long answer = call(SYS_ioprio_set, ioprio_who_process, 0, plan.io_priority);
  return answer >= 0 || fail(result, spawn_step::io_priority, answer);
}

// Those that are among 0, 1 and 2 themselves get out of the way first.
PENSTOCK_IN_CHILD bool set_descriptors(const spawn_plan& plan, spawned& result) {
  long given[3] = {plan.in, plan.out, plan.err};
  for (long& fd : given) {
    if (fd <= STDERR_FILENO) fd = call(SYS_fcntl, fd, F_DUPFD, STDERR_FILENO + 1);
    if (fd < 0) return fail(result, spawn_step::descriptors, fd);
  }
  for (int i = 0; i < 3; ++i) {
    if (const long answer = call(SYS_dup3, given[i], i, 0); answer < 0) return fail(result, spawn_step::descriptors, answer);
  }
  // Libraries (Asio's sockets among them) open descriptors without close-on-exec.
  const long answer = call(SYS_close_range, STDERR_FILENO + 1, UINT_MAX, 0);
  return answer >= 0 || fail(result, spawn_step::descriptors, answer);
}

PENSTOCK_IN_CHILD bool set_limits(const spawn_plan& plan, spawned& result) {
  for (std::size_t i = 0; i < plan.limit_count; ++i) {
    const std::uint64_t pair[2] = {plan.limits[i].soft, plan.limits[i].hard};  // struct rlimit64
    const long answer = call(SYS_prlimit64, 0, plan.limits[i].resource, address(pair), 0);
    if (answer >= 0) continue;
    result.failed_limit = i;
    return fail(result, spawn_step::limit, answer);
  }
  return true;
}

PENSTOCK_IN_CHILD bool become_user(const spawn_plan& plan, spawned& result) {
  if (!plan.changes_user) return true;
  // What our service manager gave us is not for other users. Refused by kernels that have no such set.
  call(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (plan.groups) {
    const long answer = call(SYS_setgroups, static_cast<long>(plan.group_count), address(plan.groups));
    if (answer < 0) return fail(result, spawn_step::groups, answer);
  }
  if (const long answer = call(SYS_setresgid, plan.gid, plan.gid, plan.gid); answer < 0)
    return fail(result, spawn_step::gid, answer);
  const long answer = call(SYS_setresuid, plan.uid, plan.uid, plan.uid);
  return answer >= 0 || fail(result, spawn_step::uid, answer);
}

PENSTOCK_IN_CHILD bool enter_folder(const spawn_plan& plan, spawned& result) {
  const long answer = call(SYS_chdir, address(plan.folder));
  return answer >= 0 || fail(result, spawn_step::folder, answer);
}

// What was sent to it until now was meant for us, whose name, and first whose group, it has (Ctrl-Z): it is forgotten, as
// signals(7) has it for one that is ignored. (The kernel would also end us with a child that shares our memory and dumps its core; before Linux 5.16.)
PENSTOCK_IN_CHILD void forget_signals() {
  std::uint64_t pending = 0;
  if (call(SYS_rt_sigpending, address(&pending), signal_set_bytes) < 0 || pending == 0) return;
  const std::uint64_t ignore[4] = {reinterpret_cast<std::uint64_t>(SIG_IGN)}, defaults[4] = {};
  for (int signal = 1; signal <= signals; ++signal) {
    if ((pending >> (signal - 1) & 1) == 0) continue;
    call(SYS_rt_sigaction, signal, address(ignore), 0, signal_set_bytes);
    call(SYS_rt_sigaction, signal, address(defaults), 0, signal_set_bytes);
  }
}

// Until it may go on; false: it is to end. Not to outlive us meanwhile: nobody would let it go.
PENSTOCK_IN_CHILD bool has_leave(const child_work& work) {
  const std::uint32_t* leave = work.plan->leave;
  if (!leave) return true;
  call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
  if (call(SYS_getppid) != work.parent) return false;  // it has ended before it could have been told by the signal
  std::uint32_t said = 0;
  while ((said = __atomic_load_n(leave, __ATOMIC_ACQUIRE)) == 0) call(SYS_futex, address(leave), FUTEX_WAIT_PRIVATE, 0, 0);
  call(SYS_prctl, PR_SET_PDEATHSIG, 0);
  return said == 1;
}

PENSTOCK_IN_CHILD int child(void* argument) {
  constexpr int not_executed = 127;
  const child_work& work = *static_cast<child_work*>(argument);
  const spawn_plan& plan = *work.plan;
  spawned& result = *work.result;
  reset_signals();
  if (!set_place(plan, result) || !set_priorities(plan, result) || !set_descriptors(plan, result)) return not_executed;
  if (plan.umask >= 0) call(SYS_umask, plan.umask);
  if (!set_limits(plan, result) || !become_user(plan, result) || !enter_folder(plan, result)) return not_executed;
  if (!has_leave(work)) return not_executed;
  forget_signals();
  const std::uint64_t none = 0;
  call(SYS_rt_sigprocmask, SIG_SETMASK, address(&none), 0, signal_set_bytes);
  fail(result, spawn_step::execute, call(SYS_execve, address(plan.program), address(plan.arguments), address(plan.environment)));
  return not_executed;
}

#undef PENSTOCK_IN_CHILD

// ---- in the caller ------------------------------------------------------------------------------

// ThreadSanitizer takes its clone() for a fork, and would have a child that shares our memory forget all other threads.
#ifdef __SANITIZE_THREAD__
constexpr auto start_child = &::__clone;
#else
constexpr auto start_child = &::clone;
#endif

// What the child's few frames are on.
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

// A few that are used again.
class child_stacks {
 public:
  child_stacks() { kept_.reserve(most); }

  std::unique_ptr<child_stack> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!kept_.empty()) {
        auto one = std::move(kept_.back());
        kept_.pop_back();
        return one;
      }
    }
    return std::make_unique<child_stack>();
  }
  void give_back(std::unique_ptr<child_stack> one) {
    const std::lock_guard lock(mutex_);
    if (kept_.size() < most) kept_.push_back(std::move(one));
  }

 private:
  static constexpr std::size_t most = 8;
  std::mutex mutex_;
  std::vector<std::unique_ptr<child_stack>> kept_;
};

child_stacks& stacks() {
  static child_stacks all;
  return all;
}

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

void wait_for_exit(pid_t of) {
  siginfo_t ignored{};
  while (::waitid(P_PID, static_cast<id_t>(of), &ignored, WEXITED) != 0 && errno == EINTR) {
  }
}

}  // namespace

struct child_start::state {
  explicit state(const spawn_plan& plan) : guard(plan.changes_user), stack(stacks().take()), work{&plan, &result, ::getpid()} {}

  // Until the child needs our memory no more. One that somebody stops goes on: nobody else has a say before it is the program.
  void wait() {
    while (const std::uint32_t inside = __atomic_load_n(&uses_memory, __ATOMIC_ACQUIRE)) {
      siginfo_t stopped{};
      const auto id = static_cast<id_t>(result.pid);
      if (::waitid(P_PID, id, &stopped, WSTOPPED | WNOHANG | WNOWAIT) == 0 && stopped.si_pid != 0) ::kill(result.pid, SIGCONT);
      const timespec a_while{.tv_sec = 0, .tv_nsec = 100'000'000};
      ::syscall(SYS_futex, &uses_memory, FUTEX_WAIT, inside, &a_while);  // not private: so the kernel wakes
    }
  }

  const other_user_inside guard;
  std::unique_ptr<child_stack> stack;
  spawned result;
  child_work work;
  std::uint32_t uses_memory = 1;  // the kernel makes it 0
};

child_start::child_start(const spawn_plan& plan) : state_(std::make_unique<state>(plan)) {
  int pidfd = -1;
  const all_signals_blocked quiet;
  spawned& made = state_->result;
  const int stands_by = plan.leave ? 0 : CLONE_VFORK;
  made.pid = start_child(child, state_->stack->top(), CLONE_VM | stands_by | CLONE_PIDFD | CLONE_CHILD_CLEARTID | SIGCHLD,
                         &state_->work, &pidfd, nullptr, &state_->uses_memory);
  if (made.pid < 0) {
    fail(made, spawn_step::clone, -errno);
    made.pid = 0;
    state_->uses_memory = 0;
  } else {
    made.exit = unique_fd(pidfd);
  }
}

child_start::~child_start() {
  if (const pid_t left = pid()) {
    ::kill(-left, SIGKILL);
    ::kill(left, SIGKILL);  // it may not have come to its group
    wait_for_exit(left);
  } else {
    state_->wait();
  }
  stacks().give_back(std::move(state_->stack));
}

pid_t child_start::pid() const { return state_->result.pid; }

spawned child_start::finish() {
  state_->wait();
  spawned done = std::move(state_->result);
  state_->result.pid = 0;
  if (done.pid != 0 && done.failed_step != spawn_step::none) wait_for_exit(done.pid);
  return done;
}

}  // namespace penstock::runtime
