// Runs on their way into the store: the store may show one a moment before the control plane has taken it in. Whoever has seen
// it there and wants something of it waits here until it has.
//
// Control thread; owned by the surroundings, which outlive every guard.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/wakeup.hpp"

namespace penstock::scheduler {

namespace asio = boost::asio;

class arrivals {
 public:
  explicit arrivals(asio::any_io_executor control) : control_(std::move(control)) {}

  // A run is on its way as long as its guard lives.
  class guard {
   public:
    guard() = default;
    guard(guard&& other) noexcept : all_(std::exchange(other.all_, nullptr)), run_(std::move(other.run_)) {}
    guard& operator=(guard&& other) noexcept {
      std::swap(all_, other.all_);
      std::swap(run_, other.run_);
      return *this;
    }
    ~guard() {
      if (all_) all_->leave(run_);
    }

   private:
    friend class arrivals;
    guard(arrivals& all, std::string run) : all_(&all), run_(std::move(run)) {}

    arrivals* all_ = nullptr;
    std::string run_{};
  };
  guard enter(const std::string& run) {
    waiting_[run];
    return {*this, run};
  }

  // Returns when the run is not on its way, or no longer.
  asio::awaitable<void> over(std::string run) {
    const auto found = waiting_.find(run);
    if (found == waiting_.end()) co_return;
    const auto left = std::make_shared<runtime::wakeup>(control_);
    found->second.push_back(left);
    co_await left->wait();
  }

 private:
  void leave(const std::string& run) {
    const auto found = waiting_.find(run);
    for (const auto& one : found->second) one->notify();
    waiting_.erase(found);
  }

  const asio::any_io_executor control_;
  std::map<std::string, std::vector<std::shared_ptr<runtime::wakeup>>> waiting_;  // by run
};

}  // namespace penstock::scheduler
