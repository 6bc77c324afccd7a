// from: folder - the records of each file that arrives in a folder, once it is complete; then it is put away.
//
// Files are taken one after the other, the oldest first. Positions go on from one to the next: where each begins is
// written down (consumer CONSUMER/folder, with the file's stamp) before its first record leaves, so after a crash the
// same files are read in the same order at the same positions. A file is moved or removed when all its events are
// safe downstream. Told by inotify: nothing wakes while nothing happens.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/folder_watch.hpp"
#include "runtime/record_file.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime::components::folder_source {

namespace {

namespace fs = std::filesystem;

config::component_spec spec() {
  using config::field_type;
  config::field all{
      .name = "folder",
      .type = field_type::object,
      .doc = "",
      .children = {{.name = "path",
                    .type = field_type::string,
                    .doc = "The folder and a pattern for the files in it; relative paths start in the pipeline's folder. "
                           "Hidden files and *.part, *.tmp, *~ are left alone.",
                    .required = true,
                    .example = "\"inbox/*.csv\""},
                   {.name = "settle",
                    .type = field_type::duration,
                    .doc = "A file is complete when nobody writes to it and it has not changed for so long.",
                    .fallback = "1s"},
                   {.name = "done",
                    .type = field_type::string,
                    .doc = "A folder, relative to the files' own, to which a file is moved when all its events are safe.",
                    .example = "done"},
                   {.name = "remove",
                    .type = field_type::boolean,
                    .doc = "true: a file is removed when all its events are safe."}},
      .exactly_one = {"done", "remove"}};
  for (config::field& f : record_fields()) all.children.push_back(std::move(f));
  return {
      .kind = config::component_kind::source,
      .name = "folder",
      .doc = "The records of each complete file that arrives in a folder, which is then moved away or removed.",
      .settings = std::move(all),
      .examples = {"folder: {path: \"inbox/*.csv\", done: done}",
                   "folder: {path: \"spool/*.ndjson\", remove: true, settle: 5s}"},
      .bounded = false,
      .live = true,
  };
}

// A file that was begun and is not put away yet.
struct taken_file {
  fs::path path;
  std::string stamp;        // stamp_of(path)
  std::int64_t begins = 0;  // position
  std::int64_t last = 0;    // position of its last event, once it was read to its end
  bool finished = false;
};

struct settings {
  fs::path folder;
  std::string pattern;
  std::chrono::nanoseconds settle;
  std::string done;  // empty: removed
  record_format format;
};

settings parse(const config::value& v, const fs::path& workdir) {
  const fs::path whole = fs::absolute(workdir / v.at("path").get<std::string>());
  settings s{whole.parent_path(), whole.filename().string(),
             std::chrono::nanoseconds{v.value("settle", std::int64_t{1'000'000'000})}, v.value("done", ""),
             record_format::of(v, whole.string())};
  if (s.pattern.empty()) s.pattern = "*";
  if (s.folder.string().find_first_of("*?[") != std::string::npos)
    throw std::runtime_error("path: only the last part may be a pattern");
  if (v.contains("remove") && !v.at("remove").get<bool>()) throw std::runtime_error("remove: false needs done");
  return s;
}

settings check(const config::value& v) { return parse(v, "/"); }

class folder_source final : public source {
 public:
  folder_source(settings s, const component_context& context)
      : settings_(std::move(s)),
        pool_(context.services.blocking),
        flows_(context.services.flows),
        consumer_(context.consumer + "/folder"),
        executor_(context.executor),
        changed_(std::make_shared<wakeup>(context.executor)) {}

  asio::awaitable<void> open(std::int64_t position) override {
    position_ = acknowledged_ = position;
    auto call = [this] { recall_files(); };
    co_await pool_.run(std::move(call));
    const auto tell = [this] { changed_->notify(); };
    watch_ = std::make_unique<folder_watch>(executor_, settings_.folder, settings_.pattern, settings_.settle, tell);
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (true) {
      if (!taken_.empty() && safe(taken_.front())) {
        auto call = [this] { put_away(); };
        co_await pool_.run(std::move(call));
      }
      if (stopped_) co_return std::nullopt;
      batch events = file_ ? file_->cut(most) : batch();
      if (!events.empty()) {
        if (!unsaved_.empty()) co_await save();
        position_ = file_->position();
        co_return std::move(events);
      }
      if (file_ || choose()) {
        auto call = [this] { advance(); };
        co_await pool_.run(std::move(call));
      } else if (const std::optional<timestamp> next = watch_->next_check(wall_now())) {
        const auto wait = std::max(*next - wall_now(), timestamp::duration{1'000});
        const auto deadline = std::chrono::steady_clock::now() + wait;
        co_await changed_->wait_until(deadline);
      } else {
        co_await changed_->wait();
      }
    }
  }

  void acknowledge(std::int64_t position) override { acknowledged_ = position; }

  void stop_input() override {
    stopped_ = true;
    changed_->notify();
  }

 private:
  bool safe(const taken_file& f) const { return f.finished && f.last <= acknowledged_; }
  taken_file& current() { return taken_.back(); }

  // What an earlier start has begun. Blocks.
  void recall_files() {
    std::vector<taken_file> known;
    for (const state_entry& entry : flows_.load(consumer_).steps) {
      taken_file f;
      const std::size_t space = entry.value.find('\n');
      const auto read = std::from_chars(entry.key.data(), entry.key.data() + entry.key.size(), f.begins);
      if (space == entry.value.npos || read.ec != std::errc()) continue;
      f.stamp = entry.value.substr(0, space);
      f.path = entry.value.substr(space + 1);
      known.push_back(std::move(f));
    }
    std::sort(known.begin(), known.end(), [](const auto& a, const auto& b) { return a.begins < b.begins; });
    // A new beginning: what was known belongs to another input.
    const bool anew = !known.empty() && known.front().begins > position_;
    for (std::size_t i = 0; i < known.size(); ++i) {
      taken_file& f = known[i];
      if (anew || stamp_of(f.path) != f.stamp) {  // put away just before the crash, or by somebody else
        forget(f);
      } else if (i + 1 < known.size() && known[i + 1].begins <= position_) {
        f.finished = true;
        taken_.push_back(std::move(f));
      } else {
        again_.push_back(std::move(f));
      }
    }
  }

  // The next file to read; false: there is none.
  bool choose() {
    if (!again_.empty()) {
      taken_.push_back(std::move(again_.front()));
      again_.pop_front();
      return true;
    }
    if (found_.empty()) {
      for (arrived_file& f : watch_->complete(wall_now())) found_.push_back(std::move(f));
    }
    while (!found_.empty()) {
      arrived_file f = std::move(found_.front());
      found_.pop_front();
      const auto same = [&f](const taken_file& t) { return t.path == f.path && t.stamp == f.stamp; };
      if (std::any_of(taken_.begin(), taken_.end(), same)) continue;
      taken_.push_back({std::move(f.path), std::move(f.stamp), position_});
      unsaved_.push_back({"file", key_of(current()), current().stamp + "\n" + current().path.string()});
      return true;
    }
    return false;
  }

  // Opens the chosen file, or reads on in it. Blocks.
  void advance() {
    taken_file& f = current();
    if (file_ && file_->completed()) {
      f.last = position_;
      f.finished = true;
      file_.reset();
    } else if (file_) {
      if (!file_->fill()) file_->complete();
    } else if (stamp_of(f.path) != f.stamp) {
      forget(f);
      taken_.pop_back();
    } else {
      const std::int64_t from = std::max(position_, f.begins);
      file_ = std::make_unique<record_file>(f.path, settings_.format, f.path.filename().string(), from, from - f.begins);
    }
  }

  // All in front that are safe. Blocks.
  void put_away() {
    for (; !taken_.empty() && safe(taken_.front()); taken_.pop_front()) {
      const taken_file& f = taken_.front();
      if (stamp_of(f.path) == f.stamp) {
        if (settings_.done.empty())
          fs::remove(f.path);
        else
          fs::rename(f.path, free_name(f.path.parent_path() / settings_.done, f.path.filename()));
      }
      forget(f);
    }
  }

  static fs::path free_name(const fs::path& folder, const fs::path& name) {
    fs::create_directories(folder);
    for (int i = 1;; ++i) {
      const fs::path to =
          folder / (i == 1 ? name.string() : name.stem().string() + "-" + std::to_string(i) + name.extension().string());
      if (!fs::exists(fs::symlink_status(to))) return to;
    }
  }

  static std::string key_of(const taken_file& f) { return std::to_string(f.begins); }
  // Unless a later one begins at the same position.
  void forget(const taken_file& f) {
    const auto same = [&](const taken_file& t) { return &t != &f && t.begins == f.begins; };
    if (std::none_of(taken_.begin(), taken_.end(), same)) unsaved_.push_back({"file", key_of(f), std::nullopt});
  }

  asio::awaitable<void> save() {
    commit next;
    next.consumer = consumer_;
    next.steps = std::exchange(unsaved_, {});
    co_await flows_.save(std::move(next));
  }

  const settings settings_;
  blocking_pool& pool_;
  flow_store& flows_;
  const std::string consumer_;
  const asio::any_io_executor executor_;
  const std::shared_ptr<wakeup> changed_;
  std::unique_ptr<folder_watch> watch_;

  std::deque<taken_file> again_;  // begun by an earlier start
  std::deque<arrived_file> found_{};  // by the last look, not yet chosen
  std::deque<taken_file> taken_;  // in the order read; the last may be open in file_
  std::unique_ptr<record_file> file_;
  std::vector<state_change> unsaved_{};
  std::int64_t position_ = 0;  // handed out
  std::int64_t acknowledged_ = 0;
  bool stopped_ = false;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), check), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<folder_source>(parse(v, context.workdir), context);
        }));
}

}  // namespace penstock::runtime::components::folder_source
