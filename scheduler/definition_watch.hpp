// Applies definition files as they are saved: a file of the folder that was written and closed, or renamed into place, is
// live a moment later.
//
// Control thread; owned by the supervisor. Files that are being written are left alone until they are closed. A link inside
// may lead to several files at once, so a change of one looks at all that are links. What comes within
// `settle` is applied together, the first of it `longest_wait` later at most. A file that is gone leaves its pipeline as
// it is. Ends with stop(); what it was applying then is finished by whoever waits for the pipelines' gates.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/inotify.hpp"
#include "runtime/path_watch.hpp"
#include "runtime/wakeup.hpp"
#include "scheduler/pipeline_set.hpp"

namespace penstock::scheduler {

class definition_watch {
 public:
  static constexpr std::chrono::milliseconds settle{100};
  static constexpr std::chrono::milliseconds longest_wait{400};

  // `folder`: absolute.
  definition_watch(asio::any_io_executor control, pipeline_set& pipelines, std::filesystem::path folder);

  // Before the folder is read for the first time, so that nothing falls in between.
  void begin();
  asio::awaitable<void> run();  // until stop()
  void stop();

 private:
  void follow();
  void told(std::uint32_t mask, std::string_view name);
  asio::awaitable<void> apply();
  void add_links(std::vector<std::filesystem::path>& files) const;

  pipeline_set& pipelines_;
  const std::filesystem::path folder_;
  const std::shared_ptr<runtime::inotify> kernel_;
  std::optional<runtime::path_watch> path_;  // absent: stopped
  std::shared_ptr<void> watch_;  // null: the folder is not there
  const std::shared_ptr<runtime::wakeup> changed_;
  std::set<std::string> names_;  // of files that were saved or removed since the last apply()
  bool links_ = false;           // any that is a link may have changed
  bool all_ = false;             // any of them
  bool lost_ = false;            // the folder itself may be another one
  bool stopping_ = false;
};

}  // namespace penstock::scheduler
