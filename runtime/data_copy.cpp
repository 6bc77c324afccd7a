#include "runtime/data_copy.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "config/time.hpp"
#include "runtime/database_copy.hpp"
#include "runtime/unique_fd.hpp"

namespace penstock::runtime {
namespace {

namespace fs = std::filesystem;
using steady = std::chrono::steady_clock;

// Live flows share the disk. Each slice is synced before the next, so that no fdatasync of theirs finds much of ours to
// wait for.
constexpr std::int64_t slice_bytes = 4 << 20;
constexpr std::int64_t bytes_per_second = 96 << 20;
constexpr std::uintmax_t least_free_bytes = 1 << 30;

[[noreturn]] void fail(const fs::path& path, const char* doing) {
  throw std::system_error(errno, std::generic_category(), path.string() + ": " + doing);
}

// Lower than anything live, and than batch work, too.
void give_way() {
  constexpr int ioprio_who_process = 1;
  constexpr int best_effort_lowest = (2 << 13) | 7;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 15);
  ::syscall(SYS_ioprio_set, ioprio_who_process, 0, best_effort_lowest);
}

// Keeps to the rate, and ends when it is told to.
class pace {
 public:
  explicit pace(const std::stop_token& stop) : stop_(stop) {}

  // After so many bytes were written.
  void spend(std::int64_t bytes) {
    due_ = std::max(due_, steady::now() - std::chrono::seconds(1)) +
           std::chrono::duration_cast<steady::duration>(std::chrono::duration<double>(static_cast<double>(bytes) / bytes_per_second));
    std::unique_lock lock(mutex_);
    wake_.wait_until(lock, stop_, due_, [] { return false; });
    if (stop_.stop_requested()) throw copy_stopped();
  }

 private:
  const std::stop_token& stop_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  steady::time_point due_ = steady::now();
};

struct database {
  fs::path below;  // relative to the data folder
  ino_t inode = 0;
  std::unique_ptr<sqlite::database_copy> copy;
};

// 0: there is no such file.
ino_t inode_of(const fs::path& file) {
  struct stat found {};
  return ::stat(file.c_str(), &found) == 0 ? found.st_ino : 0;
}

void list(const fs::path& data, const fs::path& below, std::vector<fs::path>& found) {
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(data / below, missing)) {
    std::error_code gone;
    if (entry.path().extension() == ".db" && entry.is_regular_file(gone)) found.push_back(below / entry.path().filename());
  }
}

std::vector<fs::path> databases_of(const fs::path& data) {
  std::vector<fs::path> found;
  list(data, "", found);
  list(data, "topics", found);
  return found;
}

using by_path = std::map<fs::path, database>;

// The daemon must not run out of files because of a backup.
void check_limit_of_files(const fs::path& data) {
  constexpr std::size_t each = 3;     // a database, its log and the index of that
  constexpr std::size_t spare = 100;  // for what is opened meanwhile
  std::error_code unknown;
  std::size_t open_now = 0;
  for (fs::directory_iterator at("/proc/self/fd", unknown), end; !unknown && at != end; at.increment(unknown)) ++open_now;
  const std::size_t needed = open_now + each * databases_of(data).size() + spare;
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || needed <= limit.rlim_cur) return;
  throw std::runtime_error("a backup of all topics takes up to " + std::to_string(needed) + " open files, and the limit is " +
                           std::to_string(limit.rlim_cur) + "; start the daemon with a higher one (LimitNOFILE= of its unit, ulimit -n)");
}

void open_view(by_path& views, const fs::path& data, const fs::path& below) {
  const ino_t inode = inode_of(data / below);
  if (inode == 0 || views.contains(below)) return;
  views.emplace(below, database{below, inode, std::make_unique<sqlite::database_copy>(data / below)});
}

// The views of all databases, as of one instant.
std::vector<database> open_views(const fs::path& data, const topics& all, commit_pause& commits, copy_progress& progress) {
  by_path views;
  // One by one and without holding anything for long, because opening takes longer than looking. No topic may go while its
  // file is being opened: what belongs to the old file could be found by the next one of that name.
  for (const auto& below : databases_of(data)) {
    all.hold_still([&] { open_view(views, data, below); });
  }
  all.hold_still([&] {
    const commit_pause::hold still(commits);
    std::erase_if(views, [&](const auto& v) { return inode_of(data / v.first) != v.second.inode; });  // removed meanwhile
    for (const auto& below : databases_of(data)) open_view(views, data, below);  // or new
    for (auto& [below, view] : views) view.copy->fix_view();
    progress.as_of = to_micros(wall_now());
    commits.viewed = true;
  });
  std::vector<database> fixed;
  for (auto& [below, view] : views) fixed.push_back(std::move(view));
  return fixed;
}

