#include "api/log_watch.hpp"

#include <array>
#include <cerrno>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <sys/inotify.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <boost/asio/posix/stream_descriptor.hpp>

namespace penstock::api {

struct log_watch::state : std::enable_shared_from_this<log_watch::state> {
  explicit state(asio::any_io_executor control) : executor(std::move(control)) {}

  int add(const std::filesystem::path& folder);
  void remove(int watch, std::uint64_t id);
  void wait();
  void read_changes();
  void tell(const inotify_event& change, const char* name);

  asio::any_io_executor executor;
  std::optional<asio::posix::stream_descriptor> descriptor;
  std::map<int, std::map<std::uint64_t, listener>> watches;
  std::uint64_t next_id = 1;
};

struct log_watch::token {
  ~token() { owner->remove(watch, id); }
  std::shared_ptr<state> owner;
  int watch;
  std::uint64_t id;
};

log_watch::log_watch(asio::any_io_executor control) : state_(std::make_shared<state>(std::move(control))) {}

std::shared_ptr<void> log_watch::watch(const std::filesystem::path& folder, listener changed) {
  std::filesystem::create_directories(folder);
  const int watch = state_->add(folder);
  const std::uint64_t id = state_->next_id++;
  state_->watches[watch][id] = std::move(changed);
  return std::shared_ptr<token>(new token{state_, watch, id});
}

int log_watch::state::add(const std::filesystem::path& folder) {
  if (!descriptor) {
    const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) throw std::system_error(errno, std::generic_category(), "inotify");
    descriptor.emplace(executor, fd);
    wait();
  }
  const int watch = ::inotify_add_watch(descriptor->native_handle(), folder.c_str(), IN_MODIFY | IN_CREATE);
  if (watch < 0) {
    const int failure = errno;
    if (watches.empty()) descriptor.reset();
    throw std::system_error(failure, std::generic_category(), "cannot watch " + folder.string());
  }
  return watch;
}

void log_watch::state::remove(int watch, std::uint64_t id) {
  const auto found = watches.find(watch);
  if (found == watches.end()) return;
  found->second.erase(id);
  if (!found->second.empty()) return;
  watches.erase(found);
  ::inotify_rm_watch(descriptor->native_handle(), watch);
  if (watches.empty()) descriptor.reset();
}

void log_watch::state::wait() {
  descriptor->async_wait(asio::posix::stream_descriptor::wait_read,
                         [self = weak_from_this()](boost::system::error_code failure) {
                           const auto s = self.lock();
                           // Cancelled, and perhaps opened again by somebody else meanwhile.
                           if (failure || !s || !s->descriptor) return;
                           s->read_changes();
                           if (s->descriptor) s->wait();
                         });
}

void log_watch::state::read_changes() {
  alignas(inotify_event) std::array<char, 16 << 10> bytes;
  for (;;) {
    const auto size = ::read(descriptor->native_handle(), bytes.data(), bytes.size());
    if (size <= 0) return;
    for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
      const auto* change = reinterpret_cast<const inotify_event*>(bytes.data() + at);
      tell(*change, change->len > 0 ? bytes.data() + at + sizeof(inotify_event) : "");
      at += sizeof(inotify_event) + change->len;
    }
    if (!descriptor) return;
  }
}

void log_watch::state::tell(const inotify_event& change, const char* name) {
  const bool overflow = (change.mask & IN_Q_OVERFLOW) != 0;
  // Copies, because a listener may end its own watch.
  std::vector<listener> told;
  for (const auto& [watch, listeners] : watches) {
    if (!overflow && watch != change.wd) continue;
    for (const auto& [_, l] : listeners) told.push_back(l);
  }
  for (const listener& l : told) l(overflow ? std::string_view{} : std::string_view{name});
}

}  // namespace penstock::api
