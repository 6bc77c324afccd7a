// The rules between the bounds of one job: what can never be reached because something else ends the run before, and
// a key of on_overlap where nothing overlaps. Pure, any thread.
#pragma once

#include "config/place.hpp"

namespace penstock::config {

void check_bounds_of_job(const place& job, problem_list& problems);

}  // namespace penstock::config
