#include "daemon/worker_pool.hpp"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace penstock::daemon {

namespace {

// Linux keeps niceness and I/O priority by thread (setpriority(2), ioprio_set(2)).
void lower_priority() {
  constexpr int ioprio_who_process = 1;
  constexpr int best_effort_lowest = (2 << 13) | 7;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 10);
  ::syscall(SYS_ioprio_set, ioprio_who_process, 0, best_effort_lowest);
}

// Signals belong to the control thread.
void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace

worker_pool::worker_pool(const std::string& name, std::size_t threads, priority p)
    : context_(static_cast<int>(threads)), guard_(context_.get_executor()) {
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name, p] {
      ::pthread_setname_np(::pthread_self(), name.c_str());
      block_signals();
      if (p == priority::low) lower_priority();
      for (;;) {
        try {
          context_.run();
          return;
        } catch (const std::exception& e) {
          spdlog::critical("thread {}: {}", name, e.what());  // a bug: whatever threw is gone, the others go on
        }
      }
    });
  }
}

worker_pool::~worker_pool() { finish(); }

void worker_pool::finish() {
  guard_.reset();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace penstock::daemon
