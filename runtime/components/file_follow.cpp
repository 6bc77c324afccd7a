// A file that grows, through its rotations; or, with end_of_input::at_end, what a flow has not read of it yet: then
// missing is an error only before anything was read.
//
// Positions count the bytes of all files that had the name, one after the other: each of them is a part of the input
// that begins at a position of its own. Parts are written down (consumer CONSUMER/follow: where it begins, inode,
// first bytes) before their first record leaves, so after a crash the same record has the same position again, also
// when its file has been renamed since: it is looked for by inode and first bytes among its neighbours. A file has ended
// when another one of its name holds something and it was read to its end after that was seen; a file that has become
// shorter, or begins differently, begins anew as the next part. What the name pointed to and lost again while nobody
// read is not read; the log names it when it is still among the neighbours.
//
// Told by inotify: nothing wakes while nothing happens.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "runtime/blocking_pool.hpp"
#include "runtime/components/file_follow.hpp"
#include "runtime/inotify.hpp"
#include "runtime/path_watch.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime::components {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t first_bytes = 256;          // by which a file is known again
constexpr std::size_t most_neighbours = 100'000;  // that are looked at for a file that was renamed
constexpr const char* part_step = "part";

// One file of the input.
struct part {
  std::int64_t begins = 0;  // position
  std::int64_t first = 0;   // offset in the file at that position
  std::uint64_t inode = 0;
  std::string start{};      // its first bytes, as far as they were there

  std::string text() const {
    return std::to_string(first) + " " + std::to_string(inode) + " " + start;
  }
};

// Nothing: it is damaged, or of another version.
std::optional<part> part_of(const state_entry& entry) {
  part p;
  const char* at = entry.value.data();
  const char* const end = at + entry.value.size();
  const auto begins = std::from_chars(entry.key.data(), entry.key.data() + entry.key.size(), p.begins);
  const auto first = std::from_chars(at, end, p.first);
  if (begins.ec != std::errc() || first.ec != std::errc() || first.ptr == end) return std::nullopt;
  const auto inode = std::from_chars(first.ptr + 1, end, p.inode);
  if (inode.ec != std::errc() || inode.ptr == end) return std::nullopt;
  p.start.assign(inode.ptr + 1, end);
  return p;
}

std::string key_of(std::int64_t begins) {
  char text[24];
  std::snprintf(text, sizeof text, "%020lld", static_cast<long long>(begins));
  return text;
}

struct look {
  std::uint64_t inode = 0;
  std::int64_t size = 0;
};

std::optional<look> look_at(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return look{info.st_ino, info.st_size};
}

std::string start_of(int descriptor) {
  std::string start(first_bytes, '\0');
  const ssize_t got = ::pread(descriptor, start.data(), start.size(), 0);
  start.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return start;
}

class file_follow final : public source {
 public:
  file_follow(std::string name, record_format format, bool start_at_end, end_of_input end,
              const component_context& context)
      : name_(std::move(name)),
        path_(fs::absolute(context.workdir / name_)),
        format_(format),
        start_at_end_(start_at_end),
        ends_(end == end_of_input::at_end),
        in_run_(context.run_context != nullptr),
        pool_(context.services.blocking),
        flows_(context.services.flows),
        consumer_(context.consumer + "/follow"),
        label_(context.label()),
        executor_(context.executor),
        changed_(std::make_shared<wakeup>(context.executor)) {}

  asio::awaitable<void> open(std::int64_t position) override {
    if (in_run_) throw std::runtime_error("follow: true never ends, so it is for flows");
    position_ = acknowledged_ = position;
    auto call = [this] { recall_input(); };
    co_await pool_.run(std::move(call));
    if (!unsaved_.empty()) co_await save();
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (!stopped_) {
      batch events = file_ ? file_->cut(most) : batch();
      if (!events.empty()) {
        if (!unsaved_.empty()) co_await save();
        position_ = file_->position();
        co_return std::move(events);
      }
      if (at_end_) break;
      auto call = [this] { return advance(); };
      const bool more = co_await pool_.run(std::move(call));
      if (more) continue;
      if (ends_) {
        at_end_ = true;
        if (file_) file_->complete();  // the last record needs no line end
        continue;
      }
      if (!watch_anew()) co_await changed_->wait();
    }
    co_return std::nullopt;
  }

