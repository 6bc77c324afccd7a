#include "runtime/clock_watch.hpp"

#include <cerrno>
#include <cstdint>
#include <ctime>
#include <limits>
#include <sys/timerfd.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>

namespace penstock::runtime {

namespace {

int make_timer() {
  const int fd = ::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "timerfd_create");
  return fd;
}

}  // namespace

struct clock_watch::state : std::enable_shared_from_this<clock_watch::state> {
  state(asio::any_io_executor executor, std::function<void()> call)
      : timer(std::move(executor), make_timer()), was_set(std::move(call)) {}

  // To the end of time: only a set clock makes it readable. ECANCELED: the clock was set just now; it is armed all the
  // same.
  void arm() {
    itimerspec never{};
    never.it_value.tv_sec = std::numeric_limits<time_t>::max();
    const int flags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET;
    if (::timerfd_settime(timer.native_handle(), flags, &never, nullptr) != 0 && errno != ECANCELED) {
      throw std::system_error(errno, std::generic_category(), "timerfd_settime");
    }
  }

  void wait() {
    timer.async_wait(asio::posix::stream_descriptor::wait_read,
                     [self = weak_from_this()](boost::system::error_code failure) {
                       const auto s = self.lock();
                       if (!failure && s) s->look();
                     });
  }

  void look() {
    std::uint64_t expired = 0;
    const bool set = ::read(timer.native_handle(), &expired, sizeof expired) < 0 && errno == ECANCELED;
    // Before the call, so that a clock that is set during it is told again.
    arm();
    wait();
    if (set) was_set();
  }

  asio::posix::stream_descriptor timer;
  const std::function<void()> was_set;
};

clock_watch::clock_watch(asio::any_io_executor executor, std::function<void()> was_set)
    : state_(std::make_shared<state>(std::move(executor), std::move(was_set))) {
  state_->arm();
  state_->wait();
}

clock_watch::~clock_watch() = default;

}  // namespace penstock::runtime
