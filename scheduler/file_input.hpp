// The input that a file trigger gives to a run: one event for each file, {"path", "name", "size", "modified"}. And where a
// file goes, and is to be found, once its run has ended. No state; looks into the folders it is asked about.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "config/definition.hpp"
#include "runtime/folder_watch.hpp"

namespace penstock::scheduler {

// A line of NDJSON.
std::string file_event(const runtime::arrived_file& file);

// The path of the one file that is all of the input; empty: the input is something else.
std::string only_file(std::string_view ndjson);

// In `folder`, under its own name, or with a number when that is taken.
std::filesystem::path free_name(const std::filesystem::path& folder, const std::filesystem::path& name);

// The same input for a later run: a file that one of the triggers has put away has the path where it is now. What is not
// found there keeps its path.
std::string with_present_paths(const std::string& ndjson, const std::vector<config::trigger>& triggers);

}  // namespace penstock::scheduler
