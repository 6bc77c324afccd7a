// One at a time, in the order asked: a lock for coroutines of one executor (the control thread, or a flow's strand).
// Holding it across co_await is what it is for. Not thread-safe; a pass must not outlive its gate.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <list>
#include <memory>
#include <utility>

#include "runtime/wakeup.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class gate {
 public:
  explicit gate(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  class pass {
   public:
    explicit pass(gate& g) : gate_(&g) {}
    pass(pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    pass& operator=(pass&&) = delete;
    ~pass() {
      if (gate_) gate_->leave();
    }

   private:
    gate* gate_;
  };

  asio::awaitable<pass> enter() {
    if (!busy_) {
      busy_ = true;
      co_return pass(*this);
    }
    auto turn = std::make_shared<wakeup>(executor_);
    waiting_.push_back(turn);
    co_await turn->wait();  // leave() hands the gate over: it stays busy
    co_return pass(*this);
  }

 private:
  void leave() {
    if (waiting_.empty()) {
      busy_ = false;
      return;
    }
    auto next = std::move(waiting_.front());
    waiting_.pop_front();
    next->notify();
  }

  asio::any_io_executor executor_;
  bool busy_ = false;
  std::list<std::shared_ptr<wakeup>> waiting_;  // a deque has memory also when it is empty
};

}  // namespace penstock::runtime
