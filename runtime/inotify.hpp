// Changes of files and folders as the kernel tells them (inotify(7)).
//
// One descriptor for all watches of an executor, because a user may have only some hundred of them
// (fs.inotify.max_user_instances): made with the first watch, closed with the last. All calls and all listeners
// on that executor, which runs one thing at a time. Nothing wakes while nothing changes. A listener may make and
// end watches, its own too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "config/error.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class inotify : public std::enable_shared_from_this<inotify> {
 public:
  // `mask` as in inotify(7). IN_Q_OVERFLOW: changes were lost, so look for yourself. IN_IGNORED: the watch has
  // ended, because what it watched has gone. `name`: which file of a watched folder; empty: the folder itself.
  using listener = std::function<void(std::uint32_t mask, std::string_view name)>;

  // The one of this executor; kept by its watches.
  static std::shared_ptr<inotify> of(const asio::any_io_executor& executor);

  // Tells of the changes in `mask` until the token is gone. Flags such as IN_ONLYDIR may be added.
  // errc::not_found: no such folder; errc::invalid: it is something else (IN_ONLYDIR, IN_DONT_FOLLOW);
  // errc::forbidden; errc::unavailable: a limit of the machine.
  result<std::shared_ptr<void>> watch(const std::filesystem::path& path, std::uint32_t mask, listener tell);

 private:
  struct token;
  struct entry {
    std::uint32_t mask;
    listener tell;
  };

  explicit inotify(asio::any_io_executor executor) : executor_(std::move(executor)) {}
  std::optional<error> open();
  void wait();
  void read_changes();
  void dispatch(int watch, std::uint32_t mask, std::string_view name);
  void remove(int watch, std::uint64_t id);

  const asio::any_io_executor executor_;
  std::optional<asio::posix::stream_descriptor> descriptor_;  // while there is a watch
  std::map<int, std::map<std::uint64_t, entry>> watches_;     // by the kernel's number
  std::uint64_t next_id_ = 1;
  std::uint64_t opened_ = 0;  // how often there was a new descriptor
};

}  // namespace penstock::runtime
