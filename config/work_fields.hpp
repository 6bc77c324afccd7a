// Parts of the pipeline's record, one function for each group of keys. Only for pipeline_fields(), which puts them
// together once. Pure.
#pragma once

#include <string>
#include <vector>

#include "config/field.hpp"

namespace penstock::config {

inline constexpr double seconds_of_a_day = 86'400;  // bounds of durations are in seconds

// What flows, jobs and tasks have in common: one dataflow, or one command. Empty: steps go with nothing.
std::vector<field> work_fields(std::string steps_go_with);
field grace_field(std::string goes_with);

// `trigger` of a job.
field trigger_field();

// `jobs` of a pipeline.
field jobs_field();

// `tests` of a pipeline.
field tests_field();

std::vector<field> with(std::vector<field> fields, std::vector<field> more);

}  // namespace penstock::config
