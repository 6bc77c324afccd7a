#include "daemon/service_manager.hpp"

#include <systemd/sd-daemon.h>
#include <time.h>

#include <cstdlib>
#include <stdexcept>
#include <system_error>

#include "runtime/shared_library.hpp"

namespace penstock::daemon {

namespace {

// libsystemd, loaded only where something started us that speaks its protocol.
struct libsystemd {
  const runtime::shared_library file{"libsystemd.so.0", "libsystemd0"};
  decltype(&::sd_notify) const notify = file.function<decltype(::sd_notify)>("sd_notify");
  decltype(&::sd_watchdog_enabled) const watchdog_enabled = file.function<decltype(::sd_watchdog_enabled)>("sd_watchdog_enabled");
  decltype(&::sd_listen_fds_with_names) const listen_fds_with_names =
      file.function<decltype(::sd_listen_fds_with_names)>("sd_listen_fds_with_names");
};

const libsystemd& systemd() {
  static const libsystemd loaded;
  return loaded;
}

bool has(const char* variable) { return std::getenv(variable) != nullptr; }

void notify(const std::string& lines) {
  if (has("NOTIFY_SOCKET")) systemd().notify(0, lines.c_str());
}

}  // namespace

std::vector<inherited_socket> take_inherited_sockets() {
  if (!has("LISTEN_FDS")) return {};
  char** names = nullptr;
  const int count = systemd().listen_fds_with_names(1, &names);
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
  if (has("WATCHDOG_USEC") && systemd().watchdog_enabled(0, &microseconds) > 0) {
    period_ = std::chrono::microseconds(microseconds / 2);
    feed();
  }
}

void service_manager::feed() {
  notify("WATCHDOG=1");
  timer_.expires_after(period_);
  timer_.async_wait([this](const boost::system::error_code& cancelled) {
    if (!cancelled && period_.count() > 0) feed();
  });
}

void service_manager::ready(const std::string& status) { notify("READY=1\nSTATUS=" + status); }

void service_manager::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto microseconds = static_cast<long long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
  notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(microseconds));
}

void service_manager::stopping(const std::string& status) { notify("STOPPING=1\nSTATUS=" + status); }

void service_manager::stop_watchdog() {
  period_ = std::chrono::microseconds(0);
  timer_.cancel();
}

}  // namespace penstock::daemon
