// The daemon's own log, on stderr: text for people or one JSON object a line for collectors. Called once from main.
#pragma once

#include <string>

namespace penstock::daemon {

void set_up_logging(const std::string& level, const std::string& format);

}  // namespace penstock::daemon
