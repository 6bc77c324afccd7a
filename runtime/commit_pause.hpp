// Holds every commit of the daemon for a moment, so that all its databases can be looked at as they are at one instant.
//
// Shared by all commit queues and owned by whoever makes them. commits enter and leave on their own threads; while they are
// held, those that want to enter wait. Held for as long as running commits and the opening of the
// views take: milliseconds mostly, and never more than `hold::patience` and that.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>

namespace penstock::runtime {

class commit_pause {
 public:
  // One group of work from its BEGIN until all is told. Null: nobody ever holds.
  class entry {
   public:
    explicit entry(commit_pause* p) : pause_(p) {
      if (pause_) pause_->enter();
    }
    ~entry() {
      if (pause_) pause_->leave();
    }
    entry(const entry&) = delete;
    entry& operator=(const entry&) = delete;

   private:
    commit_pause* pause_;
  };

  // While it lives nothing is being committed. Its constructor waits for what is under way, at most `patience`, because
  // meanwhile nobody may begin: then it throws std::runtime_error and all goes on. One at a time; not to be made by a thread
  // that is inside an entry.
  class hold {
   public:
    static constexpr std::chrono::seconds patience{2};

    explicit hold(commit_pause& p) : pause_(p) {
      std::unique_lock lock(pause_.mutex_);
      pause_.held_ = true;
      if (pause_.changed_.wait_for(lock, patience, [this] { return pause_.inside_ == 0; })) return;
      pause_.held_ = false;
      pause_.changed_.notify_all();
      throw std::runtime_error("a commit takes too long now for all of them to be held; try again later");
    }
    ~hold() {
      const std::lock_guard lock(pause_.mutex_);
      pause_.held_ = false;
      pause_.changed_.notify_all();
    }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;

   private:
    commit_pause& pause_;
  };

  // Somebody reads the databases as they were a while ago, so their write-ahead logs cannot be folded now, and trying
  // would only wait.
  std::atomic<bool> viewed{false};

 private:
  void enter() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !held_; });
    ++inside_;
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    if (--inside_ == 0 && held_) changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int inside_ = 0;     // guarded by mutex_
  bool held_ = false;  // guarded by mutex_
};

}  // namespace penstock::runtime
