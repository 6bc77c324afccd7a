// From text to a checked pipeline: read the document, check it against the records, check what spans several
// values, and only if nothing at all is wrong turn the checked value into plain structs.
#include <stdexcept>

#include "config/check_pipeline.hpp"
#include "config/definition.hpp"
#include "config/place.hpp"
#include "config/validate.hpp"

namespace penstock::config {
namespace {

// From here on the value is checked: what is required is there, and types are right.

const value* find(const value& object, std::string_view key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::string text_or_empty(const value& object, std::string_view key) {
  const value* found = find(object, key);
  return found ? found->get<std::string>() : std::string{};
}

nanoseconds duration_of(const value& v) { return nanoseconds{v.get<std::int64_t>()}; }

std::optional<nanoseconds> duration_at(const value& object, std::string_view key) {
  const value* found = find(object, key);
  return found ? std::optional(duration_of(*found)) : std::nullopt;
}

template <class T>
T choice_of(const value& v, std::initializer_list<std::pair<std::string_view, T>> meanings) {
  const auto& word = v.get_ref<const std::string&>();
  for (const auto& [name, meaning] : meanings) {
    if (name == word) return meaning;
  }
  throw std::logic_error("a choice without a meaning: " + word);
}

component_use use_of(const value& use, const std::string& name) {
  const std::string& component = component_name(use);
  return {.component = component, .name = name, .settings = use.at(component)};
}

std::optional<component_use> use_at(const value& object, const std::string& key) {
  const value* found = find(object, key);
  return found ? std::optional(use_of(*found, key)) : std::nullopt;
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
  return out;
}

command command_of(const value& v) {
  command out{.run = v.at("run").get<std::vector<std::string>>(), .environment = {}, .to = use_at(v, "to")};
  if (const value* environment = find(v, "environment")) {
    for (const auto& [name, text] : environment->items()) out.environment[name] = text.get<std::string>();
  }
  return out;
}

work work_of(const value& v) {
  if (find(v, "run")) return command_of(v);
  return dataflow_of(v);
}

topic topic_of(const std::string& name, const value& v) {
  topic out{.name = name, .retain = duration_at(v, "retain"), .max_bytes = {}, .dedupe = {}};
  if (const value* limit = find(v, "max_bytes")) out.max_bytes = limit->get<std::int64_t>();
  if (const value* rule = find(v, "dedupe")) {
    out.dedupe =
        dedupe_rule{.key = rule->at("key").get<std::string>(), .within = duration_of(rule->at("within"))};
  }
  return out;
}

flow flow_of(const std::string& name, const value& v) {
  return {.name = name, .does = work_of(v), .grace = duration_at(v, "grace").value_or(nanoseconds{0})};
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

trigger trigger_of(const value& v) {
  if (const value* topic = find(v, "topic")) {
    return topic_trigger{.topic = topic->get<std::string>(),
                         .max_events = v.at("max_events").get<std::int64_t>(),
                         .max_wait = duration_of(v.at("max_wait")),
                         .grace_period = duration_of(v.at("grace_period"))};
  }
  if (find(v, "cron")) return cron_of(v);
  if (const value* every = find(v, "every")) return every_trigger{.interval = duration_of(*every)};
  return after_of(v.at("after"));
}

std::vector<task> tasks_of(const value& job) {
  const value* tasks = find(job, "tasks");
  if (!tasks) return {task{.name = "main", .does = work_of(job), .needs = {}, .timeout = {}}};
  std::vector<task> out;
  for (const auto& [name, v] : tasks->items()) {
    task one{.name = name, .does = work_of(v), .needs = {}, .timeout = duration_at(v, "timeout")};
    if (const value* needs = find(v, "needs")) one.needs = needs->get<std::vector<std::string>>();
    out.push_back(std::move(one));
  }
  return out;
}

job job_of(const std::string& name, const value& v) {
  const value& retry = v.at("retry");
  job out{.name = name,
          .triggers = {},
          .tasks = tasks_of(v),
          .timeout = duration_at(v, "timeout"),
          .retry = {.attempts = retry.at("attempts").get<int>(),
                    .backoff_first = duration_of(retry.at("backoff").at(0)),
                    .backoff_limit = duration_of(retry.at("backoff").at(1))},
          .on_overlap = choice_of<overlap_rule>(v.at("on_overlap"), {{"queue", overlap_rule::queue},
                                                                     {"skip", overlap_rule::skip},
                                                                     {"allow", overlap_rule::allow},
                                                                     {"replace", overlap_rule::replace}}),
          .queue_limit = v.at("queue_limit").get<std::int64_t>(),
          .grace = duration_of(v.at("grace"))};
  if (const value* triggers = find(v, "trigger")) {
    for (const value& one : *triggers) out.triggers.push_back(trigger_of(one));
  }
  return out;
}

pipeline pipeline_of(const value& v, const catalog& components) {
  pipeline out{.name = v.at("name").get<std::string>(),
               .description = text_or_empty(v, "description"),
               .workdir = text_or_empty(v, "workdir"),
               .topics = {},
               .flows = {},
               .jobs = {},
               .document = as_written(v, pipeline_fields(), components)};
  if (const value* topics = find(v, "topics")) {
    for (const auto& [name, one] : topics->items()) out.topics.emplace(name, topic_of(name, one));
  }
  if (const value* flows = find(v, "flows")) {
    for (const auto& [name, one] : flows->items()) out.flows.emplace(name, flow_of(name, one));
  }
  if (const value* jobs = find(v, "jobs")) {
    for (const auto& [name, one] : jobs->items()) out.jobs.emplace(name, job_of(name, one));
  }
  return out;
}

error invalid(std::vector<problem> problems, std::string_view file) {
  const std::string first = describe(problems.front(), file);
  std::string detail = first;
  if (problems.size() > 1) {
    const bool cut = problems.size() >= problem_list::most;
    detail =
        std::to_string(problems.size()) + (cut ? " or more problems" : " problems") + "; the first: " + first;
  }
  return error{.code = errc::invalid, .detail = std::move(detail), .problems = std::move(problems)};
}

}  // namespace

result<pipeline> parse_pipeline(std::string_view text, const catalog& components,
                                const parse_options& options) {
  auto read = read_document(text, options.limits);
  if (!read) {
    error e = read.error();
    e.detail = describe(e.problems.front(), options.file);
    return e;
  }
  problem_list problems;
  for (problem& p : read->problems) problems.add(std::move(p));
  const place document(read->root);
  if (read->root.type == node::kind::null) {
    problems.wrong_value(document, "the document is empty; a pipeline begins with its 'name'");
    return invalid(problems.take_sorted(), options.file);
  }
  const value checked = validate(document, pipeline_fields(), components, problems);
  check_pipeline(document, components, problems);
  if (!problems.empty()) return invalid(problems.take_sorted(), options.file);
  return pipeline_of(checked, components);
}

std::string describe(const problem& p, std::string_view file) {
  std::string out(file);
  if (p.line > 0) {
    out += (out.empty() ? "" : ":") + std::to_string(p.line) + ":" + std::to_string(p.column);
  }
  if (!out.empty()) out += ": ";
  if (!p.pointer.empty()) out += p.pointer + ": ";
  return out + p.detail;
}

}  // namespace penstock::config
