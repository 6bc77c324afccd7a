// What sinks must not write into: the daemon's own databases.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include "runtime/topic.hpp"

namespace penstock::runtime::components {

// Throws std::runtime_error when `file`, with all links resolved, is one of the daemon's databases or lies among the topics.
inline void refuse_own_file(const std::filesystem::path& file, const topics& all) {
  namespace fs = std::filesystem;
  const fs::path whole = fs::weakly_canonical(file), of_topics = fs::weakly_canonical(all.folder());
  const std::string name = whole.filename().string();
  const bool is_database = name.starts_with("state.db") || name.starts_with("flows.db");  // and their logs
  if (whole.parent_path() != of_topics && !(is_database && whole.parent_path() == of_topics.parent_path())) return;
  throw std::runtime_error(file.string() + " is where the daemon keeps its own data; write below its folder work, or elsewhere");
}

}  // namespace penstock::runtime::components
