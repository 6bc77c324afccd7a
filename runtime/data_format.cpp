#include "runtime/data_format.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

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

void refuse_newer(const fs::path& file, std::int64_t known) {
  const std::int64_t found = format_of(file);
  if (found <= known) return;
  throw std::runtime_error(file.string() + " was written by a newer Penstock (format " + std::to_string(found) +
                           "; this one knows formats up to " + std::to_string(known) +
                           "); start that version, or restore a backup. Nothing was changed");
}

}  // namespace

void refuse_newer_formats(const fs::path& data) {
  refuse_newer(data / "flows.db", known_flow_format());
  std::vector<fs::path> topics;
  std::error_code none;
  for (fs::directory_iterator at(data / "topics", none), end; !none && at != end; at.increment(none)) {
    if (at->path().extension() == ".db") topics.push_back(at->path());
  }
  std::sort(topics.begin(), topics.end());
  for (const fs::path& topic : topics) refuse_newer(topic, known_topic_format());
}

}  // namespace penstock::runtime
