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

constexpr int batch_niceness = 10;

// sched_setattr(2); glibc has neither the function nor the structure.
struct scheduling {
  std::uint32_t size = sizeof(scheduling);
  std::uint32_t policy = SCHED_OTHER;
  std::uint64_t flags = 0;
  std::int32_t nice = batch_niceness;
  std::uint32_t priority = 0;
  std::uint64_t turn_ns = 100'000'000;  // sched_runtime
  std::uint64_t deadline_ns = 0;
  std::uint64_t period_ns = 0;
};

}  // namespace

// Linux keeps all of this by thread (setpriority(2), ioprio_set(2), sched_setattr(2)).
void give_way() {
  constexpr int ioprio_who_process = 1;
  constexpr int best_effort_lowest = (2 << 13) | 7;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), batch_niceness);
  ::syscall(SYS_ioprio_set, ioprio_who_process, 0, best_effort_lowest);
  if (::sched_getscheduler(0) != SCHED_OTHER) return;  // somebody has decided otherwise
  const scheduling wanted;
  if (::syscall(SYS_sched_setattr, 0, &wanted, 0) != 0)
    spdlog::debug("long turns of the processor cannot be asked for: {}", std::generic_category().message(errno));
}

bool go_first(int rank) {
  const sched_param wanted{.sched_priority = rank};
  return ::sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &wanted) == 0;  // 0: the thread (sched_setscheduler(2))
}

}  // namespace penstock::daemon
