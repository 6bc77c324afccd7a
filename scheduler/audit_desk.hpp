// Who changed what, and who tried to: entries go into the audit log and come out of it.
//
// Control thread; owned by the supervisor. Refusals and failures are written at a bounded rate, so that a flood of
// them neither fills the disk nor keeps the store busy; those left out are counted, and the next one of its kind that is
// written says how many. What is only noted is gathered for a moment, so that thousands of runs a second cost a few commits
// more and not thousands. Ends with stop(), which writes what was gathered.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/audit.hpp"
#include "scheduler/store.hpp"
#include "scheduler/token.hpp"

namespace penstock::scheduler {

class audit_desk {
 public:
  static constexpr std::chrono::milliseconds gathering{20};

  audit_desk(asio::any_io_executor control, store& state, audit_limits keep)
      : store_(state), keep_(keep), timer_(std::move(control)) {}

  // Durable when it returns; what cannot be written is said on the log. An id is made where there is none.
  asio::awaitable<void> add(audit_record entry);
  // Soon, and in order.
  void note(audit_record entry);
  // Likewise, unless there were too many of its outcome ("refused" or "failed").
  void note_some(audit_record entry, token_bucket::clock::time_point now);
  std::vector<audit_record> list(const audit_filter& wanted) { return store_.audit(wanted); }
  // Writes what was gathered; what is noted later is written at once.
  void stop();

 private:
  struct flood_gate {
    token_bucket room{{.per_second = 10, .burst = 100}};
    std::int64_t left_out = 0;
  };
  void write();

  store& store_;
  const audit_limits keep_;
  boost::asio::steady_timer timer_;
  std::vector<audit_record> gathered_;
  bool stopped_ = false;
  flood_gate refusals_, failures_;  // apart, so that neither hides the other
};

}  // namespace penstock::scheduler
