// A job's `params` as the definition writes them: name and default, or a mapping. Reads the document itself, where a
// text still is what was written (a string's default 1.10 stays "1.10"). Pure, any thread.
#pragma once

#include <vector>

#include "config/definition.hpp"
#include "config/place.hpp"

namespace penstock::config {

// Everything about `params` that spans several keys: defaults, choices and bounds that do not fit each other, names
// that would share an environment variable; and what has no default where a trigger starts the job: it gives none.
void check_declared_parameters(const place& params, bool has_trigger, problem_list& problems);

// In the order written. Of faulty ones, what can be made of them.
std::vector<parameter> declared_parameters(const node& params);

// Completes the checked value of one of them for showing: its type, default and choices as they are taken.
void complete_parameter(value& checked, const parameter& declared);

}  // namespace penstock::config
