#include "runtime/blocking_pool.hpp"

#include <stdexcept>
#include <utility>

#include <spdlog/spdlog.h>

namespace penstock::runtime {

blocking_pool::blocking_pool(std::size_t most, std::chrono::seconds idle_time)
    : most_(most), idle_time_(idle_time) {
  if (most == 0) throw std::invalid_argument("a blocking pool needs at least one thread");
}

blocking_pool::~blocking_pool() {
  std::unique_lock lock(mutex_);
  closing_ = true;
  changed_.notify_all();
  all_ended_.wait(lock, [this] { return threads_.empty(); });
  lock.unlock();
  join_retired();
}

void blocking_pool::submit(std::function<void()> work) {
  join_retired();
  std::lock_guard lock(mutex_);
  if (closing_) throw std::logic_error("work for a blocking pool that is being destroyed");
  waiting_.push_back(std::move(work));
  if (idle_ >= waiting_.size() || threads_.size() >= most_) return changed_.notify_one();
  try {
    std::thread started([this] { work_until_idle(); });
    const auto id = started.get_id();
    threads_.emplace(id, std::move(started));
  } catch (const std::system_error&) {
    if (threads_.empty()) {  // nobody would ever do it
      waiting_.pop_back();
      throw;
    }
  }
}

void blocking_pool::work_until_idle() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    const bool woken = changed_.wait_for(lock, idle_time_, [this] { return closing_ || !waiting_.empty(); });
    --idle_;
    if (!woken || waiting_.empty()) break;
    std::function<void()> work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    try {
      work();
    } catch (const std::exception& failure) {
      spdlog::error("work on a blocking thread failed: {}", failure.what());
    } catch (...) {
      spdlog::error("work on a blocking thread failed with an unknown exception");
    }
    work = nullptr;  // what it held is released before the thread is counted as idle, and outside of the lock
    lock.lock();
  }
  const auto self = threads_.find(std::this_thread::get_id());
  retired_.push_back(std::move(self->second));
  threads_.erase(self);
  all_ended_.notify_all();
}

void blocking_pool::join_retired() {
  std::vector<std::thread> ended;
  {
    std::lock_guard lock(mutex_);
    ended.swap(retired_);
  }
  for (auto& thread : ended) thread.join();
}

}  // namespace penstock::runtime
