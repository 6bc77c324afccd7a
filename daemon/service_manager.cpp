#include "daemon/service_manager.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "runtime/unique_fd.hpp"

namespace penstock::daemon {

namespace {

constexpr int first_inherited = 3;  // sd_listen_fds(3): they follow stdin, stdout and stderr

std::string text_of(const char* variable) {
  const char* const value = std::getenv(variable);
  return value == nullptr ? std::string() : value;
}

// Nothing: the variable is not set. Throws std::runtime_error when it is no number.
std::optional<std::int64_t> number_of(const char* variable) {
  const std::string text = text_of(variable);
  if (text.empty()) return std::nullopt;
  std::int64_t number = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (wrong != std::errc() || end != text.data() + text.size() || number < 0)
    throw std::runtime_error(std::string(variable) + ": '" + text + "' is no number");
  return number;
}

bool is_for_us(const char* variable) { return number_of(variable).value_or(::getpid()) == ::getpid(); }

// What went wrong, or nothing. `where`: a path, or a name in the abstract namespace behind an @ (sd_notify(3)).
std::string send_to(const std::string& where, const std::string& lines) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if ((where[0] != '/' && where[0] != '@') || where.size() >= sizeof(address.sun_path)) return "NOTIFY_SOCKET names no socket of this machine";
  std::memcpy(address.sun_path, where.data(), where.size());
  if (where[0] == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + where.size());
  const runtime::unique_fd out(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const bool sent = out.get() >= 0 && ::sendto(out.get(), lines.data(), lines.size(), MSG_NOSIGNAL,
                                               reinterpret_cast<const sockaddr*>(&address), size) >= 0;
  return sent ? std::string() : std::generic_category().message(errno);
}

}  // namespace

std::vector<inherited_socket> take_inherited_sockets() {
  std::vector<inherited_socket> all;
  if (const auto count = number_of("LISTEN_FDS"); count && is_for_us("LISTEN_PID")) {
    std::istringstream names(text_of("LISTEN_FDNAMES"));
    for (int fd = first_inherited; fd < first_inherited + *count; ++fd) {
      if (::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        throw std::runtime_error("LISTEN_FDS: descriptor " + std::to_string(fd) + ": " + std::generic_category().message(errno));
      std::string name;
      if (!std::getline(names, name, ':')) name = "unknown";
      const bool tls = name == "https";
      all.push_back({fd, std::move(name), tls});
    }
  }
  for (const char* variable : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) ::unsetenv(variable);
  return all;
}

service_manager::service_manager(const boost::asio::any_io_executor& control)
    : notify_socket_(text_of("NOTIFY_SOCKET")), timer_(control) {
  const auto microseconds = number_of("WATCHDOG_USEC");
  if (microseconds.value_or(0) == 0 || !is_for_us("WATCHDOG_PID")) return;
  period_ = std::min<std::chrono::microseconds>(std::chrono::microseconds(*microseconds / 2), std::chrono::hours(1));
  feed();
}

// It serves all the same when systemd cannot be told.
void service_manager::tell(const std::string& lines) {
  if (notify_socket_.empty()) return;
  const std::string trouble = send_to(notify_socket_, lines);
  if (!trouble.empty() && !std::exchange(in_trouble_, true)) spdlog::warn("systemd cannot be told how this is: {}", trouble);
  if (trouble.empty()) in_trouble_ = false;
}

void service_manager::feed() {
  tell("WATCHDOG=1");
  timer_.expires_after(period_);
  timer_.async_wait([this](const boost::system::error_code& cancelled) {
    if (!cancelled && period_.count() > 0) feed();
  });
}

void service_manager::ready(const std::string& status) { tell("READY=1\nSTATUS=" + status); }

void service_manager::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto microseconds = static_cast<long long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
  tell("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(microseconds));
}

void service_manager::stopping(const std::string& status) { tell("STOPPING=1\nSTATUS=" + status); }

void service_manager::stop_watchdog() {
  period_ = std::chrono::microseconds(0);
  timer_.cancel();
}

}  // namespace penstock::daemon
