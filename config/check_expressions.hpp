// What expressions in a job may speak of: declared parameters, tasks that have ended by then, the item of a task that
// fans out. Checks fill-ins in commands, `if`, `for_each`, the key of on_overlap, `where` and what stands in dataflows.
// Pure, any thread.
#pragma once

#include "config/field.hpp"
#include "config/place.hpp"

namespace penstock::config {

void check_job_expressions(const place& job, const catalog& components, problem_list& problems);

// A flow has no parameters, run or tasks: a fill-in that cannot be anything else is an error there. ${item[0]} or
// ${run} may be a shell's.
void check_flow_expressions(const place& flow, const catalog& components, problem_list& problems);

}  // namespace penstock::config
