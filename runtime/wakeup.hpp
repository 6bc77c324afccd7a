// One waiting coroutine, any number of wakers.
//
// wait() suspends until notify() has been called since the last wait; notifications while nobody waits are kept (once).
// notify() is thread-safe and cheap when one is pending already. No timer runs and no thread wakes while it waits. Held by
// shared_ptr, because a waker may outlive the waiter.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <memory>
#include <utility>

namespace penstock::runtime {

namespace asio = boost::asio;

class wakeup : public std::enable_shared_from_this<wakeup> {
 public:
  // `executor` is the waiter's; it must run one thing at a time.
  explicit wakeup(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  void notify() {
    if (!pending_.exchange(true)) asio::post(executor_, [self = shared_from_this()] { self->wake(); });
  }

  // On the waiter's executor. Returns at once when a notification is pending.
  asio::awaitable<void> wait() {
    while (!pending_.exchange(false)) co_await suspend();
  }

  // The same, but no later than `deadline`; false when that came first.
  asio::awaitable<bool> wait_until(asio::steady_timer::time_point deadline) {
    while (!pending_.exchange(false)) {
      if (asio::steady_timer::clock_type::now() >= deadline) co_return false;
      if (!timer_) timer_ = std::make_unique<asio::steady_timer>(executor_);
      timer_->expires_at(deadline);
      co_await timer_->async_wait(asio::as_tuple(asio::use_awaitable));
    }
    co_return true;
  }

 private:
  // Without a timer: Asio looks at its timers every five minutes, and an idle daemon shall not wake at all.
  asio::awaitable<void> suspend() {
    return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
        [this](auto handler) {
          resume_ = [waiting = std::make_shared<decltype(handler)>(std::move(handler))] { std::move (*waiting)(); };
        },
        asio::use_awaitable);
  }

  // On the waiter's executor, so the waiter is either suspended or will see `pending_`.
  void wake() {
    if (resume_) {
      std::exchange(resume_, nullptr)();
    } else if (timer_) {
      timer_->cancel();
    }
  }

  const asio::any_io_executor executor_;
  std::unique_ptr<asio::steady_timer> timer_;  // made by the first wait_until
  std::function<void()> resume_;             // set while wait() is suspended
  std::atomic<bool> pending_{false};
};

}  // namespace penstock::runtime
