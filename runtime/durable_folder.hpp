// Folders whose names survive a loss of power, with what is synced in them later.
#pragma once

#include <filesystem>

namespace penstock::runtime {

// Makes the folder and those above it that are missing. What was made is durable when this returns, as far as the file
// system can: POSIX promises a new name only after a sync of the folder that holds it. Returns whether anything was made;
// throws std::filesystem::filesystem_error.
bool make_durable_folder(const std::filesystem::path& folder);

// Of what was made in the folder; not what it holds. As far as the file system can; nothing when there is no such folder.
void make_names_durable(const std::filesystem::path& folder);

}  // namespace penstock::runtime
