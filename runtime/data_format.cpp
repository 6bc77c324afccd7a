#include "runtime/data_format.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/data_copy.hpp"

namespace penstock::runtime {

namespace fs = std::filesystem;

namespace {

// sqlite.org/fileformat2.html, section 1.3: the "user version" is a big-endian number at byte 60 of the file.
std::int64_t format_of(const fs::path& file) {
  constexpr std::streamoff place = 60;
  std::array<unsigned char, 4> bytes{};
  std::ifstream in(file, std::ios::binary);
  in.seekg(place);
  if (!in.read(reinterpret_cast<char*>(bytes.data()), bytes.size())) return 0;
  std::int64_t number = 0;
  for (const unsigned char byte : bytes) number = number << 8 | byte;
  return number;
}

bool is_database(const fs::path& file) {
  std::string start(16, '\0');
  std::ifstream in(file, std::ios::binary);
  return !in.read(start.data(), static_cast<std::streamsize>(start.size())) || start == std::string("SQLite format 3\0", 16);
}

void refuse_newer(const fs::path& file, std::int64_t known, const std::string& or_else = {}) {
  if (!is_database(file))
    throw std::runtime_error(file.string() + " is no SQLite database any more; restore a backup" + or_else + ". Nothing was changed");
  const std::int64_t found = format_of(file);
  if (found <= known) return;
  throw std::runtime_error(file.string() + " was written by a newer Penstock (format " + std::to_string(found) +
                           "; this one knows formats up to " + std::to_string(known) +
                           "); start that version, or restore a backup. Nothing was changed");
}

std::vector<fs::path> databases_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code none;
  for (fs::directory_iterator at(folder, none), end; !none && at != end; at.increment(none)) {
    if (at->path().extension() == ".db") found.push_back(at->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

constexpr const char* label_name = "backup.json";

// Empty: an older version has made it, or it cannot be read.
std::vector<std::string> files_of_label(const fs::path& label) {
  std::ifstream in(label);
  const auto read = nlohmann::json::parse(in, nullptr, false);
  if (!read.is_object() || !read.contains("files") || !read["files"].is_array()) return {};
  std::vector<std::string> files;
  for (const auto& file : read["files"])
    if (file.is_string()) files.push_back(file.get<std::string>());
  return files;
}

}  // namespace

void refuse_newer_formats(const fs::path& data) {
  refuse_newer(data / "flows.db", known_flow_format());
  for (const fs::path& topic : databases_in(data / "topics"))
    refuse_newer(topic, known_topic_format(), ", or move it away: the topic goes on without the events in it");
}

void refuse_without_state(const fs::path& data) {
  if (fs::exists(data / "state.db")) return;
  const std::string missing = (data / "state.db").string() + " is missing, ";
  std::vector<fs::path> rest = databases_in(data / "topics");
  if (fs::exists(data / "flows.db")) rest.push_back(data / "flows.db");
  if (!rest.empty())
    throw std::runtime_error(missing + "but not what belongs to it (" + rest.front().string() +
                             "); put back the whole folder or a whole backup, or move the rest away to begin from nothing. Nothing was changed");
  std::error_code none;
  for (fs::directory_iterator at(data, none), end; !none && at != end; at.increment(none)) {
    if (fs::exists(at->path() / label_name, none))
      throw std::runtime_error(missing + "but " + at->path().string() + " is a backup: what is in it belongs into " + data.string() +
                               " itself. Nothing was changed");
  }
}

void take_up_backup(const fs::path& data) {
  const fs::path label = data / label_name;
  const std::vector<std::string> files = files_of_label(label);
  if (files.empty()) return;  // an older daemon left its label in the folder where it then worked: logs are its own
  for (const std::string& file : files) {
    if (!fs::exists(data / file))
      throw std::runtime_error(data.string() + " is a backup that is not whole: " + file +
                               " is missing; put all of the backup in place. Nothing was changed");
  }
  std::vector<fs::path> databases = databases_in(data / "topics");
  for (const fs::path& topic : databases) {
    const std::string name = (topic.parent_path().filename() / topic.filename()).string();
    if (std::find(files.begin(), files.end(), name) == files.end())
      throw std::runtime_error(topic.string() + " is not of the backup in " + data.string() +
                               "; move the old data folder away as a whole, and put the backup in its place, or remove " + label.string() +
                               " if a daemon has worked in this folder since it was restored. Nothing was changed");
  }
  for (const char* name : {"state.db", "flows.db"}) databases.push_back(data / name);
  for (const fs::path& database : databases) {
    const fs::path log = database.string() + "-wal";
    std::error_code none;
    if (fs::file_size(log, none) > 0 && !none)
      throw std::runtime_error(log.string() + " is not of the backup in " + data.string() +
                               ": it would be read into it; move the old data folder away as a whole, and put the backup in its place. "
                               "Nothing was changed");
  }
  fs::rename(label, data / "restored.json");
  sync_folder(data);
}

}  // namespace penstock::runtime
