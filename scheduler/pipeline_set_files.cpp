// Definitions in files: the folder at the start, what is saved in it, and which file a pipeline belongs to.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "runtime/durable_folder.hpp"
#include "scheduler/background.hpp"
#include "scheduler/etag.hpp"
#include "scheduler/pipeline_set.hpp"

namespace penstock::scheduler {

namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in.peek() != std::ifstream::traits_type::eof()) text << in.rdbuf();
  if (!in.is_open() || in.bad()) throw std::runtime_error("cannot be read");
  return text.str();
}

constexpr std::size_t most_files_at_once = 64;

std::string media_type_of(const fs::path& file) { return file.extension() == ".json" ? "application/json" : "application/yaml"; }

}  // namespace

asio::awaitable<void> pipeline_set::write_down(std::string file, pipeline_record taken) {
  audit_record entry{.who = "file", .target = std::move(file), .pipeline = taken.name, .outcome = "done"};
  entry.detail = "revision " + std::to_string(taken.revision);
  co_await around_.audit.add(std::move(entry));
}

asio::awaitable<std::optional<error>> pipeline_set::apply_file(fs::path file) {
  try {
    apply_request request;
    request.text = read_file(file);
    request.media_type = media_type_of(file);
    request.origin = file.string();
    if (is_loaded(request)) co_return std::nullopt;
    const auto applied = co_await apply(std::move(request));
    if (!applied) co_return applied.error();
    if (!applied->unchanged) co_await write_down(file.string(), applied->record);
    for (const auto& name : of_file_[file.string()]) {
      if (name == applied->record.name) continue;
      spdlog::warn("{} names pipeline {} now; pipeline {}, which it named before, goes on until it is deleted", file.string(),
                   applied->record.name, name);
    }
    co_return std::nullopt;
  } catch (const std::exception& e) {
    co_return error{errc::malformed, e.what()};
  }
}

// Does the file say what it said when its pipeline was last defined? Nothing of it need be looked at then.
bool pipeline_set::is_loaded(const apply_request& from_file) const {
  const auto known = of_file_.find(from_file.origin);
  if (known == of_file_.end() || known->second.size() != 1) return false;
  const auto& record = live_.at(*known->second.begin())->record();
  return record.text == from_file.text;
}

// Of two files that name the same pipeline the one keeps it that had it first, while it is there and says so.
std::optional<error> pipeline_set::claimed_by_another_file(const std::string& name, const std::string& file) const {
  const auto live = live_.find(name);
  if (live == live_.end()) return std::nullopt;
  const std::string owner = live->second->record().origin;
  std::error_code unknown;
  if (owner == "rest" || owner == file || !fs::is_regular_file(owner, unknown)) return std::nullopt;
  const auto says = config::parse_pipeline(read_file(owner), around_.components.catalog(), {.file = owner});
  if (says && says->name != name) return std::nullopt;
  const std::string detail = "pipeline '" + name + "' is defined in " + owner + " already; give this one another name, or remove that file";
  return error{errc::conflict, detail, {{"/name", 0, 0, detail}}};
}

asio::awaitable<void> pipeline_set::take_up_files(fs::path folder) {
  const auto inside = fs::absolute(folder).lexically_normal();
  for (auto record : around_.store.pipelines()) {
    const fs::path file(record.origin);
    std::error_code unknown;
    if (file.parent_path() != inside || !is_definition_file(file) || !fs::is_regular_file(file, unknown)) continue;
    std::string text;
    try {
      text = read_file(file);
    } catch (const std::exception&) {
      continue;  // said when the folder is loaded, like all that is wrong
    }
    if (text == record.text) continue;
    const auto says = config::parse_pipeline(text, around_.components.catalog(), {.file = record.origin});
    if (!says || says->name != record.name) continue;
    const auto before = record.revision;
    const auto earlier = around_.store.revisions(record.name);
    record.text = std::move(text);
    record.media_type = media_type_of(file);
    record.updated_at = wall_now();
    record.revision = earlier.empty() ? 1 : earlier.front().revision + 1;
    record.etag = make_etag(record.revision, record.text);
    const auto stored = co_await around_.store.put_pipeline(record, before);
    if (!stored) continue;
    spdlog::info("pipeline {}: revision {}, from {}, which was changed meanwhile", record.name, record.revision, record.origin);
    co_await write_down(record.origin, *stored);
  }
}

asio::awaitable<void> pipeline_set::load_file(fs::path file) {
  auto failure = co_await apply_file(file);
  if (!failure) {
    broken_.erase(file.string());
    co_return;
  }
  if (failure->problems.empty()) failure->problems.push_back({"", 0, 0, failure->detail});
  for (const auto& p : failure->problems) spdlog::error("{}", config::describe(p, file.string()));
  broken_[file.string()] = std::move(failure->problems);
}

asio::awaitable<void> pipeline_set::load_folder(fs::path folder) {
  const auto pass = co_await loading_.enter();
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && is_definition_file(entry.path())) files.insert(fs::absolute(entry.path()).lexically_normal());
  }
  const auto inside = fs::absolute(folder).lexically_normal();
  std::erase_if(broken_, [&](const auto& one) {
    const fs::path file(one.first);
    return file.is_absolute() && file.parent_path() == inside && !files.contains(file);
  });
  co_await load_each({files.begin(), files.end()});
}

// Many at a time, begun in their order, so that their commits to the store are shared. Those that were refused are loaded once more,
// one after another: what one of them wants may have been another's, which has given it up meanwhile.
asio::awaitable<void> pipeline_set::load_each(std::vector<fs::path> files) {
  struct progress {
    std::vector<fs::path> files;
    std::set<fs::path> refused{};
    std::size_t next = 0;
    std::size_t loaders = 0;
    std::shared_ptr<runtime::wakeup> one_ended;
  };
  const auto all = std::make_shared<progress>(progress{.files = std::move(files), .one_ended = std::make_shared<runtime::wakeup>(around_.where.control)});
  const auto load = [](pipeline_set& self, std::shared_ptr<progress> p) -> asio::awaitable<void> {
    const std::shared_ptr<void> at_the_end(nullptr, [p](void*) {
      --p->loaders;
      p->one_ended->notify();
    });
    while (p->next < p->files.size() && !self.closed_) {
      const fs::path file = p->files[p->next++];
      if (co_await self.apply_file(file)) {
        p->refused.insert(file);
      } else {
        self.broken_.erase(file.string());
      }
    }
  };
  for (std::size_t i = 0; i < std::min(most_files_at_once, all->files.size()); ++i) {
    ++all->loaders;
    in_background(around_.where.control, "loading of definition files", load(*this, all));
  }
  while (all->loaders > 0) co_await all->one_ended->wait();
  for (const fs::path& file : all->refused) {
    if (closed_) break;
    co_await load_file(file);
  }
  runtime::make_names_durable(around_.options.data / "work");
}

asio::awaitable<void> pipeline_set::load_files(std::vector<fs::path> files) {
  const auto pass = co_await loading_.enter();
  for (const auto& file : files) {
    if (closed_) break;
    std::error_code unknown;
    const auto named = fs::absolute(file).lexically_normal();
    if (fs::is_regular_file(named, unknown)) {
      co_await load_file(named);
    } else {
      broken_.erase(named.string());
    }
  }
  runtime::make_names_durable(around_.options.data / "work");
}

}  // namespace penstock::scheduler
