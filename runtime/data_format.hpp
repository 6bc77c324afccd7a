// Whether a data folder is whole and can be read by this version, before anything in it is touched.
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

// A folder without state.db that is not new: throws std::runtime_error that names what else is there (a topic, flows.db, a
// backup one folder too deep). Its daemon would begin from nothing beside data that belongs together.
void refuse_without_state(const std::filesystem::path& data);

// A backup that was put in place, known by its backup.json, is whole (what `files` names is there) and alone (no log of an
// older database lies beside it, which would be read into it); then backup.json becomes restored.json, so this is done once.
// A backup.json without `files` is of an older version, which left it where it was: nothing is concluded from it.
// Throws std::runtime_error with what is missing or too much, and has changed nothing then.
void take_up_backup(const std::filesystem::path& data);

}  // namespace penstock::runtime