// As long as views are open the write-ahead logs only grow, and a full disk would stop the daemon.
void require_space(const fs::path& data) {
  std::error_code unknown;
  const auto space = fs::space(data, unknown);
  if (unknown || space.available >= least_free_bytes) return;
  throw std::runtime_error("less than " + format_size(static_cast<std::int64_t>(least_free_bytes)) + " are free beside " + data.string() +
                           ", and the logs of its databases grow while it is copied");
}

void copy_database(const fs::path& data, database& from, const fs::path& to, pace& rate, copy_progress& progress) {
  const fs::path copy = to / from.below;
  from.copy->begin(copy);
  while (!from.copy->done()) {
    const auto bytes = from.copy->step(slice_bytes);
    progress.bytes_done += bytes;
    require_space(data);
    if (!from.copy->done()) sync_file(copy);
    rate.spend(bytes);
  }
  from.copy->close();
  from.copy.reset();
  sync_file(copy);
  ++progress.files_done;
}

std::vector<fs::path> log_files(const fs::path& data, copy_progress& progress) {
  std::vector<fs::path> found;
  std::error_code gone;  // runs come and go
  for (fs::recursive_directory_iterator at(data / "logs", gone), end; !gone && at != end; at.increment(gone)) {
    std::error_code no_size;
    if (!at->is_regular_file(no_size)) continue;
    found.push_back(at->path());
    const auto size = at->file_size(no_size);
    if (!no_size) progress.bytes += static_cast<std::int64_t>(size);
    ++progress.files;
  }
  return found;
}

// As much as is there now; a log that is gone meanwhile is left out.
void copy_log(const fs::path& from, const fs::path& to, pace& rate, copy_progress& progress) {
  const unique_fd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  ++progress.files_done;
  if (in.get() < 0) return;
  fs::create_directories(to.parent_path());
  const unique_fd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
  if (out.get() < 0) fail(to, "making it");
  std::vector<char> piece(1 << 20);
  for (;;) {
    const ssize_t got = ::read(in.get(), piece.data(), piece.size());
    if (got < 0) fail(from, "reading it");
    if (got == 0) break;
    for (ssize_t at = 0; at < got;) {
      const ssize_t put = ::write(out.get(), piece.data() + at, static_cast<std::size_t>(got - at));
      if (put < 0) fail(to, "writing it");
      at += put;
    }
    progress.bytes_done += got;
    rate.spend(got);
  }
  if (::fdatasync(out.get()) != 0) fail(to, "syncing it");
}

void sync_folders(const fs::path& top) {
  for (const auto& entry : fs::recursive_directory_iterator(top)) {
    if (entry.is_directory()) sync_folder(entry.path());
  }
  sync_folder(top);
}

void copy_views(std::vector<database>& views, const fs::path& data, const fs::path& to, bool logs, copy_progress& progress,
                const std::stop_token& stop) {
  give_way();
  pace rate(stop);
  // The smallest first: the sooner a view is closed, the less its log grows.
  std::sort(views.begin(), views.end(), [](const database& a, const database& b) { return a.copy->bytes() < b.copy->bytes(); });
  std::int64_t bytes = 0;
  for (const auto& view : views) bytes += view.copy->bytes();
  progress.bytes = bytes;
  progress.files = static_cast<int>(views.size());
  fs::create_directory(to / "topics");
  const auto texts = logs ? log_files(data, progress) : std::vector<fs::path>();
  for (auto& view : views) copy_database(data, view, to, rate, progress);
  for (const auto& file : texts) copy_log(file, to / file.lexically_relative(data), rate, progress);
  sync_folders(to);
}

}  // namespace

void sync_file(const fs::path& file) {
  const unique_fd fd(::open(file.c_str(), O_RDWR | O_CLOEXEC));
  if (fd.get() < 0 || ::fdatasync(fd.get()) != 0) fail(file, "syncing it");
}

void sync_folder(const fs::path& folder) {
  const unique_fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) fail(folder, "syncing it");
}

void copy_data(const fs::path& data, const fs::path& to, bool logs, const topics& all, commit_pause& commits,
               copy_progress& progress, const std::stop_token& stop) {
  // Whatever happens, the logs of the databases are to be folded again.
  struct end_of_views {
    commit_pause& commits;
    std::vector<database> views{};
    ~end_of_views() {
      views.clear();
      commits.viewed = false;
    }
  } held{commits};
  check_limit_of_files(data);
  // At the caller's priority: commits wait for it.
  held.views = open_views(data, all, commits, progress);

  std::exception_ptr failure;
  std::thread slow([&] {
    try {
      copy_views(held.views, data, to, logs, progress, stop);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  slow.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace penstock::runtime
