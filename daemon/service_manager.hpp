// What systemd is told (sd_notify(3)) and hands over (sd_listen_fds(3)); without systemd every call does nothing. Control thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <string>
#include <vector>

namespace penstock::daemon {

// A socket of a .socket unit. FileDescriptorName=https says that TLS is spoken on it.
struct inherited_socket {
  int fd = -1;
  std::string name{};
  bool tls = false;
};

// Those handed over at the start; the programs that the daemon starts get none of them. Call once, in main. Throws
// std::runtime_error when the variables of the environment that name them make no sense.
std::vector<inherited_socket> take_inherited_sockets();

class service_manager {
 public:
  // Feeds the watchdog from the control thread itself, at half its period, so that a stuck control thread is noticed.
  explicit service_manager(const boost::asio::any_io_executor& control);

  void ready(const std::string& status);
  void reloading();
  void stopping(const std::string& status);
  void stop_watchdog();

 private:
  void feed();
  boost::asio::steady_timer timer_;
  std::chrono::microseconds period_{0};
};

}  // namespace penstock::daemon
