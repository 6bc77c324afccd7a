#include "runtime/path_watch.hpp"

#include <cerrno>
#include <deque>
#include <string_view>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <system_error>
#include <utility>

namespace penstock::runtime {

namespace {

namespace fs = std::filesystem;

constexpr int most_links = 40;  // as the kernel (path_resolution(7))
constexpr std::uint32_t as_folder = IN_ONLYDIR | IN_DONT_FOLLOW;
constexpr std::uint32_t itself = IN_MOVE_SELF | IN_DELETE_SELF;
constexpr std::uint32_t names = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ATTRIB;
constexpr std::uint32_t watch_ended = IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT;

enum class kind { missing, folder, link, other };

kind kind_of(const fs::path& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) return kind::missing;
  return S_ISDIR(found.st_mode) ? kind::folder : S_ISLNK(found.st_mode) ? kind::link : kind::other;
}

void push_front(std::deque<std::string>& parts, const fs::path& path) {
  std::deque<std::string> more;
  for (const fs::path& part : path.relative_path()) {
    if (!part.empty() && part != ".") more.push_back(part.string());
  }
  parts.insert(parts.begin(), more.begin(), more.end());
}

}  // namespace

// How far a path has been followed.
struct path_watch::walk {
  fs::path reached = "/";
  std::deque<std::string> ahead{};
  int links = 0;
  std::string blind{};    // why the last name cannot be watched; empty: it is
  std::string failure{};  // a limit of the machine
};

path_watch::path_watch(std::shared_ptr<inotify> kernel, fs::path path, std::function<void()> changed)
    : kernel_(std::move(kernel)), path_(std::move(path)), changed_(std::move(changed)) {}

path_watch::place path_watch::follow() {
  watches_.clear();
  walk w;
  push_front(w.ahead, path_);
  while (!w.ahead.empty()) {
    const std::string name = std::move(w.ahead.front());
    w.ahead.pop_front();
    if (name == "..") {
      w.reached = w.reached.parent_path();
    } else if (!enter(w, name)) {
      return {std::nullopt, w.failure.empty() ? w.blind : w.failure};
    }
  }
  return {w.reached, w.failure};
}

// One part of the path; false: here it ends.
bool path_watch::enter(walk& w, const std::string& name) {
  const fs::path next = w.reached / name;
  w.blind.clear();
  // Folders on the way tell of their own end. The last one is also watched by its name, because a folder that some
  // process still works in does not tell; and so is whatever may become a folder, or another one.
  if (!w.ahead.empty() && kind_of(next) == kind::folder && enter_folder(w, next, false)) return true;
  watch_name(w, w.reached, name);
  switch (kind_of(next)) {
    case kind::folder:
      return enter_folder(w, next, true);
    case kind::link: {
      std::error_code failed;
      const fs::path target = fs::read_symlink(next, failed);
      if (failed) return false;  // gone by now: its name tells
      if (++w.links > most_links) {
        w.failure = path_.string() + ": " + std::generic_category().message(ELOOP);
        return false;
      }
      if (target.is_absolute()) w.reached = "/";
      push_front(w.ahead, target);
      return true;
    }
    default:
      return false;
  }
}

bool path_watch::enter_folder(walk& w, const fs::path& folder, bool named) {
  const auto tell = [this](std::uint32_t, std::string_view) { changed_(); };
  auto watched = kernel_->watch(folder, itself | as_folder, tell);
  if (watched) {
    watches_.push_back(std::move(*watched));
  } else if (const error e = watched.error(); e.code == errc::not_found || e.code == errc::invalid) {
    return false;  // replaced meanwhile
  } else if (e.code == errc::unavailable) {
    w.failure = e.detail;
  } else if (!named) {
    return false;  // not readable: at least its name is watched
  }
  w.reached = folder;
  return true;
}

void path_watch::watch_name(walk& w, const fs::path& folder, const std::string& name) {
  const auto tell = [this, name](std::uint32_t mask, std::string_view changed) {
    if ((mask & watch_ended) || changed.empty() || changed == name) changed_();
  };
  auto watched = kernel_->watch(folder, names | IN_ONLYDIR, tell);
  if (!watched) {
    w.blind = watched.error().detail;
    return;
  }
  watches_.push_back(std::move(*watched));
}

}  // namespace penstock::runtime
