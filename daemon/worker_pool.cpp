#include "daemon/worker_pool.hpp"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include "daemon/thread_priority.hpp"

namespace penstock::daemon {

namespace {

void take(worker_pool::priority p) {
  switch (p) {
    case worker_pool::priority::low: return give_way();
    case worker_pool::priority::normal: return;
    case worker_pool::priority::live: go_first(live_rank); return;
    case worker_pool::priority::control: go_first(control_rank); return;
  }
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
      take(p);
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
