// Tells when the wall clock was set: by hand, by a step of the time service, or after the machine has slept. Not for
// the small steady corrections of a time service.
//
// Everything on the given executor; owned by whoever wants to know. The kernel tells (timerfd_create(2),
// TFD_TIMER_CANCEL_ON_SET), so nothing wakes else. Ends with the object: no call comes afterwards.
#pragma once

#include <functional>
#include <memory>

#include <boost/asio/any_io_executor.hpp>

namespace penstock::runtime {

namespace asio = boost::asio;

class clock_watch {
 public:
  // Throws std::system_error when there is no descriptor.
  clock_watch(asio::any_io_executor executor, std::function<void()> was_set);
  ~clock_watch();
  clock_watch(const clock_watch&) = delete;
  clock_watch& operator=(const clock_watch&) = delete;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::runtime
