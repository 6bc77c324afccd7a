// Tells when files of a folder change, through one inotify descriptor for all who ask.
//
// Control thread; owned by api. The descriptor is open only while somebody watches, so an idle daemon has
// neither a descriptor nor a wakeup. (One descriptor for all, because a user may have only some hundred of
// them.)
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include <boost/asio/any_io_executor.hpp>

namespace penstock::api {

namespace asio = boost::asio;

class log_watch {
 public:
  // `file`: the name in the folder; empty: any file may have changed (the kernel's queue was full).
  using listener = std::function<void(std::string_view file)>;

  explicit log_watch(asio::any_io_executor control);

  // Calls `changed` on the control thread after each write to a file of the folder, until the token is gone.
  // Makes the folder when it is missing, because what is to be watched may not have begun. Throws
  // std::system_error.
  std::shared_ptr<void> watch(const std::filesystem::path& folder, listener changed);

 private:
  struct state;
  struct token;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::api
