// Taps: samples of the events that pass a point of a live flow, for whoever looks on.
//
// One flow_taps for each flow, shared by its supervisor and its runs. The flow asks wanted() for each batch and each
// point, one relaxed load while nobody looks. offer() runs where the flow runs and waits for no reader: a tap takes at
// most its rate of samples a second, costs the flow at most some 10 ms a second for its `where`, and holds at most tap::most_waiting; what a slow reader does not fetch is lost and
// counted. The reader lives on the control thread; dropping its tap ends it.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/event.hpp"
#include "runtime/lua.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

struct tap_options {
  std::string after;            // a step's name, "from" or "to"
  std::string where{};          // expression over event and meta; empty: all. Checked before
  std::int64_t rate = 100;      // samples a second, at most
};

class tap {
 public:
  static constexpr std::size_t most_waiting = 1000;
  static constexpr std::size_t most_bytes = 4 << 20;  // of what waits

  tap(tap_options options, asio::any_io_executor reader);

  // The samples since the last call, as JSON objects: {"after","id","source","type","time","key","data"}, data as it is
  // when it is JSON, else as text, cut at 64 KiB. Waits for the first one, no later than `deadline`; empty then.
  asio::awaitable<std::vector<std::string>> next(std::chrono::steady_clock::time_point deadline);
  void close();  // next() returns now and from then on
  bool closed() const { return closed_; }
  // Matching events that were not sampled, for the rate or for a reader that was too slow.
  std::int64_t lost() const { return lost_.load(std::memory_order_relaxed); }

 private:
  friend class flow_taps;
  void offer(const batch& events);

  const tap_options options_;
  const std::optional<lua_expression> where_;
  const std::shared_ptr<wakeup> filled_;
  std::atomic<std::int64_t> lost_{0};
  std::atomic<bool> closed_{false};
  std::mutex mutex_;
  std::deque<std::string> waiting_;  // guarded by mutex_
  std::size_t waiting_bytes_ = 0;    // guarded by mutex_
  std::mutex sampling_;  // parts of a flow's batch may be offered at once; guards what follows
  std::chrono::steady_clock::time_point second_{};  // when the current second of the rate began
  std::int64_t in_second_ = 0;                      // samples in it
  std::chrono::steady_clock::duration looking_{};   // what `where` has cost the flow in it
};

class flow_taps {
 public:
  std::shared_ptr<tap> listen(tap_options options, asio::any_io_executor reader);
  bool wanted() const { return listeners_.load(std::memory_order_relaxed) > 0; }
  void offer(std::string_view after, const batch& events);
  void close();  // all of them: the flow is gone

 private:
  std::atomic<int> listeners_{0};
  std::mutex mutex_;
  std::vector<std::weak_ptr<tap>> taps_;
  bool closed_ = false;
};

}  // namespace penstock::runtime
