#include "runtime/pipe_io.hpp"

#include <algorithm>
#include <cerrno>
#include <memory>

#include <sys/ioctl.h>
#include <unistd.h>

namespace penstock::runtime {

// Not inlined, so that no coroutine keeps the address of the thread's buffer across a co_await.
[[gnu::noinline]] pipe_read read_pipe(int fd, std::size_t most) {
  thread_local const auto buffer = std::make_unique_for_overwrite<char[]>(pipe_bytes);
  const auto got = ::read(fd, buffer.get(), std::min(most, pipe_bytes));
  if (got > 0) return {{buffer.get(), static_cast<std::size_t>(got)}, false};
  return {{}, got == 0 || (errno != EAGAIN && errno != EINTR)};
}

std::size_t waiting_bytes(int fd) {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

void hand_over(unique_fd& from, boost::asio::posix::stream_descriptor& to) {
  to.assign(from.get());
  from.release();
  to.non_blocking(true);
}

}  // namespace penstock::runtime
