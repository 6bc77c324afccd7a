#include "scheduler/backup_desk.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/blocking_pool.hpp"
#include "scheduler/background.hpp"
#include "scheduler/token_book.hpp"

namespace penstock::scheduler {

namespace {

namespace fs = std::filesystem;

bool is_inside(const fs::path& inner, const fs::path& outer) {
  const auto below = inner.lexically_relative(outer);
  return !below.empty() && *below.begin() != "..";
}

error wrong_place(std::string detail) { return {errc::invalid, detail, {{"/to", 0, 0, detail}}}; }

// The place with links resolved, so that nothing hides in them.
result<fs::path> checked_place(const fs::path& wanted, const fs::path& data) {
  if (!wanted.is_absolute()) return wrong_place("to must be an absolute path of a folder that does not exist yet");
  fs::path place = wanted.lexically_normal();
  if (!place.has_filename()) place = place.parent_path();
  std::error_code failure;
  const fs::path parent = fs::canonical(place.parent_path(), failure);
  if (failure) return wrong_place("the folder " + place.parent_path().string() + " is not there: " + failure.message());
  if (!fs::is_directory(parent, failure)) return wrong_place(parent.string() + " is no folder");
  place = parent / place.filename();
  if (is_inside(place, fs::canonical(data, failure))) {
    return wrong_place("to lies inside the data folder; choose a place outside of it, best on another disk");
  }
  if (fs::exists(fs::symlink_status(place, failure))) {
    return error{errc::conflict, place.string() + " is there already, and nothing is written over; choose another name"};
  }
  return place;
}

// What the folder is, for whoever finds it, and for the daemon that starts on it (data_format.hpp).
void write_label(const fs::path& folder, const runtime::copy_progress& progress) {
  std::vector<std::string> files;
  for (const fs::path& below : {folder, folder / "topics"}) {
    std::error_code none;  // no topic
    for (fs::directory_iterator at(below, none), end; !none && at != end; at.increment(none))
      if (at->path().extension() == ".db") files.push_back(at->path().lexically_relative(folder).string());
  }
  std::sort(files.begin(), files.end());
  const nlohmann::ordered_json label{{"made_by", "penstock " PENSTOCK_VERSION},
                                     {"as_of", format_time(from_micros(progress.as_of))},
                                     {"restore", "stop the daemon, move its data folder away, put a copy of this folder in its place, start it"},
                                     {"files", files}};
  std::ofstream out(folder / "backup.json");
  out << label.dump(2) << '\n';
  out.close();
  if (!out) throw std::runtime_error((folder / "backup.json").string() + " cannot be written");
}

void put_in_place(const fs::path& draft, const fs::path& place) {
  runtime::sync_folder(draft);
  if (::renameat2(AT_FDCWD, draft.c_str(), AT_FDCWD, place.c_str(), RENAME_NOREPLACE) != 0) {
    const int failure = errno;
    if (failure != EINVAL && failure != ENOSYS) throw std::system_error(failure, std::generic_category(), place.string() + ": naming the copy so");
    // NFS and others know no such flag. An empty folder is made, which fails when there is one, and renamed over.
    if (::mkdir(place.c_str(), 0700) != 0 || ::rename(draft.c_str(), place.c_str()) != 0) {
      throw std::system_error(errno, std::generic_category(), place.string() + ": naming the copy so");
    }
  }
  runtime::sync_folder(place.parent_path());
}

}  // namespace

result<void> backup_desk::start(backup_request request) {
  if (closed_) return error{errc::unavailable, "the daemon is stopping", {}, 5};
  if (!around_.options.commits) return error{errc::unavailable, "this daemon was put together without what a backup needs"};
  if (last_.state == backup_state::running) {
    return error{errc::conflict, "a backup to " + last_.to + " is being made; wait for it, or cancel it"};
  }
  const auto place = checked_place(request.to, around_.options.data);
  if (!place) return place.error();
  request.to = *place;

  auto next = std::make_shared<work>();
  next->draft = place->parent_path() / (place->filename().string() + ".partial-" + runtime::make_ulid());
  next->request = std::move(request);
  std::error_code failure;
  fs::create_directory(next->draft, failure);
  if (failure) return wrong_place(place->parent_path().string() + " cannot be written to: " + failure.message());
  fs::permissions(next->draft, fs::perms::owner_all, failure);  // what is in it may be nobody else's business
  current_ = next;
  last_ = {.state = backup_state::running, .to = place->string(), .reason = {}, .started_at = wall_now()};
  spdlog::info("backup to {} begins", last_.to);
  in_background(around_.where.control, "backup", make(std::move(next)));
  return {};
}

asio::awaitable<void> backup_desk::make(std::shared_ptr<work> current) {
  auto how = backup_state::done;
  std::string reason;
  const auto copy = [this, current] {
    try {
      const auto& data = around_.options.data;
      runtime::copy_data(data, current->draft, current->request.logs, around_.offered.topics, *around_.options.commits,
                         current->progress, current->stop.get_token());
      // Its programs are not those of this daemon: a daemon that starts on the copy must not end them.
      store::name_anew(current->draft / "state.db");
      write_label(current->draft, current->progress);
      std::vector<std::string> made{"state.db", "backup.json"};
      if (fs::exists(data / token_book::mark_name)) {
        fs::copy_file(data / token_book::mark_name, current->draft / token_book::mark_name);
        made.push_back(token_book::mark_name);
      }
      for (const auto& file : made) runtime::sync_file(current->draft / file);
      put_in_place(current->draft, current->request.to);
    } catch (...) {
      std::error_code ignored;
      fs::remove_all(current->draft, ignored);
      throw;
    }
  };
  try {
    co_await around_.offered.blocking.run(copy);
  } catch (const runtime::copy_stopped&) {
    how = backup_state::cancelled;
  } catch (const std::exception& e) {
    how = backup_state::failed;
    reason = e.what();
  }
  ended(how, std::move(reason));
}

void backup_desk::ended(backup_state how, std::string reason) {
  last_ = view();
  last_.state = how;
  last_.reason = std::move(reason);
  last_.ended_at = wall_now();
  if (how == backup_state::done) spdlog::info("backup to {} is complete: {} bytes in {} files", last_.to, last_.bytes_done, last_.files_done);
  if (how == backup_state::cancelled) spdlog::info("backup to {} was cancelled", last_.to);
  if (how == backup_state::failed) spdlog::error("backup to {} failed: {}", last_.to, last_.reason);
  current_.reset();
  for (const auto& one : std::exchange(followers_, {})) {
    if (const auto follower = one.lock()) follower->notify();
  }
}

backup_view backup_desk::view() const {
  backup_view now = last_;
  if (!current_) return now;
  const auto& p = current_->progress;
  if (const std::int64_t as_of = p.as_of; as_of > 0) now.as_of = from_micros(as_of);
  now.bytes = p.bytes;
  now.bytes_done = p.bytes_done;
  now.files = p.files;
  now.files_done = p.files_done;
  return now;
}

void backup_desk::follow(const std::shared_ptr<runtime::wakeup>& follower) {
  std::erase_if(followers_, [](const auto& one) { return one.expired(); });
  followers_.push_back(follower);
}

result<void> backup_desk::cancel() {
  if (!current_) return error{errc::conflict, "no backup is being made"};
  current_->stop.request_stop();
  return {};
}

void backup_desk::stop() {
  closed_ = true;
  if (current_) current_->stop.request_stop();
}

asio::awaitable<std::string> backup_desk::finish(std::chrono::steady_clock::time_point deadline) {
  const auto ended = std::make_shared<runtime::wakeup>(around_.where.control);
  follow(ended);
  while (current_) {
    if (co_await ended->wait_until(deadline)) continue;
    co_return "the backup to " + last_.to + " hangs and was left behind; " + current_->draft.string() + " is of no use and can be removed";
  }
  co_return std::string();
}

}  // namespace penstock::scheduler
