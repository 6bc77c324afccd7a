// Why something that runs does not get on just now, in words; empty while it does.
//
// Written where the work is done, read by whoever shows it, on any thread. Small while empty: there are many flows.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace penstock::runtime {

class trouble_note {
 public:
  void set(std::string why) {
    auto said = std::make_unique<const std::string>(std::move(why));
    const std::lock_guard lock(mutex_);
    why_ = std::move(said);
    there_.store(true, std::memory_order_relaxed);
  }
  // Cheap where there is nothing to clear: called for each batch.
  void clear() {
    if (!there_.load(std::memory_order_relaxed)) return;
    const std::lock_guard lock(mutex_);
    why_.reset();
    there_.store(false, std::memory_order_relaxed);
  }
  std::string text() const {
    if (!there_.load(std::memory_order_relaxed)) return {};
    const std::lock_guard lock(mutex_);
    return why_ ? *why_ : std::string();
  }

 private:
  inline static std::mutex mutex_;  // of all: they are rarely touched
  std::atomic<bool> there_{false};
  std::unique_ptr<const std::string> why_;
};

}  // namespace penstock::runtime
