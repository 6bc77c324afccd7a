// Leave to start, for work that makes itself ready before it may: "go once this is durable".
//
// Granted or withdrawn from any thread; whoever comes first decides, once. One coroutine waits for that, on the executor
// that the permit was made for; beside it a child process may (spawn.hpp), which no thread of ours has to wake then. Held by
// shared_ptr: whoever grants it may outlive the waiter.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <climits>
#include <cstdint>
#include <linux/futex.h>
#include <memory>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include "runtime/wakeup.hpp"

namespace penstock::runtime {

class start_permit {
 public:
  explicit start_permit(asio::any_io_executor waiter) : decided_(std::make_shared<wakeup>(std::move(waiter))) {}

  // Nothing happens when it is decided already.
  void grant() { decide(granted); }
  // False: too late, it was granted.
  bool withdraw() { return decide(refused) == refused; }
  bool withdrawn() const { return decision() == refused; }

  // On the waiter's executor. True: granted.
  asio::awaitable<bool> wait() {
    while (decision() == open) co_await decided_->wait();
    co_return decision() == granted;
  }

  // 0, once granted 1, once withdrawn 2; a private futex that is woken then.
  const std::uint32_t* word() const { return &decision_; }

 private:
  static constexpr std::uint32_t open = 0, granted = 1, refused = 2;
  using atomic_word = std::atomic_ref<std::uint32_t>;

  std::uint32_t decision() const { return atomic_word(decision_); }

  // What was decided, now or before.
  std::uint32_t decide(std::uint32_t wanted) {
    std::uint32_t before = open;
    if (!atomic_word(decision_).compare_exchange_strong(before, wanted)) return before;
    ::syscall(SYS_futex, &decision_, FUTEX_WAKE_PRIVATE, INT_MAX);
    decided_->notify();
    return wanted;
  }

  const std::shared_ptr<wakeup> decided_;
  mutable std::uint32_t decision_ = open;
};

}  // namespace penstock::runtime