  void acknowledge(std::int64_t position) override { acknowledged_ = position; }

  void stop_input() override {
    stopped_ = true;
    changed_->notify();
  }

 private:
  void recall_input();
  void recall_parts();
  void begin(std::int64_t position, std::int64_t offset, const fs::path& path);
  bool go_on(std::size_t index);
  std::optional<fs::path> find(const part& p) const;
  void warn_of_missed() const;
  bool is(const part& p, const fs::path& path) const;
  bool advance();
  bool began_anew();
  void know_start();
  asio::awaitable<void> save();
  bool watch_anew();

  const std::string name_;
  const fs::path path_;
  const record_format format_;
  const bool start_at_end_, ends_, in_run_;
  blocking_pool& pool_;
  flow_store& flows_;
  const std::string consumer_;
  const std::string label_;  // in the log
  const asio::any_io_executor executor_;
  const std::shared_ptr<wakeup> changed_;

  std::vector<part> parts_{};     // in order; the last is the newest
  std::size_t current_ = 0;       // of parts_: the one that is read, when there is a file
  std::unique_ptr<record_file> file_;
  std::vector<state_change> unsaved_{};
  std::int64_t position_ = 0;      // handed out
  std::int64_t acknowledged_ = 0;
  std::uint64_t opened_ = 0;       // files so far
  bool at_end_ = false;            // ends_: all that is there was read
  bool stopped_ = false;

  // Watching; on the strand.
  std::shared_ptr<inotify> kernel_;
  std::unique_ptr<path_watch> folder_path_;
  std::shared_ptr<void> folder_watch_, file_watch_;
  std::uint64_t watched_ = 0;  // which file: opened_ at that time
  bool folder_changed_ = true;
};

// ---------------------------------------------------------------------------------------------------------------
// After a start. Blocks.

void file_follow::recall_input() {
  recall_parts();
  if (parts_.empty()) {
    const std::optional<look> now = look_at(path_);
    if (!now && !ends_) return;  // it may come
    // Without parts a position comes from a time when the file was not followed: an offset in it.
    const std::int64_t size = now ? now->size : 0;
    const std::int64_t read = position_ == 0 && start_at_end_ ? size : position_;
    begin(position_, read <= size ? read : 0, path_);  // throws when there is no file
    return;
  }
  std::size_t index = parts_.size() - 1;
  while (index > 0 && parts_[index].begins > position_) --index;
  while (index < parts_.size() && !go_on(index)) ++index;
  if (!file_ && look_at(path_)) begin(position_, 0, path_);
}

// Those of another path, or from before a new beginning, say nothing about this input.
void file_follow::recall_parts() {
  const std::vector<state_entry> entries = flows_.load(consumer_).steps;
  for (const state_entry& entry : entries) {
    if (std::optional<part> p = entry.step == part_step ? part_of(entry) : std::nullopt) parts_.push_back(std::move(*p));
  }
  std::sort(parts_.begin(), parts_.end(), [](const part& a, const part& b) { return a.begins < b.begins; });
  const bool same_path = std::any_of(entries.begin(), entries.end(), [this](const state_entry& entry) {
    return entry.step == "path" && entry.value == path_.string();
  });
  if (same_path && !parts_.empty() && parts_.front().begins <= position_) return;
  for (const part& p : parts_) unsaved_.push_back({part_step, key_of(p.begins), std::nullopt});
  parts_.clear();
  unsaved_.push_back({"path", "path", path_.string()});
}

