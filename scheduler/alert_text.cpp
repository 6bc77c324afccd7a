#include "scheduler/alert_text.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/log_file.hpp"
#include "runtime/ulid.hpp"

namespace penstock::scheduler {

namespace {

constexpr std::size_t tail_bytes = 4096;

// The task whose log tells most: the first that did not succeed.
const task_record* telling_task(const run_record& run) {
  const auto at = std::find_if(run.tasks.begin(), run.tasks.end(), [](const auto& t) {
    return t.attempt > 0 && t.state != run_state::succeeded && t.state != run_state::skipped;
  });
  return at == run.tasks.end() ? nullptr : &*at;
}

alert_record make_alert(const run_record& run, std::size_t index, std::string kind, const std::filesystem::path& data) {
  nlohmann::ordered_json says{{"alert", kind},
                              {"pipeline", run.pipeline},
                              {"job", run.job},
                              {"run", run.id},
                              {"state", token(run.state)},
                              {"reason", run.reason.empty() ? run.waiting_reason : run.reason},
                              {"trigger", token(run.trigger)},
                              {"attempt", run.attempt},
                              {"created_at", format_time(run.created_at)}};
  if (run.scheduled_for) says["scheduled_for"] = format_time(*run.scheduled_for);
  if (run.started_at) says["started_at"] = format_time(*run.started_at);
  if (run.ended_at) says["ended_at"] = format_time(*run.ended_at);
  if (const auto* task = telling_task(run)) {
    says["task"] = task->name;
    says["log_tail"] = runtime::log_tail(data / "logs" / run.id / (task->name + ".log"), tail_bytes);
  }
  alert_record alert;
  alert.created_at = wall_now();
  alert.id = runtime::make_ulid(alert.created_at);
  alert.pipeline = run.pipeline;
  alert.job = run.job;
  alert.run = run.id;
  alert.revision = run.revision;
  alert.index = static_cast<int>(index);
  alert.kind = std::move(kind);
  alert.payload = says.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return alert;
}

bool is_on(const config::alert& alert, config::alert_event event) {
  return std::find(alert.on.begin(), alert.on.end(), event) != alert.on.end();
}

}  // namespace

std::vector<alert_record> failure_alerts(const run_record& ended, const config::job& job,
                                         const std::filesystem::path& data) {
  std::vector<alert_record> alerts;
  if (ended.state != run_state::failed && ended.state != run_state::timed_out) return alerts;
  for (std::size_t i = 0; i < job.alerts.size(); ++i) {
    if (is_on(job.alerts[i], config::alert_event::failure)) alerts.push_back(make_alert(ended, i, "failure", data));
  }
  return alerts;
}

alert_record late_alert(const run_record& run, std::size_t index, const std::filesystem::path& data) {
  return make_alert(run, index, "late", data);
}

}  // namespace penstock::scheduler
