// A file trigger: files that arrive in a folder become the input of runs, one event for each file.
//
// What a run has taken is stored in the transaction that makes it, by path and content stamp: no file is lost or taken
// twice. When its run has ended a file is moved or deleted as the trigger says, or it stays, marked by that record until
// its content changes. A crash before the move is made good at the next start. With an overlap key the files of a run are
// all of one key, and a file whose key is free goes before those that have to wait.
#include <algorithm>
#include <filesystem>
#include <map>
#include <spdlog/spdlog.h>

#include "runtime/folder_watch.hpp"
#include "scheduler/file_input.hpp"
#include "scheduler/room_request.hpp"
#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {

namespace {

namespace fs = std::filesystem;

class file_watch final : public trigger_watch {
 public:
  file_watch(surroundings& around, std::shared_ptr<job_runs> runs, const config::file_trigger& trigger,
             std::shared_ptr<runtime::wakeup> wake)
      : around_(around),
        runs_(std::move(runs)),
        trigger_(trigger),
        key_(trigger_key(trigger)),
        wake_(std::move(wake)),
        room_(runs_, runs_->pipeline() + "/" + runs_->job() + "/" + key_, wake_) {}

  asio::awaitable<void> open() override {
    room_.cancel();
    const fs::path pattern = runs_->revision()->workdir / trigger_.path;
    for (auto& claim : around_.store.taken_files(runs_->pipeline(), runs_->job(), key_)) {
      const std::string path = claim.path;
      taken_.insert_or_assign(path, std::move(claim));
    }
    arriving_ = std::make_unique<runtime::folder_watch>(around_.where.control, pattern.parent_path(),
                                                        pattern.filename().string(), trigger_.settle,
                                                        [wake = wake_] { wake->notify(); });
    co_return;
  }

  asio::awaitable<when> advance(timestamp now, bool quiet) override {
    co_await put_away();
    if (quiet) {
      room_.cancel();
      co_return std::nullopt;
    }
    auto files = arriving_->complete(now);
    co_await forget_vanished(files);
    std::erase_if(files, [this](const auto& file) { return is_taken(file); });
    if (files.empty()) {
      oldest_seen_.reset();
      room_.cancel();
      co_return arriving_->next_check(now);
    }
    if (!oldest_seen_) oldest_seen_ = now;
    const auto enough = *oldest_seen_ + std::chrono::ceil<std::chrono::microseconds>(trigger_.max_wait);
    if (std::ssize(files) < trigger_.max_files && now < enough) {
      room_.cancel();
      co_return std::min(enough, arriving_->next_check(now).value_or(enough));
    }
    const std::string key = choose(files);
    if (!room_.ask(key, now)) co_return arriving_->next_check(now);
    files = still_there(std::move(files));
    if (files.empty()) {
      room_.cancel();
      co_return now + std::chrono::seconds(1);
    }
    co_await take(files, key);
    oldest_seen_.reset();
    co_return now;
  }

  const std::string& key() const override { return key_; }
  bool busy() const override { return irreplaceable(); }
  std::int64_t expression_failures() const override { return expression_failures_; }
  bool irreplaceable() const override {
    return puts_away() && std::any_of(taken_.begin(), taken_.end(),
                                      [this](const auto& one) { return runs_->holds(one.second.run); });
  }

 private:
  bool puts_away() const { return !trigger_.move_to.empty() || !trigger_.move_failed_to.empty() || trigger_.remove; }

  bool is_taken(const runtime::arrived_file& file) const {
    const auto found = taken_.find(file.path.string());
    return found != taken_.end() && found->second.stamp == file.stamp;
  }

  // The first of them, as many as one run takes. One that was just put away may still be listed.
  std::vector<runtime::arrived_file> still_there(std::vector<runtime::arrived_file> listed) const {
    std::vector<runtime::arrived_file> found;
    for (auto& file : listed) {
      if (std::ssize(found) == trigger_.max_files) break;
      if (runtime::stamp_of(file.path) == file.stamp) found.push_back(std::move(file));
    }
    return found;
  }

  // The overlap key of the next run: of the first file whose key no other run has, or else of the first file. The files
  // of other keys are taken out.
  std::string choose(std::vector<runtime::arrived_file>& files) {
    if (runs_->definition().overlap_key.empty()) return {};
    find_keys(files);
    const auto key_of = [this](const auto& file) -> const std::string& { return overlap_keys_.at(file.stamp); };
    const auto is_free = [&](const auto& file) { return !runs_->has_active(key_of(file)); };
    const auto free = std::find_if(files.begin(), files.end(), is_free);
    const std::string key = key_of(free == files.end() ? files.front() : *free);
    std::erase_if(files, [&](const auto& file) { return key_of(file) != key; });
    return key;
  }

