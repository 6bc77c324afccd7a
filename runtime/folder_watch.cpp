#include "runtime/folder_watch.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fnmatch.h>
#include <map>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <boost/asio/post.hpp>

#include "runtime/inotify.hpp"
#include "runtime/path_watch.hpp"
#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

namespace {

namespace fs = std::filesystem;
using std::chrono::microseconds;

constexpr std::uint32_t contents = IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM;
constexpr std::uint32_t changes_lost = IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT;
constexpr auto try_again_after = std::chrono::minutes{1};

// Which content stands under a name.
struct content_id {
  dev_t device = 0;
  ino_t inode = 0;
  std::int64_t size = 0;
  std::int64_t modified_ns = 0;
  bool operator==(const content_id&) const = default;

  explicit content_id(const struct stat& s)
      : device(s.st_dev),
        inode(s.st_ino),
        size(s.st_size),
        modified_ns(s.st_mtim.tv_sec * std::int64_t{1'000'000'000} + s.st_mtim.tv_nsec) {}
  content_id() = default;

  timestamp modified() const {
    return timestamp{std::chrono::floor<microseconds>(nanoseconds{modified_ns})};
  }
  std::string stamp() const {
    return std::to_string(device) + ":" + std::to_string(inode) + ":" + std::to_string(size) + ":" +
           std::to_string(modified_ns);
  }
};

enum class written_by { none, some, unknown };

// Whether anybody has it open for writing: then the kernel gives no read lease on it (fcntl(2), F_SETLEASE). It gives
// one only for one's own files, or to the capability CAP_LEASE. It ends with the descriptor, at once; the signal for
// somebody who opens the file in this moment is turned into one that does nothing.
written_by writer_of(int fd) {
  if (::fcntl(fd, F_SETSIG, SIGURG) != 0) return written_by::unknown;
  if (::fcntl(fd, F_SETLEASE, F_RDLCK) == 0) return written_by::none;
  return errno == EAGAIN ? written_by::some : written_by::unknown;
}

struct sight {
  content_id content{};
  written_by being_written = written_by::unknown;
  bool linked = false;   // it has another name, or is a symbolic link: nobody need close it
  std::string target{};  // of a symbolic link: the name in the same folder
};

// A regular file, or a symbolic link to one in the same folder; else nothing.
std::optional<sight> look_at(const fs::path& folder, const std::string& name) {
  sight seen;
  fs::path file = folder / name;
  struct stat found {};
  if (::lstat(file.c_str(), &found) != 0) return std::nullopt;
  if (S_ISLNK(found.st_mode)) {
    std::error_code failed;
    file = fs::canonical(file, failed);
    if (failed || file.parent_path() != folder || ::lstat(file.c_str(), &found) != 0) return std::nullopt;
    seen.target = file.filename().string();
  }
  if (!S_ISREG(found.st_mode)) return std::nullopt;
  const unique_fd open(::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC));
  if (open.get() >= 0) {
    if (::fstat(open.get(), &found) != 0 || !S_ISREG(found.st_mode)) return std::nullopt;
    seen.being_written = writer_of(open.get());
  }
  seen.content = content_id(found);
  seen.linked = found.st_nlink > 1 || !seen.target.empty();
  return seen;
}

// What is known of a file whose name matches.
struct entry {
  std::optional<timestamp> touched{};  // the last change that the kernel told
  bool closed = true;                  // that was a close after writing, or it was moved here
  bool writing = false;                // somebody has it open: a close will come
  bool complete = false;
  bool seen = false;  // what follows was looked up
  timestamp quiet_since{};
  content_id content{};
};

// Until when nothing must happen.
timestamp settled_at(const entry& e, nanoseconds settle) {
  const auto wait = std::chrono::ceil<microseconds>(settle);
  timestamp since = e.seen ? e.quiet_since : timestamp::min();
  if (e.touched) since = std::max(since, *e.touched);
  return since > timestamp::max() - wait ? timestamp::max() : since == timestamp::min() ? since : since + wait;
}

}  // namespace

std::string stamp_of(const fs::path& file) {
  struct stat found {};
  if (::stat(file.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return {};
  return content_id(found).stamp();
}

bool matches_arrival(const std::string& pattern, const std::string& name) {
  constexpr std::array<std::string_view, 3> unfinished{".part", ".tmp", "~"};
  for (const std::string_view end : unfinished) {
    if (name.ends_with(end) && !pattern.ends_with(end)) return false;
  }
  return ::fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) == 0;
}

struct folder_watch::state : std::enable_shared_from_this<folder_watch::state> {
  state(asio::any_io_executor e, const fs::path& f, std::string p, nanoseconds s, std::function<void()> c)
      : executor(std::move(e)),
        shown(fs::absolute(f)),
        pattern(std::move(p)),
        settle(s),
        changed(std::move(c)),
        kernel(inotify::of(executor)),
        path(kernel, shown, [this] { look_later(); }) {}

  void look_later() {
    stale = true;
    tell_later();
  }
  void tell_later();
  void look();
  void list();
  void take_note(std::uint32_t mask, std::string_view name);
  void update(std::uint32_t mask, const std::string& name);
  bool judge(const std::string& name, entry& e, timestamp now);
  void look_if_due(timestamp now);

  const asio::any_io_executor executor;
  const fs::path shown;
  const std::string pattern;
  const nanoseconds settle;
  const std::function<void()> changed;
  const std::shared_ptr<inotify> kernel;
  path_watch path;
  std::shared_ptr<void> watching;    // the folder's contents
  std::optional<fs::path> folder{};  // without symbolic links; nothing: there is none
  std::map<std::string, entry> files{};
  std::map<std::string, std::string> links{};  // symbolic ones among them, and to which name they lead
  bool stale = false;  // the path has to be followed again, and the folder read
  bool telling = false;
  std::string failure{};
  timestamp try_again{};
};

void folder_watch::state::tell_later() {
  if (std::exchange(telling, true)) return;
  asio::post(executor, [self = weak_from_this()] {
    const auto s = self.lock();
    if (!s) return;
    s->telling = false;
    if (s->stale) s->look();
    s->changed();
  });
}

// Follows the path and reads the folder. What was known of a file stays; that it is open is asked anew.
void folder_watch::state::look() {
  stale = false;
  watching.reset();
  path_watch::place found = path.follow();
  folder = std::move(found.folder);
  failure = std::move(found.failure);
  if (folder) {
    const auto tell = [this](std::uint32_t mask, std::string_view name) { take_note(mask, name); };
    auto watched = kernel->watch(*folder, contents | IN_ONLYDIR | IN_DONT_FOLLOW, tell);
    if (watched) {
      watching = std::move(*watched);
      list();
    } else {
      failure = watched.error().detail;
      folder.reset();
    }
  }
  if (!folder) {
    files.clear();
    links.clear();
  }
  if (!failure.empty()) try_again = wall_now() + try_again_after;
}

void folder_watch::state::list() {
  std::map<std::string, entry> known = std::exchange(files, {});
  std::error_code failed;
  fs::directory_iterator at(*folder, failed);
  for (; !failed && at != fs::directory_iterator(); at.increment(failed)) {
    const std::string name = at->path().filename().string();
    std::error_code ignored;
    if (!matches_arrival(pattern, name) || (!at->is_symlink(ignored) && at->is_directory(ignored))) continue;
    entry e;
    if (const auto found = known.find(name); found != known.end()) e = std::move(found->second);
    e.closed = true;
    e.writing = e.complete = false;
    files.emplace(name, std::move(e));
  }
  if (failed) failure = folder->string() + " cannot be read: " + failed.message();
}

void folder_watch::state::take_note(std::uint32_t mask, std::string_view changed_name) {
  if (mask & changes_lost) return look_later();
  const std::string name(changed_name);
  if (name.empty()) return;
  if (matches_arrival(pattern, name)) update(mask, name);
  // What leads to it is as complete as itself.
  for (const auto& [link, target] : links) {
    if (target == name && files.contains(link)) update(mask, link);
  }
}

void folder_watch::state::update(std::uint32_t mask, const std::string& name) {
  if (mask & (IN_DELETE | IN_MOVED_FROM | IN_ISDIR)) {
    files.erase(name);
    return;
  }
  const auto [at, is_new] = files.try_emplace(name);
  entry& e = at->second;
  const bool known_open = !is_new && (e.writing || !e.closed);
  e.touched = wall_now();
  e.complete = false;
  e.closed = (mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0;
  if (e.closed) e.writing = false;
  // A writer at work is no news: whoever asked about it was told when to ask again, or will hear of its close.
  if (e.closed || !known_open) tell_later();
}

// Looks at a file that should have settled; false: it is none. One whose mtime lies ahead has not changed since it
// was first seen so.
bool folder_watch::state::judge(const std::string& name, entry& e, timestamp now) {
  links.erase(name);
  const std::optional<sight> found = look_at(*folder, name);
  if (!found) return false;
  const timestamp modified = found->content.modified();
  if (modified <= now) {
    e.quiet_since = modified;
  } else if (!e.seen || e.content != found->content) {
    e.quiet_since = e.touched.value_or(now);
  }
  e.seen = true;
  e.content = found->content;
  if (!found->target.empty()) links.emplace(name, found->target);
  const bool may_be_open = found->being_written == written_by::unknown && !e.closed && !found->linked;
  e.writing = found->being_written == written_by::some || may_be_open;
  e.complete = !e.writing && settled_at(e, settle) <= now;
  if (e.complete) e.closed = true;
  return true;
}

void folder_watch::state::look_if_due(timestamp now) {
  try_again = std::min(try_again, now + try_again_after);  // the clock may have been set back
  if (stale || (!failure.empty() && now >= try_again)) look();
}

folder_watch::folder_watch(asio::any_io_executor executor, const fs::path& folder, std::string pattern,
                           nanoseconds settle, std::function<void()> changed)
    : state_(std::make_shared<state>(std::move(executor), folder, std::move(pattern), settle, std::move(changed))) {
  state_->look();
}

folder_watch::~folder_watch() = default;

std::vector<arrived_file> folder_watch::complete(timestamp now) {
  state& s = *state_;
  s.look_if_due(now);
  std::vector<std::pair<std::int64_t, decltype(s.files)::const_iterator>> found;
  for (auto at = s.files.begin(); at != s.files.end();) {
    entry& e = at->second;
    if (e.touched) e.touched = std::min(*e.touched, now);  // the clock was set back: it settles anew
    if (e.seen && !e.complete) e.quiet_since = std::min(e.quiet_since, now);
    const bool due = !e.complete && !e.writing && settled_at(e, s.settle) <= now;
    if (due && !s.judge(at->first, e, now)) {
      at = s.files.erase(at);
      continue;
    }
    if (e.complete) found.emplace_back(e.content.modified_ns, at);
    ++at;
  }
  // The map has them by name already.
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<arrived_file> out;
  out.reserve(found.size());
  for (const auto& [_, at] : found) {
    const content_id& content = at->second.content;
    out.push_back({s.shown / at->first, content.size, content.modified(), content.stamp()});
  }
  return out;
}

std::optional<timestamp> folder_watch::next_check(timestamp now) const {
  const state& s = *state_;
  std::optional<timestamp> next;
  const auto sooner = [&](timestamp at) { next = std::max(now, next ? std::min(*next, at) : at); };
  for (const auto& [_, e] : s.files) {
    if (!e.complete && !e.writing) sooner(settled_at(e, s.settle));
  }
  if (!s.failure.empty()) sooner(std::min(s.try_again, now + try_again_after));
  return next;
}

const std::string& folder_watch::failure() const { return state_->failure; }

}  // namespace penstock::runtime
