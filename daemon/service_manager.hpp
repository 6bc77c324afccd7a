// What systemd is told (sd_notify(3), sd_watchdog_enabled(3)) and hands over (sd_listen_fds(3)); without systemd every call does
// nothing. Control thread. The protocol is kept stable for those who speak it themselves (systemd's portability promise): a
// datagram and five variables of the environment, where libsystemd would take a MiB in every daemon that runs as a service.
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
  // Feeds the watchdog from the control thread itself, at half its period, so that a stuck control thread is noticed. Throws
  // std::runtime_error when the variables that ask for it make no sense.
  explicit service_manager(const boost::asio::any_io_executor& control);

  void ready(const std::string& status);
  void reloading();
  void stopping(const std::string& status);
  void stop_watchdog();

 private:
  void tell(const std::string& lines);
  void feed();

  const std::string notify_socket_;  // empty: nobody listens
  bool in_trouble_ = false;          // the last message did not arrive, and that was logged
  boost::asio::steady_timer timer_;
  std::chrono::microseconds period_{0};
};

}  // namespace penstock::daemon
