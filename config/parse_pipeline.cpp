// From text to a checked pipeline: read the document, check it against the records, check what spans several
// values, and only if nothing at all is wrong turn the checked value into plain structs.
#include <algorithm>
#include <unordered_map>

#include "config/build_job.hpp"
#include "config/check_outputs.hpp"
#include "config/check_pipeline.hpp"
#include "config/check_settings.hpp"
#include "config/check_tests.hpp"
#include "config/checked_value.hpp"
#include "config/definition.hpp"
#include "config/place.hpp"
#include "config/validate.hpp"
#include "config/warnings.hpp"

namespace penstock::config {
namespace {

topic topic_of(const std::string& name, const value& v) {
  topic out{.name = name, .retain = duration_at(v, "retain"), .max_bytes = {}, .dedupe = {}};
  if (const value* limit = find(v, "max_bytes")) out.max_bytes = limit->get<std::int64_t>();
  if (const value* rule = find(v, "dedupe")) {
    out.dedupe =
        dedupe_rule{.key = rule->at("key").get<std::string>(), .within = duration_of(rule->at("within"))};
  }
  return out;
}

readiness_probe readiness_of(const value& v) {
  readiness_probe out;
  out.http = text_or_empty(v, "http");
  out.tcp = text_or_empty(v, "tcp");
  if (const value* run = find(v, "run")) out.run = run->get<std::vector<std::string>>();
  out.interval = duration_of(v.at("interval"));
  out.timeout = duration_of(v.at("timeout"));
  return out;
}

flow flow_of(const std::string& name, const value& v) {
  flow out;
  out.name = name;
  out.does = work_of(v);
  out.grace = duration_at(v, "grace").value_or(nanoseconds{0});
  if (const value* ready = find(v, "ready")) out.ready = readiness_of(*ready);
  return out;
}

void add_jobs(pipeline& out, value& jobs, const node& written) {
  std::unordered_map<std::string_view, const node*> where;
  for (const auto& entry : written.fields) where.emplace(entry.key, &entry.value);
  for (const auto& [name, one] : jobs.items()) {
    out.jobs.emplace(name, job_of(name, one, *where.at(name)));
  }
}

pipeline pipeline_of(value v, const node& written, const catalog& components) {
  pipeline out;
  out.name = v.at("name").get<std::string>();
  out.description = text_or_empty(v, "description");
  out.workdir = text_or_empty(v, "workdir");
  out.max_active = number_at<std::int64_t>(v, "max_active");
  if (const value* pools = find(v, "pools")) {
    for (const auto& [name, slots] : pools->items()) out.pools.emplace(name, slots.get<std::int64_t>());
  }
  if (const value* topics = find(v, "topics")) {
    for (const auto& [name, one] : topics->items()) out.topics.emplace(name, topic_of(name, one));
  }
  if (const value* flows = find(v, "flows")) {
    for (const auto& [name, one] : flows->items()) out.flows.emplace(name, flow_of(name, one));
  }
  if (const node* jobs = written.find("jobs")) add_jobs(out, v.at("jobs"), *jobs);
  out.document = as_written(v, pipeline_fields(), components);
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
  value checked = validate(document, pipeline_fields(), components, problems);
  check_pipeline(document, components, problems);
  if (!options.stored) check_tests(document, problems);
  if (problems.empty()) check_outputs(document, checked, components, problems);
  if (!options.stored) check_settings(document, checked, components, problems);
  if (!problems.empty()) return invalid(problems.take_sorted(), options.file);
  problem_list doubts;
  if (!options.stored) find_doubts(document, checked, components, doubts);
  const value tests = checked.value("tests", value::object());
  pipeline out = pipeline_of(std::move(checked), read->root, components);
  if (!options.stored) add_tests(document, tests, out, problems);  // whoever goes on with a stored one does not test it
  if (!problems.empty()) return invalid(problems.take_sorted(), options.file);
  for (problem& p : find_warnings(document)) doubts.add(std::move(p));
  out.warnings = doubts.take_sorted();
  return out;
}

std::string describe(const problem& p, std::string_view file) {
  std::string out(file);
  if (p.line > 0) {
    out += (out.empty() ? "" : ":") + std::to_string(p.line) + ":" + std::to_string(p.column);
  }
  if (!out.empty()) out += ": ";
  if (!p.pointer.empty()) out += p.pointer + ": ";
  out += p.detail;
  std::replace(out.begin(), out.end(), '\n', ' ');  // keys may be of several lines
  return out;
}

}  // namespace penstock::config