// Reads on in a part that was begun before; false: its file is not there any more.
bool file_follow::go_on(std::size_t index) {
  const part& p = parts_[index];
  const std::optional<fs::path> path = find(p);
  const std::int64_t from = std::max(position_, p.begins);
  const std::int64_t offset = p.first + from - p.begins;
  const std::optional<look> found = path ? look_at(*path) : std::nullopt;
  if (!found || found->size < offset) {
    spdlog::warn("{}: the {} that was read before is gone, and what was not read of it, if anything", label_, path_.string());
    return false;
  }
  const bool newest = index + 1 == parts_.size();
  const std::int64_t end =
      newest ? std::numeric_limits<std::int64_t>::max() : p.first + parts_[index + 1].begins - p.begins;
  file_ = std::make_unique<record_file>(*path, format_, name_, from, offset, end);
  ++opened_;
  current_ = index;
  return true;
}

std::optional<fs::path> file_follow::find(const part& p) const {
  if (is(p, path_)) return path_;
  std::error_code failed;
  std::size_t looked_at = 0;
  for (fs::directory_iterator at(path_.parent_path(), failed), end; !failed && at != end; at.increment(failed)) {
    if (++looked_at > most_neighbours) break;
    if (is(p, at->path())) return at->path();
  }
  return std::nullopt;
}

// Files that had the name after the newest part and have another one by now. Nobody knows their positions, so they are
// not read.
void file_follow::warn_of_missed() const {
  const std::optional<fs::path> newest = find(parts_.back());
  if (!newest || *newest == path_) return;
  std::error_code failed;
  const auto written = fs::last_write_time(*newest, failed);
  std::size_t looked_at = 0;
  for (fs::directory_iterator at(path_.parent_path(), failed), end; !failed && at != end; at.increment(failed)) {
    if (++looked_at > most_neighbours) break;
    const fs::path& other = at->path();
    const std::optional<look> found = look_at(other);
    const bool named_after = other != path_ && other.filename().string().starts_with(path_.filename().string());
    if (!found || !named_after || found->size == 0) continue;
    const bool known = std::any_of(parts_.begin(), parts_.end(), [&](const part& p) { return p.inode == found->inode; });
    std::error_code gone;
    if (known || fs::last_write_time(other, gone) <= written || gone) continue;
    spdlog::warn("{}: {} may have been {} while nobody read it: if so, its lines are lost", label_, other.string(),
                 path_.string());
  }
}

bool file_follow::is(const part& p, const fs::path& path) const {
  const std::optional<look> found = look_at(path);
  if (!found || found->inode != p.inode) return false;
  const unique_fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  return file.get() >= 0 && start_of(file.get()).starts_with(p.start);
}

// ---------------------------------------------------------------------------------------------------------------
// While it grows

// The next part: the file at `path` from `offset` on. Blocks.
void file_follow::begin(std::int64_t position, std::int64_t offset, const fs::path& path) {
  file_ = std::make_unique<record_file>(path, format_, name_, position, offset);
  ++opened_;
  struct stat info {};
  if (::fstat(file_->descriptor(), &info) != 0) throw std::runtime_error("cannot read " + path.string());
  if (S_ISDIR(info.st_mode)) throw std::runtime_error("cannot read " + path.string() + ": it is a folder");
  if (!parts_.empty() && parts_.back().begins == position) parts_.pop_back();  // nothing of it was read
  parts_.push_back({position, offset, info.st_ino, start_of(file_->descriptor())});
  current_ = parts_.size() - 1;
  unsaved_.push_back({part_step, key_of(position), parts_.back().text()});
}

