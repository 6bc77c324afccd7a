// The reference as one Markdown page: every key of a definition, every component, every setting of the daemon. Made from
// the field records that check them, so it cannot say anything else; `penstockd --reference` prints it. Pure.
#pragma once

#include <string>

#include "config/field.hpp"

namespace penstock::daemon {

std::string reference_text(const config::catalog& components);

}  // namespace penstock::daemon
