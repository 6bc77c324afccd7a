#include "daemon/thread_priority.hpp"

#include <cerrno>
#include <cstdint>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <system_error>
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

// Not for who has decided otherwise: another policy, or a niceness below 0, which the flag would take from what we start.
void run_when_woken() {
  scheduling wanted;
  wanted.nice = ::getpriority(PRIO_PROCESS, 0);
  if (::sched_getscheduler(0) != SCHED_OTHER || wanted.nice < 0) return;
  if (::syscall(SYS_sched_setattr, 0, &wanted, 0) != 0)
    spdlog::debug("short turns of the processor cannot be asked for: {}", std::generic_category().message(errno));
}

// Linux keeps niceness and I/O priority by thread (setpriority(2), ioprio_set(2)).
void give_way() {
  constexpr int ioprio_who_process = 1;
  constexpr int best_effort_lowest = (2 << 13) | 7;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 10);
  ::syscall(SYS_ioprio_set, ioprio_who_process, 0, best_effort_lowest);
}

}  // namespace penstock::daemon
