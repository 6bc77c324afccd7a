// Who changed what, and who tried to: entries go into the audit log and come out of it.
//
// Control thread; owned by the supervisor. Refusals are written at a bounded rate, so that a flood of them neither fills the
// disk nor keeps the store busy; those left out are counted, and the next one that is written says how many.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/audit.hpp"
#include "scheduler/store.hpp"
#include "scheduler/token.hpp"

namespace penstock::scheduler {

class audit_desk {
 public:
  audit_desk(store& state, audit_limits keep) : store_(state), keep_(keep) {}

  // Durable when it returns; what cannot be written is said on the log. An id is made where there is none.
  asio::awaitable<void> add(audit_record entry);
  // Soon, and in order: durable with the next commit.
  void note(audit_record entry);
  void refused(audit_record entry, token_bucket::clock::time_point now);
  std::vector<audit_record> list(const audit_filter& wanted) { return store_.audit(wanted); }

 private:
  store& store_;
  const audit_limits keep_;
  token_bucket room_{{.per_second = 10, .burst = 100}};
  std::int64_t left_out_ = 0;
};

}  // namespace penstock::scheduler