// Reads on, here or in the next file. False: nothing to do before something changes. Blocks.
bool file_follow::advance() {
  if (!file_) {
    if (!look_at(path_)) return false;
    if (!parts_.empty()) warn_of_missed();
    begin(position_, 0, path_);
    return true;
  }
  if (file_->completed()) {
    position_ = std::max(position_, file_->position());
    file_.reset();
    while (++current_ < parts_.size()) {
      if (go_on(current_)) return true;
    }
    return true;
  }
  const bool newest = current_ + 1 == parts_.size();
  if (newest && began_anew()) return true;
  const std::optional<look> named = newest ? look_at(path_) : std::nullopt;
  const bool replaced = named && named->size > 0 && named->inode != parts_[current_].inode;  // before the last fill
  if (file_->fill()) {
    know_start();
    return true;
  }
  if (newest && !replaced) return false;
  file_->complete();
  return true;
}

// The file was cut, or cut and written again: what it held is gone.
bool file_follow::began_anew() {
  struct stat info {};
  if (::fstat(file_->descriptor(), &info) != 0) return false;
  const std::string start = start_of(file_->descriptor());
  if (info.st_size >= file_->read_to() && start.starts_with(parts_[current_].start)) return false;
  // By its descriptor: the name may lead to another file by now.
  const fs::path same = "/proc/self/fd/" + std::to_string(file_->descriptor());
  const auto old = std::move(file_);
  // One further than what was read, so that the two parts differ though nothing was read of the old one.
  begin(std::max(position_, old->position()) + 1, 0, same);
  return true;
}

// More of the first bytes are there now, by which the file will be known again.
void file_follow::know_start() {
  part& p = parts_[current_];
  if (p.start.size() >= first_bytes) return;
  std::string now = start_of(file_->descriptor());
  if (now.size() <= p.start.size() || !now.starts_with(p.start)) return;
  p.start = std::move(now);
  unsaved_.push_back({part_step, key_of(p.begins), p.text()});
}

// Parts that are safe downstream, with all before them, are forgotten.
asio::awaitable<void> file_follow::save() {
  while (parts_.size() > 1 && current_ > 0 && parts_[1].begins <= acknowledged_) {
    unsaved_.push_back({part_step, key_of(parts_.front().begins), std::nullopt});
    parts_.erase(parts_.begin());
    --current_;
  }
  commit next;
  next.consumer = consumer_;
  next.steps = std::exchange(unsaved_, {});
  co_await flows_.save(std::move(next));
}

// Watches what is not watched yet; true: it did so, and changes before are yet to be looked for.
bool file_follow::watch_anew() {
  const auto need = [](result<std::shared_ptr<void>> watched) {
    if (!watched) throw std::runtime_error(watched.error().detail);
    return std::move(*watched);
  };
  bool did = false;
  if (!kernel_) kernel_ = inotify::of(executor_);
  const auto folder_changed = [this] {
    folder_changed_ = true;
    changed_->notify();
  };
  if (!folder_path_) folder_path_ = std::make_unique<path_watch>(kernel_, path_.parent_path(), folder_changed);
  if (std::exchange(folder_changed_, false)) {
    did = true;
    folder_watch_.reset();
    const path_watch::place place = folder_path_->follow();
    if (!place.failure.empty()) throw std::runtime_error(place.failure);
    const auto tell = [this, wanted = path_.filename().string()](std::uint32_t mask, std::string_view changed) {
      if (changed.empty() || changed == wanted || (mask & IN_Q_OVERFLOW)) changed_->notify();
    };
    if (place.folder) {
      auto watched = kernel_->watch(*place.folder, IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR, tell);
      folder_watch_ = need(std::move(watched));
    }
  }
  if (file_ && watched_ != opened_) {
    did = true;
    watched_ = opened_;
    const auto tell = [this](std::uint32_t, std::string_view) { changed_->notify(); };
    file_watch_ = need(kernel_->watch("/proc/self/fd/" + std::to_string(file_->descriptor()), IN_MODIFY, tell));
  }
  return did;
}

}  // namespace

std::unique_ptr<source> make_file_follow(std::string path, record_format format, bool start_at_end, end_of_input end,
                                         const component_context& context) {
  return std::make_unique<file_follow>(std::move(path), format, start_at_end, end, context);
}

}  // namespace penstock::runtime::components
