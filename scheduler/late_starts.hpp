// Starts of attempts that are stored while the attempt goes on, so that a short run costs one change of its row instead of
// two and no start waits for the disk.
//
// Control thread; owned by the supervisor. A run that ends before its start was stored takes the start along with its end
// (run_end::started); one that goes on for `patience` gets it stored from here, many in one transaction. What a crash makes
// of a start that was not stored: the run is still queued, and starts once more without having been counted as interrupted.
// So only runs come here that nobody could miss that for: see job_runs::starts_unstored.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <deque>
#include <memory>

#include "runtime/wakeup.hpp"

namespace penstock::scheduler {

namespace asio = boost::asio;
class live_run;
class store;

class late_starts {
 public:
  static constexpr std::chrono::milliseconds patience{10};

  late_starts(asio::any_io_executor control, store& state);

  void add(std::shared_ptr<live_run> run);  // it has just started
  asio::awaitable<void> run();              // until stop()
  void stop();

 private:
  struct entry {
    std::shared_ptr<live_run> run;
    std::chrono::steady_clock::time_point due;
  };
  asio::awaitable<void> store_due();

  store& store_;
  std::deque<entry> waiting_;  // in the order in which they are due
  const std::shared_ptr<runtime::wakeup> added_;
  bool stopping_ = false;
};

}  // namespace penstock::scheduler
