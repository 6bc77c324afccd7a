#include "config/build_job.hpp"

#include "config/check_commands.hpp"
#include "config/check_pipeline.hpp"
#include "config/checked_value.hpp"
#include "config/cron_expression.hpp"
#include "config/declared_parameters.hpp"
#include "config/validate.hpp"

namespace penstock::config {
namespace {

component_use use_of(const value& use, const std::string& name) {
  const std::string& component = component_name(use);
  return {.component = component, .name = name, .settings = use.at(component)};
}

std::optional<component_use> use_at(const value& object, const std::string& key) {
  const value* found = find(object, key);
  return found ? std::optional(use_of(*found, key)) : std::nullopt;
}

delivery_policy delivery_of(const value& v) {
  using last_resort = delivery_policy::last_resort;
  return {.attempts = v.at("attempts").get<int>(),
          .backoff_first = duration_of(v.at("backoff").at(0)),
          .backoff_limit = duration_of(v.at("backoff").at(1)),
          .then = choice_of<last_resort>(v.at("then"),
                                         {{"hold", last_resort::hold}, {"dead_letter", last_resort::dead_letter}})};
}

dataflow dataflow_of(const value& v) {
  dataflow out{.from = use_at(v, "from"), .steps = {}, .to = use_at(v, "to")};
  if (const value* steps = find(v, "steps")) {
    for (const value& step : *steps) {
      const std::string given = text_or_empty(step, "name");
      out.steps.push_back(
          use_of(step, given.empty() ? default_step_name(component_name(step), out.steps.size()) : given));
    }
  }
  if (const value* outputs = find(v, "outputs")) {
    for (const auto& [name, use] : outputs->items()) out.outputs.push_back(use_of(use, name));
  }
  if (const value* delivery = find(v, "delivery")) out.delivery = delivery_of(*delivery);
  out.parallel = number_at<int>(v, "parallel").value_or(1);
  return out;
}

resource_limits limits_of(const value& v) {
  resource_limits out;
  out.memory = number_at<std::int64_t>(v, "memory");
  out.cpus = number_at<double>(v, "cpus");
  out.cpu_time = duration_at(v, "cpu_time");
  out.open_files = number_at<std::int64_t>(v, "open_files");
  out.processes = number_at<std::int64_t>(v, "processes");
  out.file_size = number_at<std::int64_t>(v, "file_size");
  return out;
}

process_settings process_of(const value& v) {
  process_settings out;
  out.user = text_or_empty(v, "user");
  out.group = text_or_empty(v, "group");
  out.workdir = text_or_empty(v, "workdir");
  if (const value* mask = find(v, "umask")) out.umask = parse_umask(mask->get_ref<const std::string&>()).value();
  out.nice = number_at<int>(v, "nice").value_or(0);
  if (const value* priority = find(v, "io_priority")) {
    out.io = choice_of<io_class>(*priority, {{"best_effort", io_class::best_effort}, {"idle", io_class::idle}});
  }
  if (const value* limits = find(v, "limits")) out.limits = limits_of(*limits);
  return out;
}

command command_of(const value& v) {
  command out{.run = v.at("run").get<std::vector<std::string>>(),
              .environment = {},
              .to = use_at(v, "to"),
              .process = process_of(v)};
  if (const value* environment = find(v, "environment")) {
    for (const auto& [name, text] : environment->items()) out.environment[name] = text.get<std::string>();
  }
  return out;
}

after_trigger after_of(const value& v) {
  const job_reference target = parse_job_reference(v.at("job").get<std::string>());
  const std::string named = text_or_empty(v, "pipeline");
  return {.pipeline = named.empty() ? target.pipeline : named,
          .job = target.job,
          .outcome = choice_of<after_outcome>(v.at("outcome"), {{"succeeded", after_outcome::succeeded},
                                                                {"failed", after_outcome::failed},
                                                                {"any", after_outcome::any}})};
}

cron_trigger cron_of(const value& v) {
  auto expression = parse_cron(v.at("cron").get_ref<const std::string&>());
  if (!expression) throw std::logic_error("unchecked cron expression: " + expression.error().detail);
  return {.expression = *expression,
          .timezone = v.at("timezone").get<std::string>(),
          .missed = choice_of<missed_policy>(
              v.at("missed"),
              {{"skip", missed_policy::skip}, {"one", missed_policy::one}, {"all", missed_policy::all}})};
}

topic_trigger topic_trigger_of(const value& v) {
  return {.topic = v.at("topic").get<std::string>(),
          .where = text_or_empty(v, "where"),
          .max_events = v.at("max_events").get<std::int64_t>(),
          .max_wait = duration_of(v.at("max_wait")),
          .grace_period = duration_of(v.at("grace_period")),
          .debounce = duration_of(v.at("debounce"))};
}

file_trigger file_trigger_of(const value& v) {
  return {.path = v.at("path").get<std::string>(),
          .settle = duration_of(v.at("settle")),
          .max_files = v.at("max_files").get<std::int64_t>(),
          .max_wait = duration_of(v.at("max_wait")),
          .move_to = text_or_empty(v, "move_to"),
          .move_failed_to = text_or_empty(v, "move_failed_to"),
          .remove = v.at("remove").get<bool>()};
}

webhook_trigger webhook_trigger_of(const value& v) {
  const value* signature = find(v, "signature");
  return {.path = v.at("path").get<std::string>(), .signature = signature ? *signature : value()};
}

trigger trigger_of(const value& v) {
  if (find(v, "topic")) return topic_trigger_of(v);
  if (find(v, "cron")) return cron_of(v);
  if (const value* every = find(v, "every")) return every_trigger{.interval = duration_of(*every)};
  if (const value* at = find(v, "at")) {
    return at_trigger{.time = parse_time(at->get_ref<const std::string&>()).value()};
  }
  if (const value* file = find(v, "file")) return file_trigger_of(*file);
  if (const value* hook = find(v, "webhook")) return webhook_trigger_of(*hook);
  return after_of(v.at("after"));
}

task task_of(const std::string& name, const value& v) {
  task out;
  out.name = name;
  out.does = work_of(v);
  if (const value* needs = find(v, "needs")) out.needs = needs->get<std::vector<std::string>>();
  out.timeout = duration_at(v, "timeout");
  out.condition = text_or_empty(v, "if");
  out.allow_failure = v.at("allow_failure").get<bool>();
  if (const value* list = find(v, "for_each")) {
    out.fans_out = true;
    out.max_parallel = v.at("max_parallel").get<std::int64_t>();
    if (list->is_string()) {
      out.for_each_expression = list->get<std::string>();
    } else {
      out.for_each_items.assign(list->begin(), list->end());
    }
  }
  return out;
}

std::vector<task> tasks_of(const value& job) {
  std::vector<task> out;
  if (const value* tasks = find(job, "tasks")) {
    for (const auto& [name, v] : tasks->items()) out.push_back(task_of(name, v));
  } else {
    task& main = out.emplace_back();
    main.name = "main";
    main.does = work_of(job);
  }
  return out;
}

retry_rule retry_of(const value& v) {
  retry_rule out{.attempts = v.at("attempts").get<int>(),
                 .backoff_first = duration_of(v.at("backoff").at(0)),
                 .backoff_limit = duration_of(v.at("backoff").at(1)),
                 .exit_codes = {},
                 .not_exit_codes = {},
                 .budget = {}};
  if (const value* codes = find(v, "exit_codes")) out.exit_codes = codes->get<std::vector<int>>();
  if (const value* codes = find(v, "not_exit_codes")) out.not_exit_codes = codes->get<std::vector<int>>();
  if (const value* budget = find(v, "budget")) {
    out.budget = retry_budget{.retries = budget->at("retries").get<int>(),
                              .within = duration_of(budget->at("within"))};
  }
  return out;
}

std::vector<parameter> params_of(value& v, const node& written) {
  std::vector<parameter> out = declared_parameters(written);
  auto checked = v.begin();  // in the same order
  for (const parameter& p : out) complete_parameter(*checked++, p);
  return out;
}

alert alert_of(const value& v) {
  alert out;
  for (const value& event : v.at("on")) {
    out.on.push_back(
        choice_of<alert_event>(event, {{"failure", alert_event::failure}, {"late", alert_event::late}}));
  }
  out.late_after = duration_at(v, "late_after").value_or(nanoseconds{0});
  out.to = use_of(v.at("to"), "to");
  return out;
}

void add_admission(job& out, const value& v) {
  const value& overlap = v.at("on_overlap");
  out.on_overlap = choice_of<overlap_rule>(overlap.at("rule"), {{"queue", overlap_rule::queue},
                                                                {"skip", overlap_rule::skip},
                                                                {"allow", overlap_rule::allow},
                                                                {"replace", overlap_rule::replace}});
  out.overlap_key = text_or_empty(overlap, "key");
  out.max_active = number_at<std::int64_t>(v, "max_active");
  out.priority = v.at("priority").get<int>();
  if (const value* pools = find(v, "pools")) {
    for (const auto& [pool, slots] : pools->items()) out.pools[pool] = slots.get<std::int64_t>();
  }
  out.queue_limit = v.at("queue_limit").get<std::int64_t>();
}

}  // namespace

work work_of(const value& v) {
  if (find(v, "run")) return command_of(v);
  return dataflow_of(v);
}

job job_of(const std::string& name, value& v, const node& written) {
  job out;
  out.name = name;
  if (const value* triggers = find(v, "trigger")) {
    for (const value& one : *triggers) out.triggers.push_back(trigger_of(one));
  }
  out.tasks = tasks_of(v);
  out.timeout = duration_at(v, "timeout");
  out.deadline = duration_at(v, "deadline");
  out.retry = retry_of(v.at("retry"));
  add_admission(out, v);
  if (const node* params = written.find("params")) {
    out.free_params = false;
    out.params = params_of(v.at("params"), *params);
  }
  if (const value* alerts = find(v, "alerts")) {
    for (const value& one : *alerts) out.alerts.push_back(alert_of(one));
  }
  if (const value* history = find(v, "history")) {
    out.history = {.runs = number_at<std::int64_t>(*history, "runs"), .within = duration_at(*history, "for")};
  }
  out.grace = duration_of(v.at("grace"));
  return out;
}

}  // namespace penstock::config
