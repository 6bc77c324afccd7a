// What an alert says of a run. Pure, but for reading the ends of its tasks' logs.
#pragma once

#include <filesystem>
#include <vector>

#include "config/definition.hpp"
#include "scheduler/model.hpp"

namespace penstock::scheduler {

// The alerts that a run's end asks for: one for each of the job's alerts on failure, when it failed or timed out.
// The payload is a JSON object: alert ("failure" or "late"), pipeline, job, run, state, reason, trigger, attempt,
// created_at, started_at, ended_at, scheduled_for, task and log_tail (of the first task that failed, or that runs).
std::vector<alert_record> failure_alerts(const run_record& ended, const config::job& job, const std::filesystem::path& data);

// That a run has not ended although it should have by now; of job.alerts[index].
alert_record late_alert(const run_record& run, std::size_t index, const std::filesystem::path& data);

}  // namespace penstock::scheduler
