#include "daemon/service_manager.hpp"

#include <systemd/sd-daemon.h>
#include <time.h>

#include <cstdlib>
#include <stdexcept>
#include <system_error>

namespace penstock::daemon {

std::vector<inherited_socket> take_inherited_sockets() {
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(1, &names);
  if (count < 0)
    throw std::runtime_error("LISTEN_FDS: " + std::generic_category().message(-count));
  std::vector<inherited_socket> all;
  for (int i = 0; i < count; ++i) {
    const std::string name = names != nullptr && names[i] != nullptr ? names[i] : "unknown";
    all.push_back({SD_LISTEN_FDS_START + i, name, name == "https"});
  }
  for (int i = 0; names != nullptr && names[i] != nullptr; ++i) std::free(names[i]);
  std::free(static_cast<void*>(names));
  return all;
}

service_manager::service_manager(const boost::asio::any_io_executor& control) : timer_(control) {
  std::uint64_t microseconds = 0;
  if (::sd_watchdog_enabled(0, &microseconds) > 0) {
    period_ = std::chrono::microseconds(microseconds / 2);
    feed();
  }
}

void service_manager::feed() {
  ::sd_notify(0, "WATCHDOG=1");
  timer_.expires_after(period_);
  timer_.async_wait([this](const boost::system::error_code& cancelled) {
    if (!cancelled && period_.count() > 0) feed();
  });
}

void service_manager::ready(const std::string& status) { ::sd_notifyf(0, "READY=1\nSTATUS=%s", status.c_str()); }

void service_manager::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto microseconds = static_cast<long long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
  ::sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", microseconds);
}

void service_manager::stopping(const std::string& status) { ::sd_notifyf(0, "STOPPING=1\nSTATUS=%s", status.c_str()); }

void service_manager::stop_watchdog() {
  period_ = std::chrono::microseconds(0);
  timer_.cancel();
}

}  // namespace penstock::daemon
