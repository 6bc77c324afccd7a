#include "runtime/inotify.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <string>
#include <sys/inotify.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace penstock::runtime {

namespace {

error failure_of(int number, const std::string& what) {
  const errc code = number == ENOENT                                               ? errc::not_found
                    : number == ENOTDIR || number == ELOOP || number == ENAMETOOLONG ? errc::invalid
                    : number == EACCES                                             ? errc::forbidden
                                                                                   : errc::unavailable;
  std::string why = std::generic_category().message(number);
  if (number == ENOSPC) why = "fs.inotify.max_user_watches is reached";
  if (number == EMFILE) why = "fs.inotify.max_user_instances, or the limit of open files, is reached";
  return {code, what + ": " + why};
}

}  // namespace

struct inotify::token {
  token(std::shared_ptr<inotify> o, int w, std::uint64_t i) : owner(std::move(o)), watch(w), id(i) {}
  ~token() { owner->remove(watch, id); }
  token(const token&) = delete;
  token& operator=(const token&) = delete;

  std::shared_ptr<inotify> owner;
  int watch;
  std::uint64_t id;
};

std::shared_ptr<inotify> inotify::of(const asio::any_io_executor& executor) {
  static std::mutex mutex;
  static std::vector<std::weak_ptr<inotify>> all;
  const std::lock_guard lock(mutex);
  std::erase_if(all, [](const auto& one) { return one.expired(); });
  for (const auto& one : all) {
    auto known = one.lock();
    if (known && known->executor_ == executor) return known;
  }
  std::shared_ptr<inotify> made(new inotify(executor));
  all.push_back(made);
  return made;
}

std::optional<error> inotify::open() {
  if (descriptor_) return std::nullopt;
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) return failure_of(errno, "inotify");
  descriptor_.emplace(executor_, fd);
  ++opened_;
  wait();
  return std::nullopt;
}

result<std::shared_ptr<void>> inotify::watch(const std::filesystem::path& path, std::uint32_t mask,
                                             listener tell) {
  if (const auto failed = open()) return *failed;
  // Added to what others want to know of the same folder.
  const int number = ::inotify_add_watch(descriptor_->native_handle(), path.c_str(), mask | IN_MASK_ADD);
  if (number < 0) {
    const int why = errno;
    if (watches_.empty()) descriptor_.reset();
    return failure_of(why, path.string() + " cannot be watched");
  }
  const std::uint64_t id = next_id_++;
  watches_[number].emplace(id, entry{mask | IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT, std::move(tell)});
  return std::shared_ptr<void>(std::make_shared<token>(shared_from_this(), number, id));
}

void inotify::remove(int watch, std::uint64_t id) {
  const auto found = watches_.find(watch);
  if (found != watches_.end()) {
    found->second.erase(id);
    if (!found->second.empty()) return;
    watches_.erase(found);
    ::inotify_rm_watch(descriptor_->native_handle(), watch);
  }
  if (watches_.empty()) descriptor_.reset();
}

void inotify::wait() {
  descriptor_->async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = weak_from_this()](boost::system::error_code failure) {
                            const auto still = self.lock();
                            // Cancelled, and perhaps opened again by somebody else meanwhile.
                            if (failure || !still || !still->descriptor_) return;
                            still->read_changes();
                          });
}

// One read for each readiness, so that a flood takes turns with everything else on the executor.
void inotify::read_changes() {
  alignas(inotify_event) std::array<char, 32 << 10> bytes;
  const int fd = descriptor_->native_handle();
  const auto got = ::read(fd, bytes.data(), bytes.size());
  wait();
  const std::uint64_t opened = opened_;
  for (std::size_t at = 0; got > 0 && at < static_cast<std::size_t>(got);) {
    if (!descriptor_ || opened_ != opened) return;  // a new descriptor counts its watches anew
    const auto* change = reinterpret_cast<const inotify_event*>(bytes.data() + at);
    dispatch(change->wd, change->mask, change->len > 0 ? bytes.data() + at + sizeof(inotify_event) : "");
    at += sizeof(inotify_event) + change->len;
  }
}

void inotify::dispatch(int watch, std::uint32_t mask, std::string_view name) {
  std::vector<std::pair<int, std::uint64_t>> told;
  for (const auto& [number, entries] : watches_) {
    if (number != watch && !(mask & IN_Q_OVERFLOW)) continue;
    for (const auto& [id, one] : entries) {
      if (one.mask & mask) told.emplace_back(number, id);
    }
  }
  for (const auto& [number, id] : told) {
    // Looked up again, because a listener may have ended the watch of the next.
    const auto entries = watches_.find(number);
    if (entries == watches_.end()) continue;
    const auto one = entries->second.find(id);
    if (one == entries->second.end()) continue;
    const listener tell = one->second.tell;  // it may end itself
    tell(mask, name);
  }
  if (mask & IN_IGNORED) watches_.erase(watch);
}

}  // namespace penstock::runtime
