// Whether a data folder can be read by this version, before anything in it is touched.
#pragma once

#include <cstdint>
#include <filesystem>

namespace penstock::runtime {

// The newest formats that are known here (PRAGMA user_version); defined where the formats are.
std::int64_t known_topic_format();
std::int64_t known_flow_format();

// Throws std::runtime_error naming the first file among flows.db and the topics that a newer penstock has made. Reads a few
// bytes of each and changes nothing. What a newer daemon that was killed has left in a file's log alone is not seen here;
// such a file is refused when it is opened.
void refuse_newer_formats(const std::filesystem::path& data);

}  // namespace penstock::runtime
