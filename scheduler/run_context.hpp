// What expressions see of a run, as JSON text (see runtime/run_expression.hpp). Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "scheduler/model.hpp"

namespace penstock::scheduler {

// {"params":{…},"run":{…}}: what the steps of a run's dataflows see. `run` has id, pipeline, job, trigger, attempt,
// created_at, scheduled_for, upstream, priority and key.
std::string run_context(const run_record& run);

// The same with `event`, the first event of the run's input (JSON; empty: none), for overlap keys.
std::string run_context_with_event(const run_record& run, std::string_view event);

// The same with `tasks` and, for an instance of a task that fans out, `item` and `item_index`. tasks.NAME has state,
// exit_code and output; of a task that fans out `output` is the list of its instances' outputs, in order. Only tasks
// whose name occurs in `text`, the expression or the text with fill-ins, are there: a run may have a thousand.
std::string task_context(const run_record& run, std::string_view text, const task_record* instance);

}  // namespace penstock::scheduler
