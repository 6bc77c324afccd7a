// From checked values to the structs of definition.hpp: work, and all that a job is. Pure, any thread.
#pragma once

#include <string>

#include "config/definition.hpp"

namespace penstock::config {

// Of a checked flow, job or task.
work work_of(const value& v);

// `written` is where the value comes from. Completes the value where it says less than the job means (types of
// parameters), for showing.
job job_of(const std::string& name, value& v, const node& written);

}  // namespace penstock::config
