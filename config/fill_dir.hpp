// ${dir} in a definition: the folder of its file, filled in by whoever knows where that is. Pure, any thread.
#pragma once

#include <string>

#include "config/definition.hpp"

namespace penstock::config {

std::string with_dir(std::string text, const std::string& dir);
// In all texts of the value.
void fill_dir(value& v, const std::string& dir);
// In the settings of all its components.
void fill_dir(dataflow& flow, const std::string& dir);

}  // namespace penstock::config
