// Hands out the daemon's room for runs: who may start now, and who is woken when there is room again.
//
// Control thread; owned by the surroundings. The order is run_queue's; this only knows the clock and whom to call. What
// was let in holds its room until release(). Starts are made one after another from the control thread's queue, never
// inside the call that made the room, so nobody is started in the middle of his own end.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "scheduler/run_queue.hpp"

namespace penstock::scheduler {

namespace asio = boost::asio;

class dispatcher {
 public:
  // `most` runs at once; one that has waited for `ageing` goes before all priorities.
  dispatcher(asio::any_io_executor control, std::int64_t most, std::chrono::nanoseconds ageing);
  ~dispatcher();

  // True: it has its room from now on.
  bool enter(const queue_entry& entry);
  // `start` is called once, when it has its room, unless it is released before.
  void wait(queue_entry entry, std::function<void()> start);
  // It has ended, or waits no longer.
  void release(const std::string& id);
  std::string why_waiting(const std::string& id) const { return queue_.why_waiting(id); }

  void limit_pipeline(const std::string& pipeline, std::optional<std::int64_t> most);
  void limit_job(const std::string& pipeline, const std::string& job, std::optional<std::int64_t> most,
                 std::optional<std::int64_t> of_a_key);
  void limit_pool(const std::string& pool, std::optional<std::int64_t> slots);
  // The pipeline is gone, and so are its runs.
  void forget_pipeline(const std::string& pipeline) { queue_.forget_pipeline(pipeline); }
  void hold_pipeline(const std::string& pipeline, bool held);
  // The daemon stops: nobody starts any more.
  void stop();

 private:
  void look_again();
  void start_all();

  const asio::any_io_executor control_;
  run_queue queue_;
  std::map<std::string, std::function<void()>> waiting_;
  std::shared_ptr<dispatcher*> self_;  // what a posted call finds us by; null once we are gone
  bool looking_ = false;               // such a call is on its way
};

}  // namespace penstock::scheduler