  void find_keys(const std::vector<runtime::arrived_file>& files) {
    std::map<std::string, std::string> keys;
    for (const auto& file : files) {
      const auto known = overlap_keys_.find(file.stamp);
      keys[file.stamp] = known == overlap_keys_.end() ? find_key(file) : known->second;
    }
    overlap_keys_ = std::move(keys);
  }

  // Where the expression fails it is "", as for events of topics.
  std::string find_key(const runtime::arrived_file& file) {
    try {
      return runs_->overlap_key(runs_->draft(trigger_kind::file), file_event(file));
    } catch (const std::exception& e) {
      ++expression_failures_;
      spdlog::warn("job {}/{}: {}: {}", runs_->pipeline(), runs_->job(), file.path.string(), e.what());
      return {};
    }
  }

  asio::awaitable<void> take(const std::vector<runtime::arrived_file>& files, std::string overlap_key) {
    new_run made;
    made.run = runs_->draft(trigger_kind::file);
    made.run.overlap_key = std::move(overlap_key);
    auto& input = made.run.input;
    input.type = run_input::kind::inline_events;
    input.events = std::ssize(files);
    for (const auto& file : files) {
      input.ndjson += file_event(file);
      made.files.push_back({runs_->pipeline(), runs_->job(), key_, file.path.string(), file.stamp, made.run.id});
    }
    const auto claims = made.files;
    std::vector<job_runs::claim> claimed;
    claimed.push_back({std::move(made), room_.take()});
    co_await runs_->start_claimed(std::move(claimed));
    for (const auto& claim : claims) taken_.insert_or_assign(claim.path, claim);
  }

  // Moves or deletes the files whose runs have ended.
  asio::awaitable<void> put_away() {
    if (!puts_away()) co_return;
    std::vector<file_claim> done;
    for (const auto& [path, claim] : taken_) {
      if (around_.unfinished.contains(claim.run)) continue;
      const auto run = around_.store.run(claim.run);
      if (run && !is_final(run->state)) continue;  // it is taken up again at the next start
      const bool succeeded = run && run->state == run_state::succeeded;
      if (put_away(claim, succeeded)) done.push_back(claim);
    }
    for (const auto& claim : done) taken_.erase(claim.path);
    if (!done.empty()) co_await around_.store.forget_files(std::move(done));
  }

  // True: its claim is not needed any more.
  bool put_away(const file_claim& claim, bool succeeded) {
    const std::string& folder = succeeded ? trigger_.move_to : trigger_.move_failed_to;
    const bool away = succeeded && trigger_.remove;
    if (folder.empty() && !away) return false;
    const fs::path file = claim.path;
    if (runtime::stamp_of(file) != claim.stamp) return true;  // gone, or something else by now
    std::error_code failure;
    if (away) {
      fs::remove(file, failure);
    } else {
      const fs::path target = file.parent_path() / folder;
      fs::create_directories(target, failure);
      if (!failure) fs::rename(file, free_name(target, file.filename()), failure);
    }
    if (!failure) return true;
    spdlog::error("job {}/{}: {} cannot be put away: {}", runs_->pipeline(), runs_->job(), claim.path, failure.message());
    return false;  // it stays, marked as taken
  }

  // A mark is kept no longer than its file.
  asio::awaitable<void> forget_vanished(const std::vector<runtime::arrived_file>& files) {
    if (taken_.size() <= files.size()) co_return;
    std::vector<file_claim> gone;
    for (const auto& [path, claim] : taken_) {
      if (!around_.unfinished.contains(claim.run) && runtime::stamp_of(path).empty()) gone.push_back(claim);
    }
    for (const auto& claim : gone) taken_.erase(claim.path);
    if (!gone.empty()) co_await around_.store.forget_files(std::move(gone));
  }

  surroundings& around_;
  const std::shared_ptr<job_runs> runs_;
  const config::file_trigger trigger_;
  const std::string key_;
  const std::shared_ptr<runtime::wakeup> wake_;
  room_request room_;
  std::unique_ptr<runtime::folder_watch> arriving_;
  std::map<std::string, file_claim> taken_;  // by path
  std::map<std::string, std::string> overlap_keys_;  // by stamp, of the files that wait
  std::int64_t expression_failures_ = 0;
  std::optional<timestamp> oldest_seen_;  // since when complete files wait for more
};

}  // namespace

std::unique_ptr<trigger_watch> make_file_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                               const config::file_trigger& trigger,
                                               std::shared_ptr<runtime::wakeup> wake) {
  return std::make_unique<file_watch>(around, std::move(runs), trigger, std::move(wake));
}

}  // namespace penstock::scheduler
