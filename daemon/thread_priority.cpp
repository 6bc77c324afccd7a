#include "daemon/thread_priority.hpp"

#include <cstdint>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace penstock::daemon {

namespace {

// sched_setattr(2); glibc has neither the function nor the structure.
struct scheduling {
  std::uint32_t size = sizeof(scheduling);
  std::uint32_t policy = SCHED_OTHER;
  std::uint64_t flags = 1;  // SCHED_FLAG_RESET_ON_FORK
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t turn_ns = 100'000;  // sched_runtime; 100 µs is the least that the kernel takes
  std::uint64_t deadline_ns = 0;
  std::uint64_t period_ns = 0;
};

}  // namespace

void run_when_woken() {
  scheduling wanted;
  wanted.nice = ::getpriority(PRIO_PROCESS, 0);
  ::syscall(SYS_sched_setattr, 0, &wanted, 0);  // refused: as before
}

// Linux keeps niceness and I/O priority by thread (setpriority(2), ioprio_set(2)).
void give_way() {
  constexpr int ioprio_who_process = 1;
  constexpr int best_effort_lowest = (2 << 13) | 7;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 10);
  ::syscall(SYS_ioprio_set, ioprio_who_process, 0, best_effort_lowest);
}

}  // namespace penstock::daemon
