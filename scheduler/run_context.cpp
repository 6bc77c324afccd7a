#include "scheduler/run_context.hpp"

#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

namespace penstock::scheduler {

namespace {

using json = nlohmann::json;

json facts_of(const run_record& run) {
  json facts{{"id", run.id},
             {"pipeline", run.pipeline},
             {"job", run.job},
             {"trigger", token(run.trigger)},
             {"attempt", run.attempt},
             {"priority", run.priority},
             {"created_at", format_time(run.created_at)}};
  if (run.scheduled_for) facts["scheduled_for"] = format_time(*run.scheduled_for);
  if (!run.upstream_run.empty()) facts["upstream"] = run.upstream_run;
  if (!run.overlap_key.empty()) facts["key"] = run.overlap_key;
  return facts;
}

json context_of(const run_record& run) { return {{"params", json::parse(run.params)}, {"run", facts_of(run)}}; }

// The text between the brackets of "render[3]"; nothing for a name without them.
std::optional<std::size_t> index_of(std::string_view name) {
  const auto bracket = name.find('[');
  if (bracket == std::string_view::npos) return std::nullopt;
  std::size_t index = 0;
  std::from_chars(name.data() + bracket + 1, name.data() + name.size(), index);
  return index;
}

json output_of(const task_record& task) { return task.output.empty() ? json::object() : json::parse(task.output); }

json seen_task(const task_record& task) {
  json seen{{"state", token(task.state)}, {"output", output_of(task)}};
  if (task.exit_code) seen["exit_code"] = *task.exit_code;
  return seen;
}

json seen_tasks(const run_record& run, std::string_view text) {
  json seen = json::object();
  for (const auto& task : run.tasks) {  // instances stand behind all tasks, in order
    const std::string name = task.name.substr(0, task.name.find('['));
    if (text.find(name) == std::string_view::npos) continue;
    if (!index_of(task.name)) {
      seen[name] = seen_task(task);
      continue;
    }
    json& outputs = seen[name]["output"];
    if (!outputs.is_array()) outputs = json::array();
    outputs.push_back(output_of(task));
  }
  return seen;
}

}  // namespace

std::string run_context(const run_record& run) { return context_of(run).dump(); }

std::string run_context_with_event(const run_record& run, std::string_view event) {
  json context = context_of(run);
  if (!event.empty()) context["event"] = json::parse(event);
  return context.dump();
}

std::string task_context(const run_record& run, std::string_view text, const task_record* instance) {
  json context = context_of(run);
  if (text.find("tasks") != std::string_view::npos) context["tasks"] = seen_tasks(run, text);
  if (instance && !instance->item.empty()) {
    context["item"] = json::parse(instance->item);
    context["item_index"] = index_of(instance->name).value_or(0) + 1;  // as Lua counts
  }
  return context.dump();
}

}  // namespace penstock::scheduler
