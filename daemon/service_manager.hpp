// What systemd is told (sd_notify(3)); without systemd every call does nothing. Control thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <string>

namespace penstock::daemon {

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
