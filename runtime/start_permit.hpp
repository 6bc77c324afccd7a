// Leave to start, for work that makes itself ready before it may: "go once this is durable".
//
// Granted or withdrawn from any thread; whoever comes first decides, once. One coroutine waits for that, on the executor
// that the permit was made for. Held by shared_ptr: whoever grants it may outlive the waiter.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <utility>

#include "runtime/wakeup.hpp"

namespace penstock::runtime {

class start_permit {
 public:
  explicit start_permit(asio::any_io_executor waiter) : decided_(std::make_shared<wakeup>(std::move(waiter))) {}

  // Nothing happens when it is decided already.
  void grant() { decide(decision::granted); }
  // False: too late, it was granted.
  bool withdraw() { return decide(decision::withdrawn) == decision::withdrawn; }
  bool withdrawn() const { return decision_ == decision::withdrawn; }

  // On the waiter's executor. True: granted.
  asio::awaitable<bool> wait() {
    while (decision_ == decision::open) co_await decided_->wait();
    co_return decision_ == decision::granted;
  }

 private:
  enum class decision { open, granted, withdrawn };

  // What was decided, now or before.
  decision decide(decision wanted) {
    auto before = decision::open;
    if (!decision_.compare_exchange_strong(before, wanted)) return before;
    decided_->notify();
    return wanted;
  }

  const std::shared_ptr<wakeup> decided_;
  std::atomic<decision> decision_{decision::open};
};

}  // namespace penstock::runtime
