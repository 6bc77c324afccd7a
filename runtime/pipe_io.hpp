// What those share who keep a program's pipes: moments that may be "never", and pipes that are read as they fill.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <cstddef>
#include <string_view>

#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

inline constexpr auto never = std::chrono::steady_clock::time_point::max();

// `never` when the sum is beyond what the clock can tell.
inline std::chrono::steady_clock::time_point later(std::chrono::steady_clock::time_point from, std::chrono::nanoseconds by) {
  return by > never - from ? never : from + by;
}

inline constexpr std::size_t pipe_bytes = 64 * 1024;  // what a pipe holds (pipe(7))
inline constexpr std::size_t most_left_behind = 64;  // processes that outlive their leader and are looked after at once

// What a pipe had to give. Valid until the next call of read_pipe() on this thread, so not across a co_await.
struct pipe_read {
  std::string_view bytes{};
  bool ended = false;  // end of file, or the pipe broke
};

// At most pipe_bytes. `fd` does not block: when nothing waits in it, no bytes come.
pipe_read read_pipe(int fd, std::size_t most = pipe_bytes);

// What waits in a pipe or socket right now; 0 also when that cannot be told.
std::size_t waiting_bytes(int fd);

// `to` owns it from now on, and does not block. Throws boost::system::system_error; then `from` still owns it.
void hand_over(unique_fd& from, boost::asio::posix::stream_descriptor& to);

}  // namespace penstock::runtime
