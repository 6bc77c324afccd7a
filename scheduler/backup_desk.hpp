// Backups: an online copy of the data folder, one at a time (runtime/data_copy.hpp says of what and how).
//
// Control thread; owned by the supervisor. The copy grows under a name of its own beside its place and gets the wanted name
// when all of it is on disk, so what has that name is whole, and nothing that was there is ever written over. One that fails
// or is cancelled leaves nothing behind; one that is cut off by a crash leaves a folder NAME.partial-ID.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "runtime/data_copy.hpp"
#include "runtime/wakeup.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class backup_desk {
 public:
  explicit backup_desk(surroundings& around) : around_(around) {}

  // See supervisor.hpp.
  result<void> start(backup_request request);
  backup_view view() const;
  void follow(const std::shared_ptr<runtime::wakeup>& follower);
  result<void> cancel();
  // The daemon stops: cancels what is being made, and no other begins.
  void stop();
  // Waits for its end. What had to be left behind, because a disk hangs, in a sentence; empty: nothing.
  asio::awaitable<std::string> finish(std::chrono::steady_clock::time_point deadline);

 private:
  // What the thread that copies and the control thread share.
  struct work {
    backup_request request;
    std::filesystem::path draft;
    runtime::copy_progress progress{};
    std::stop_source stop{};
  };

  asio::awaitable<void> make(std::shared_ptr<work> current);
  void ended(backup_state how, std::string reason);

  surroundings& around_;
  std::shared_ptr<work> current_;  // of the backup that is being made or was made last
  backup_view last_;
  bool closed_ = false;
  std::vector<std::weak_ptr<runtime::wakeup>> followers_;
};

}  // namespace penstock::scheduler
