// A copy of the data folder as it is at one instant, while the daemon works: what a backup is made of.
//
// All databases (DATA/*.db and DATA/topics/*.db) are opened, all commits are held for the few milliseconds that it takes to
// begin a read transaction in each, and then they are copied at leisure. So the copy looks like a folder after a crash at that
// instant, only that nothing is torn: cursors, runs, topics and producers' positions belong together, and every guarantee
// that holds after a crash holds after a restore. Copying databases one after another could not do that in any order: a topic
// that is copied later than its source would remember positions of events that the copied source has not got, and refuse the
// new events that take these positions.
//
// Blocks; meant for a thread of its own kind. The copy is made slowly (see data_copy.cpp) and by a thread of low priority.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <stop_token>
#include <vector>

#include "config/time.hpp"
#include "runtime/commit_pause.hpp"
#include "runtime/topic.hpp"

namespace penstock::runtime {

struct copy_progress {
  std::atomic<std::int64_t> as_of{0};  // microseconds since the epoch; 0: the instant has not come yet
  std::atomic<std::int64_t> bytes{0}, bytes_done{0};
  std::atomic<int> files{0}, files_done{0};
};

// The copy was told to stop.
class copy_stopped : public std::runtime_error {
 public:
  copy_stopped() : std::runtime_error("stopped") {}
};

// Copies into `to`, an empty folder, and syncs all of it. `logs`: DATA/logs, too. Throws copy_stopped, or
// std::runtime_error that says what is wrong; what is in `to` then is of no use.
void copy_data(const std::filesystem::path& data, const std::filesystem::path& to, bool logs, const topics& all,
               commit_pause& commits, copy_progress& progress, const std::stop_token& stop);

// Makes what was written to the file, or renamed or made in the folder, durable. Throw std::system_error.
void sync_file(const std::filesystem::path& file);
void sync_folder(const std::filesystem::path& folder);

}  // namespace penstock::runtime
