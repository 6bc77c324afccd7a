// Files that arrive in a folder: which of them are complete.
//
// Everything on the given executor, which runs one thing at a time; owned by whoever asks. Told by inotify, so
// nothing wakes while nothing happens. A file is complete when nobody writes to it any more and it has not
// changed for `settle`. That nobody writes is known by a close after writing, or a move or link into the folder,
// and where the kernel says so (fcntl(2), leases) also for files that were there before: one that a writer still
// has open waits for its close. On file systems that cannot say, such files need only have settled.
//
// The folder may be missing, be replaced, or lie behind symbolic links: its path is followed again whenever a part
// of it changes. When the kernel lost changes, or the folder is another one, it is read anew. A folder that cannot
// be watched (permission, a limit of the machine) is tried again once a minute by complete(); see failure().
//
// Never files: folders and special files. A symbolic link counts when it leads to a regular file in the same folder:
// one that leads out of it could show a file that its maker may not read. Ends with the object: no call comes
// afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "config/time.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

struct arrived_file {
  std::filesystem::path path;
  std::int64_t size = 0;   // bytes
  timestamp modified{};    // its mtime
  std::string stamp;       // tells this content from a later one under the same name
};

// Device, inode, size and mtime of what is there now, links followed; empty: no regular file.
std::string stamp_of(const std::filesystem::path& file);

// fnmatch(3) with FNM_PERIOD: hidden files need a pattern that begins with a dot. A name that ends in .part, .tmp
// or ~, as unfinished ones do, needs a pattern that ends so.
bool matches_arrival(const std::string& pattern, const std::string& name);

class folder_watch {
 public:
  // `changed` is called on the executor after something happened by which complete() may know
  // more; many changes share a call. Never throws because of the folder.
  folder_watch(asio::any_io_executor executor, const std::filesystem::path& folder, std::string pattern,
               nanoseconds settle, std::function<void()> changed);
  ~folder_watch();
  folder_watch(const folder_watch&) = delete;
  folder_watch& operator=(const folder_watch&) = delete;

  // All that are complete at `now` (wall clock), those with the oldest mtime first, then by name. A file is in it as
  // long as it is there and does not change. One that was just removed may still be.
  std::vector<arrived_file> complete(timestamp now);
  // When a file that is still settling may be complete; nothing: not before `changed` is called.
  std::optional<timestamp> next_check(timestamp now) const;
  // Why it cannot watch; empty: it can. A missing folder is no failure.
  const std::string& failure() const;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::runtime
