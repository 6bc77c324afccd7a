// from: file - the records of a file, or of the files that match a pattern, once to the end; or of a file that grows, for
// ever (`follow`, see file_follow.hpp). In a flow also the first stands still at the file's end and goes on with what is
// new after the next start: what was appended, or another file of that name.
//
// Blocks are read on the blocking pool and cut into records on the strand (record_file.hpp). A record's position is the
// byte offset after it, so a restart goes on exactly there. Several files are one input, in the order of their names: which
// they are and how long is written down before the first record leaves (consumer CONSUMER/files), so that positions
// mean the same after a crash, whatever has arrived since.
#include <algorithm>
#include <glob.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/components/file_follow.hpp"
#include "runtime/record_file.hpp"

namespace penstock::runtime::components::file_source {

namespace {

constexpr std::size_t most_files = 10'000;  // that a pattern may match

config::component_spec spec() {
  using config::field_type;
  config::field all{
      .name = "file",
      .type = field_type::object,
      .doc = "",
      .children = {{.name = "path",
                    .type = field_type::string,
                    .doc = "The file; relative paths start in the pipeline's folder. In a job also a pattern with * ? "
                           "and [ ] for several files.",
                    .required = true,
                    .example = "orders.csv"},
                   {.name = "follow",
                    .type = field_type::boolean,
                    .doc = "Go on with what is appended, for ever, also after the file was rotated (renamed, or copied "
                           "and cut). It may be missing at first. For flows.",
                    .fallback = "false"},
                   {.name = "start",
                    .type = field_type::choice,
                    .doc = "follow: where to begin when nothing has been read yet.",
                    .choices = {"beginning", "end"},
                    .goes_with = "follow"}},
      .shorthand = "path"};
  for (config::field& f : record_fields()) all.children.push_back(std::move(f));
  return {
      .kind = config::component_kind::source,
      .name = "file",
      .doc = "The records of a file, once, to its end, or for ever with `follow`. Compressed files are not read.",
      .settings = std::move(all),
      .examples = {"file: orders.ndjson", "file: {path: export.csv, delimiter: semicolon}",
                   "file: {path: /var/log/app.log, format: lines, follow: true, start: end}",
                   "file: {path: \"exports/*.csv\"}"},
      .bounded = true,
      .live = true,
      .endless =
          [](const config::value& settings) {
            const bool follows = settings.is_object() && settings.contains("follow") && settings.at("follow") == true;
            return std::string(follows ? "follow: true" : "");
          },
  };
}

bool follows(const config::value& v) { return v.value("follow", false); }
bool is_pattern(const std::string& path) { return path.find_first_of("*?[") != path.npos; }

void require_one_file(const std::string& path, bool in_run) {
  if (in_run || !is_pattern(path)) return;
  throw std::runtime_error("'" + path + "' names several files, which is for jobs; a flow reads a folder with `from: "
                           "{folder: …}`");
}

void check(const config::value& v, config::usage where) {
  if (!follows(v)) require_one_file(v.at("path").get<std::string>(), where.in_run);
}

// Of a run: the file from one end to the other.
class file_source final : public source {
 public:
  file_source(std::string path, record_format format, const component_context& context)
      : name_(std::move(path)),
        path_(context.workdir / name_),
        format_(format),
        pool_(context.services.blocking) {}

  asio::awaitable<void> open(std::int64_t position) override {
    auto call = [this, position] { file_ = std::make_unique<record_file>(path_, format_, name_, position, position); };
    co_await pool_.run(std::move(call));
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (!stopped_) {
      batch events = file_->cut(most);
      if (!events.empty()) co_return std::move(events);
      if (file_->completed()) break;
      auto call = [this] {
        if (!file_->fill()) file_->complete();
      };
      co_await pool_.run(std::move(call));
    }
    co_return std::nullopt;
  }

  void stop_input() override { stopped_ = true; }

 private:
  const std::string name_;
  const std::filesystem::path path_;
  const record_format format_;
  blocking_pool& pool_;
  std::unique_ptr<record_file> file_;
  bool stopped_ = false;
};

// ---------------------------------------------------------------------------------------------------------------

struct listed_file {
  std::string name;  // as the pattern begins
  std::int64_t size = 0;
};

// Of a job's attempt: all files of a pattern, each up to the size that it had when the first attempt began.
class files_source final : public source {
 public:
  files_source(std::string pattern, record_format format, const component_context& context)
      : pattern_(std::move(pattern)),
        workdir_(context.workdir),
        format_(format),
        pool_(context.services.blocking),
        flows_(context.services.flows),
        consumer_(context.consumer + "/files"),
        in_run_(context.run_context != nullptr) {}

