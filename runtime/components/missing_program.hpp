// Whether the program of a component's setting `run` is there.
#pragma once

#include <string>

#include "config/field.hpp"

namespace penstock::runtime::components {

// For component_spec::check: throws when it has no name at all.
void require_program(const config::value& settings);

// For component_spec::doubt: a warning when the program is not on this machine now; it may be installed later. Empty: it
// is there, or where it is depends on a secret or on the pipeline's folder.
std::string missing_program(const config::value& settings);

}  // namespace penstock::runtime::components
