#include "scheduler/file_input.hpp"

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>

namespace penstock::scheduler {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string dump(const ordered_json& event) { return event.dump(-1, ' ', false, ordered_json::error_handler_t::replace); }

bool is_file_event(const ordered_json& event) {
  if (!event.is_object() || event.size() != 4) return false;
  const auto is_text = [&event](const char* name) { return event.contains(name) && event[name].is_string(); };
  return is_text("path") && is_text("name") && is_text("modified") && event.contains("size") &&
         event["size"].is_number_integer();
}

// Moving a file changes neither.
bool is_it(const fs::path& file, const ordered_json& event) {
  std::error_code failure;
  const auto size = fs::file_size(file, failure);
  if (failure || size != event["size"].get<std::uintmax_t>()) return false;
  const auto modified = fs::last_write_time(file, failure);
  if (failure) return false;
  const auto time = std::chrono::file_clock::to_sys(modified);
  return format_time(std::chrono::floor<std::chrono::microseconds>(time)) == event["modified"].get<std::string>();
}

fs::path numbered(const fs::path& folder, const fs::path& name, int n) {
  return n == 1 ? folder / name : folder / (name.stem().string() + "-" + std::to_string(n) + name.extension().string());
}

std::string present_path(const ordered_json& event, const std::vector<config::trigger>& triggers) {
  const fs::path path = event["path"].get<std::string>();
  if (is_it(path, event)) return path.string();
  for (const auto& trigger : triggers) {
    const auto* by_file = std::get_if<config::file_trigger>(&trigger);
    if (!by_file) continue;
    for (const auto& to : {by_file->move_to, by_file->move_failed_to}) {
      if (to.empty()) continue;
      const fs::path folder = path.parent_path() / to;
      std::error_code ignored;
      for (int n = 1; fs::exists(numbered(folder, path.filename(), n), ignored); ++n) {
        const auto found = numbered(folder, path.filename(), n);
        if (is_it(found, event)) return found.lexically_normal().string();
      }
    }
  }
  return path.string();
}

}  // namespace

std::string file_event(const runtime::arrived_file& file) {
  return dump(ordered_json{{"path", file.path.string()},
                           {"name", file.path.filename().string()},
                           {"size", file.size},
                           {"modified", format_time(file.modified)}}) +
         "\n";
}

std::string only_file(std::string_view ndjson) {
  const auto event = ordered_json::parse(ndjson, nullptr, false);
  return is_file_event(event) ? event["path"].get<std::string>() : std::string();
}

fs::path free_name(const fs::path& folder, const fs::path& name) {
  int n = 1;
  while (fs::exists(numbered(folder, name, n))) ++n;
  return numbered(folder, name, n);
}

std::string with_present_paths(const std::string& ndjson, const std::vector<config::trigger>& triggers) {
  std::istringstream lines(ndjson);
  std::string present;
  for (std::string line; std::getline(lines, line); present += line + "\n") {
    auto event = ordered_json::parse(line, nullptr, false);
    if (!is_file_event(event)) continue;
    const std::string path = present_path(event, triggers);
    if (path == event["path"].get<std::string>()) continue;
    event["path"] = path;
    line = dump(event);
  }
  return present;
}

}  // namespace penstock::scheduler
