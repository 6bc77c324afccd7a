// Runs on their way into the store: the store may show one a moment before the control plane has taken it in. Whoever has seen
// it there and wants something of it waits here until it has.
//
// Control thread; owned by the surroundings. A guard may outlive them, in a coroutine that is left when the daemon ends.
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
  using waiting_by_run = std::map<std::string, std::vector<std::shared_ptr<runtime::wakeup>>>;

 public:
  explicit arrivals(asio::any_io_executor control) : control_(std::move(control)) {}

  // A run is on its way as long as its guard lives.
  class guard {
   public:
    guard() = default;
    guard(guard&& other) noexcept : all_(std::move(other.all_)), run_(std::move(other.run_)) {}
    guard& operator=(guard&& other) noexcept {
      std::swap(all_, other.all_);
      std::swap(run_, other.run_);
      return *this;
    }
    ~guard() {
      const auto all = all_.lock();
      if (!all) return;
      const auto found = all->find(run_);
      for (const auto& one : found->second) one->notify();
      all->erase(found);
    }

   private:
    friend class arrivals;
    guard(std::weak_ptr<waiting_by_run> all, std::string run) : all_(std::move(all)), run_(std::move(run)) {}

    std::weak_ptr<waiting_by_run> all_{};
    std::string run_{};
  };
  guard enter(const std::string& run) {
    waiting_->try_emplace(run);
    return {waiting_, run};
  }

  // Returns when the run is not on its way, or no longer.
  asio::awaitable<void> over(std::string run) {
    const auto found = waiting_->find(run);
    if (found == waiting_->end()) co_return;
    const auto left = std::make_shared<runtime::wakeup>(control_);
    found->second.push_back(left);
    co_await left->wait();
  }

 private:
  const asio::any_io_executor control_;
  const std::shared_ptr<waiting_by_run> waiting_ = std::make_shared<waiting_by_run>();
};

}  // namespace penstock::scheduler
