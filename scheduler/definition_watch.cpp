#include "scheduler/definition_watch.hpp"

#include <spdlog/spdlog.h>
#include <sys/inotify.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace penstock::scheduler {

namespace fs = std::filesystem;
using steady = std::chrono::steady_clock;

definition_watch::definition_watch(asio::any_io_executor control, pipeline_set& pipelines, fs::path folder)
    : pipelines_(pipelines),
      folder_(std::move(folder)),
      kernel_(runtime::inotify::of(control)),
      changed_(std::make_shared<runtime::wakeup>(std::move(control))) {
  path_.emplace(kernel_, folder_, [this] {
    lost_ = true;
    changed_->notify();
  });
}

void definition_watch::begin() { follow(); }

void definition_watch::stop() {
  stopping_ = true;
  watch_.reset();
  path_.reset();
  changed_->notify();
}

void definition_watch::follow() {
  lost_ = false;
  watch_.reset();
  const auto place = path_->follow();
  if (!place.failure.empty()) spdlog::warn("{} is not watched (SIGHUP loads it again): {}", folder_.string(), place.failure);
  if (!place.folder) return;
  constexpr std::uint32_t mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ONLYDIR;
  auto watch = kernel_->watch(*place.folder, mask, [this](std::uint32_t what, std::string_view name) { told(what, name); });
  if (watch) {
    watch_ = std::move(*watch);
  } else {
    spdlog::warn("{} is not watched (SIGHUP loads it again): {}", folder_.string(), watch.error().detail);
  }
}

void definition_watch::told(std::uint32_t mask, std::string_view name) {
  if (mask & IN_IGNORED) return;  // path_ tells of it
  std::error_code unknown;
  if (mask & IN_Q_OVERFLOW) {
    all_ = true;
  } else if (!name.empty() && fs::is_symlink(folder_ / name, unknown)) {
    links_ = true;
  } else if (mask & (IN_CREATE | IN_ISDIR)) {
    return;  // somebody begins to write it, or it is nothing that is loaded
  } else if (is_definition_file(fs::path(name))) {
    names_.emplace(name);
  } else {
    return;
  }
  changed_->notify();
}

asio::awaitable<void> definition_watch::run() {
  while (!stopping_) {
    if (names_.empty() && !links_ && !all_ && !lost_) {
      co_await changed_->wait();
      continue;
    }
    const auto latest = steady::now() + longest_wait;
    while (!stopping_ && steady::now() < latest) {
      const auto quiet_at = std::min<steady::time_point>(latest, steady::now() + settle);
      if (!co_await changed_->wait_until(quiet_at)) break;
    }
    if (!stopping_) co_await apply();
  }
}

void definition_watch::add_links(std::vector<fs::path>& files) const {
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.is_symlink() && is_definition_file(entry.path())) files.push_back(entry.path());
  }
}

asio::awaitable<void> definition_watch::apply() {
  if (lost_) {
    follow();
    all_ = true;
  }
  const auto names = std::exchange(names_, {});
  const bool all = std::exchange(all_, false);
  const bool links = std::exchange(links_, false);
  std::string failure;
  try {
    std::vector<fs::path> files;
    for (const auto& name : names) files.push_back(folder_ / name);
    if (links && !all) add_links(files);
    if (all) {
      co_await pipelines_.load_folder(folder_);
    } else {
      co_await pipelines_.load_files(std::move(files));
    }
  } catch (const std::exception& e) {
    failure = e.what();
  }
  if (!failure.empty()) spdlog::error("{}: {}", folder_.string(), failure);
}

}  // namespace penstock::scheduler