  asio::awaitable<void> open(std::int64_t position) override {
    require_one_file(pattern_, in_run_);
    position_ = position;
    auto call = [this] { return known() || match(); };
    const bool were_known = co_await pool_.run(std::move(call));
    if (!were_known) co_await save();
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (!stopped_) {
      batch events = file_ ? file_->cut(most) : batch();
      if (!events.empty()) co_return std::move(events);
      auto call = [this] { return advance(); };
      const bool more = co_await pool_.run(std::move(call));
      if (!more) break;
    }
    co_return std::nullopt;
  }

  void stop_input() override { stopped_ = true; }

 private:
  // Blocks.
  bool known() {
    for (const state_entry& entry : flows_.load(consumer_).steps) {
      const std::size_t space = entry.value.find(' ');
      files_.push_back({entry.value.substr(space + 1), std::stoll(entry.value.substr(0, space))});
    }
    return !files_.empty();
  }

  // Blocks. Always false: they are not written down yet.
  bool match() {
    const std::filesystem::path whole = workdir_ / pattern_;
    glob_t found{};
    const int failed = ::glob(whole.c_str(), GLOB_ERR, nullptr, &found);
    const std::unique_ptr<glob_t, decltype(&::globfree)> owner(&found, &::globfree);
    if (failed == GLOB_NOMATCH) return false;
    if (failed != 0) throw std::runtime_error("cannot read the folder of " + whole.string());
    for (std::size_t i = 0; i < found.gl_pathc; ++i) {
      const std::filesystem::path path = found.gl_pathv[i];
      if (!std::filesystem::is_regular_file(path)) continue;
      if (files_.size() == most_files) {
        throw std::runtime_error("more than " + std::to_string(most_files) + " files match " + whole.string());
      }
      files_.push_back({path.string(), static_cast<std::int64_t>(std::filesystem::file_size(path))});
    }
    return false;
  }

  asio::awaitable<void> save() {
    commit list;
    list.consumer = consumer_;
    for (std::size_t i = 0; i < files_.size(); ++i) {
      std::string number = std::to_string(i);
      number.insert(0, 6 - std::min<std::size_t>(6, number.size()), '0');  // so that they come back in order
      list.steps.push_back({"file", std::move(number), std::to_string(files_[i].size) + " " + files_[i].name});
    }
    if (!list.steps.empty()) co_await flows_.save(std::move(list));
  }

  // Blocks. Reads on in the file, or opens the next; false: that was the last.
  bool advance() {
    if (file_ && !file_->completed()) {
      if (!file_->fill()) file_->complete();
      return true;
    }
    file_.reset();
    while (next_ < files_.size()) {
      const listed_file& f = files_[next_++];
      const std::int64_t base = std::exchange(base_, base_ + f.size);
      if (position_ >= base_) continue;  // read before
      const std::int64_t offset = std::max<std::int64_t>(0, position_ - base);
      file_ = std::make_unique<record_file>(f.name, format_, f.name, base + offset, offset, f.size);
      return true;
    }
    return false;
  }

  const std::string pattern_;
  const std::filesystem::path workdir_;
  const record_format format_;
  blocking_pool& pool_;
  flow_store& flows_;
  const std::string consumer_;
  const bool in_run_;
  std::vector<listed_file> files_{};
  std::size_t next_ = 0;       // of files_
  std::int64_t base_ = 0;      // the position at which that one begins
  std::int64_t position_ = 0;  // read by an earlier attempt
  std::unique_ptr<record_file> file_;
  bool stopped_ = false;
};

std::unique_ptr<source> make(const config::value& v, const component_context& context) {
  std::string path = v.at("path").get<std::string>();
  const record_format format = record_format::of(v, path);
  if (follows(v))
    return make_file_follow(std::move(path), format, v.value("start", "beginning") == "end", end_of_input::never, context);
  if (is_pattern(path))
    return std::make_unique<files_source>(std::move(path), format, context);
  if (!context.run_context) return make_file_follow(std::move(path), format, false, end_of_input::at_end, context);
  return std::make_unique<file_source>(std::move(path), format, context);
}

}  // namespace

void add(registry& r) { r.add(checked_by(spec(), check), registry::make_source(make)); }

}  // namespace penstock::runtime::components::file_source
