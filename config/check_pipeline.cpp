#include "config/check_pipeline.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

#include <date/tz.h>

#include "config/cron_expression.hpp"
#include "config/in_quotes.hpp"
#include "config/validate.hpp"

namespace penstock::config {
namespace {

const node::entry* find_entry(const node& mapping, std::string_view key) {
  for (const auto& entry : mapping.fields) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

// What is under `key` of the mapping at `p`, or of no interest: calls `then` only if it is there.
template <class Then>
void look_at(const place& p, std::string_view key, Then then) {
  if (const auto* entry = find_entry(p.what(), key)) then(p.child(*entry));
}

template <class Then>
void look_at_text(const place& p, std::string_view key, Then then) {
  look_at(p, key, [&then](const place& found) {
    if (found.what().type == node::kind::scalar) then(found);
  });
}

template <class Then>
void for_each_entry(const place& p, Then then) {
  for (const auto& entry : p.what().fields) then(entry.key, p.child(entry));
}

// Each item of a list, or the thing itself where it stands without the brackets.
template <class Then>
void for_each_item(const place& p, Then then) {
  if (p.what().type != node::kind::sequence) {
    if (p.what().type != node::kind::null) then(p);
    return;
  }
  for (std::size_t i = 0; i < p.what().items.size(); ++i) then(p.item(i));
}

std::vector<std::string> keys_of(const node& mapping) {
  std::vector<std::string> out;
  for (const auto& entry : mapping.fields) out.push_back(entry.key);
  return out;
}

std::string path_text(const std::vector<std::string>& path) {
  std::string out;
  for (const auto& name : path) out += (out.empty() ? "" : " -> ") + name;
  return out;
}

// The names that a group of things wait for, and where each is written.
struct dependencies {
  waits_for graph;
  std::map<std::pair<std::string, std::string>, problem> written_at;

  void add(const std::string& waiter, const std::string& need, const place& where) {
    graph[waiter].push_back(need);
    const mark at = where.what().at;
    written_at.emplace(std::pair{waiter, need}, problem{where.pointer(), at.line, at.column, ""});
  }
};

void report_cycles(const dependencies& all, const std::string& what, problem_list& problems) {
  for (const auto& cycle : find_cycles(all.graph)) {
    problem p = all.written_at.at({cycle[0], cycle[1]});
    p.detail = what + path_text(cycle);
    problems.add(std::move(p));
  }
}

std::vector<std::string> known_time_zones() {
  std::vector<std::string> out;
  for (const auto& zone : date::get_tzdb().zones) out.push_back(zone.name());
  return out;
}

// "Madrid" means Europe/Madrid, which no edit distance finds.
std::string zone_of_city(std::string_view city, const std::vector<std::string>& zones) {
  for (const auto& zone : zones) {
    if (zone.size() > city.size() && zone.ends_with(city) && zone[zone.size() - city.size() - 1] == '/')
      return zone;
  }
  return {};
}

std::optional<std::string> time_zone_fault(const std::string& name) {
  if (name == "UTC") return std::nullopt;
  try {
    const auto& known = date::get_tzdb().zones;
    const auto is_it = [&name](const date::time_zone& zone) { return zone.name() == name; };
    if (std::any_of(known.begin(), known.end(), is_it)) return std::nullopt;
    const std::vector<std::string> zones = known_time_zones();
    const std::string city = name.empty() ? "" : zone_of_city(name, zones);
    const std::string near = city.empty() ? nearest(name, zones) : city;
    return "unknown time zone " + in_quotes(name) +
           (near.empty() ? "; write an IANA name such as Europe/Madrid" : "; did you mean '" + near + "'?");
  } catch (const std::runtime_error&) {
    return "time zone " + in_quotes(name) +
           " cannot be looked up: this system has no time zone data (tzdata)";
  }
}

class checker {
 public:
  checker(const place& document, const catalog& components, problem_list& problems)
      : document_(document), components_(components), problems_(problems) {}

  void check();

 private:
  void check_flow(const place& flow, const field& record);
  void check_job(const place& job, const field& record);
  void check_tasks(const place& tasks, const field& record);
  void check_needs(const std::string& task, const place& needs, const node& tasks, dependencies& all);
  void check_one_kind_of_work(const place& p, const field& record);
  void check_dataflow(const place& p, const field& record);
  void check_command(const place& p);
  void check_source(const place& from, bool in_flow);
  void check_step_names(const place& steps);
  void check_triggers(const std::string& job, const place& triggers);
  void check_schedule(const place& trigger);
  void check_after(const std::string& job, const place& after);
  void check_job_exists(const std::string& job, const place& where, const job_reference& target);
  void check_workdir(const place& workdir);

  // One slip is one problem: what is meant by a misspelt key is not missing.
  static bool has(const place& p, const field& record, std::string_view key) {
    return given_or_meant(p.what(), record, key);
  }

  const place& document_;
  const catalog& components_;
  problem_list& problems_;
  dependencies starts_after_;  // jobs of this pipeline
};

void checker::check() {
  const auto record_of = [](std::string_view group) -> const field& {
    return find_child(pipeline_fields(), group)->children.at(0);
  };
  look_at_text(document_, "workdir", [this](const place& p) { check_workdir(p); });
  look_at(document_, "flows", [&](const place& flows) {
    for_each_entry(flows,
                   [&](const std::string&, const place& flow) { check_flow(flow, record_of("flows")); });
  });
  look_at(document_, "jobs", [&](const place& jobs) {
    for (const auto& name : keys_of(jobs.what())) starts_after_.graph[name];
    for_each_entry(jobs, [&](const std::string& name, const place& job) {
      check_job(job, record_of("jobs"));
      look_at(job, "trigger", [&](const place& triggers) { check_triggers(name, triggers); });
    });
  });
  report_cycles(starts_after_, "these jobs start each other for ever: ", problems_);
}

void checker::check_workdir(const place& workdir) {
  const std::string& text = workdir.what().text;
  if (text.starts_with('/') || text.starts_with("${dir}")) return;
  problems_.wrong_value(workdir, "the folder " + in_quotes(text) + " must be absolute or begin with ${dir}");
}

void checker::check_flow(const place& flow, const field& record) {
  if (flow.what().type != node::kind::mapping && flow.what().type != node::kind::null) return;
  const bool from = has(flow, record, "from");
  const bool run = has(flow, record, "run");
  if (!from && !run) problems_.wrong_key(flow, "a flow needs 'from' and 'to', or 'run'");
  check_one_kind_of_work(flow, record);
  if (from) check_dataflow(flow, record);
  look_at(flow, "from", [this](const place& source) { check_source(source, true); });
  check_command(flow);
}

void checker::check_job(const place& job, const field& record) {
  if (job.what().type != node::kind::mapping && job.what().type != node::kind::null) return;
  const bool dataflow = has(job, record, "from") || has(job, record, "steps") || has(job, record, "to");
  const bool command = has(job, record, "run");
  if (has(job, record, "tasks")) {
    for (const auto* other : {"run", "from", "steps", "to"}) {
      look_at(job, other, [&](const place& p) {
        problems_.wrong_key(
            p, "'" + std::string(other) + "' and 'tasks' exclude each other; put it into a task");
      });
    }
    look_at(job, "tasks",
            [&](const place& tasks) { check_tasks(tasks, find_child(record, "tasks")->children.at(0)); });
    return;
  }
  if (!dataflow && !command) {
    problems_.wrong_key(job, "a job needs something to do: 'run', 'tasks', or 'from', 'steps' and 'to'");
  }
  check_one_kind_of_work(job, record);
  if (dataflow && !command) check_dataflow(job, record);
  look_at(job, "from", [this](const place& source) { check_source(source, false); });
  check_command(job);
}

void checker::check_tasks(const place& tasks, const field& record) {
  dependencies needs;
  for (const auto& name : keys_of(tasks.what())) needs.graph[name];
  for_each_entry(tasks, [&](const std::string& name, const place& task) {
    if (task.what().type != node::kind::mapping && task.what().type != node::kind::null) return;
    const bool dataflow = has(task, record, "from") || has(task, record, "steps") || has(task, record, "to");
    const bool command = has(task, record, "run");
    if (!dataflow && !command) problems_.wrong_key(task, "a task needs 'run', or 'from', 'steps' and 'to'");
    check_one_kind_of_work(task, record);
    if (dataflow && !command) check_dataflow(task, record);
    look_at(task, "from", [this](const place& source) { check_source(source, false); });
    check_command(task);
    look_at(task, "needs", [&](const place& list) { check_needs(name, list, tasks.what(), needs); });
  });
  report_cycles(needs, "these tasks need each other: ", problems_);
}

void checker::check_needs(const std::string& task, const place& needs, const node& tasks, dependencies& all) {
  for_each_item(needs, [&](const place& need) {
    const node& n = need.what();
    if (n.type != node::kind::scalar || problems_.full()) return;
    if (tasks.find(n.text)) {
      all.add(task, n.text, need);
    } else if (is_name(n.text)) {
      problems_.wrong_value(
          need, "there is no task " + in_quotes(n.text) + "; " + suggestion(n.text, keys_of(tasks)));
    }
  });
}

void checker::check_one_kind_of_work(const place& p, const field& record) {
  if (!has(p, record, "run")) return;
  for (const auto* key : {"from", "steps"}) {
    look_at(p, key, [&](const place& found) {
      problems_.wrong_key(found,
                          "'" + std::string(key) +
                              "' and 'run' exclude each other; this is either a dataflow (from, steps, to) "
                              "or a command (run)");
    });
  }
}

void checker::check_dataflow(const place& p, const field& record) {
  if (!has(p, record, "to") && !has(p, record, "run")) {
    problems_.wrong_key(p, "the key 'to' is missing: events must go somewhere ('to: drop' drops them)");
  }
  look_at(p, "steps", [this](const place& steps) { check_step_names(steps); });
}

void checker::check_source(const place& from, bool in_flow) {
  const auto fits = [in_flow](const component_spec& spec) { return in_flow ? spec.live : spec.bounded; };
  const auto fault = [&](const std::string& name) -> std::string {
    const auto found = components_.sources.find(name);
    if (found == components_.sources.end() || fits(found->second)) return {};
    std::string others;
    for (const auto& [other, spec] : components_.sources) {
      if (fits(spec)) others += (others.empty() ? "" : ", ") + other;
    }
    return "'" + name + "' " +
           (in_flow ? "comes to an end, so a flow cannot read it; a flow reads: "
                    : "never ends, so a job cannot read it; a job reads: ") +
           others;
  };
  if (from.what().type == node::kind::scalar) {
    if (std::string detail = fault(from.what().text); !detail.empty()) problems_.wrong_value(from, detail);
  }
  for_each_entry(from, [&](const std::string& name, const place& use) {
    if (std::string detail = fault(name); !detail.empty()) problems_.wrong_key(use, detail);
  });
}

void checker::check_step_names(const place& steps) {
  if (steps.what().type != node::kind::sequence) return;
  std::set<std::string> taken{"from", "to"};
  const auto given_name = [](const node& step) -> const node* {
    const node* name = step.find("name");
    return name && name->type == node::kind::scalar ? name : nullptr;
  };
  for (std::size_t i = 0; i < steps.what().items.size(); ++i) {
    const node& step = steps.what().items[i];
    if (given_name(step)) continue;
    if (step.type == node::kind::scalar) taken.insert(default_step_name(step.text, i));
    if (!step.fields.empty()) taken.insert(default_step_name(step.fields.front().key, i));
  }
  for (std::size_t i = 0; i < steps.what().items.size(); ++i) {
    const place step = steps.item(i);
    look_at_text(step, "name", [&](const place& name) {
      if (taken.insert(name.what().text).second) return;
      problems_.wrong_value(name,
                            "the name " + in_quotes(name.what().text) + " is taken; step names are unique");
    });
  }
}

void checker::check_command(const place& p) {
  look_at(p, "run", [this](const place& run) {
    if (run.what().type != node::kind::sequence || run.what().items.empty()) return;
    const place program = run.item(0);
    if (program.what().type != node::kind::scalar || !program.what().text.empty()) return;
    problems_.wrong_value(program, "the program's name is empty");
  });
  look_at(p, "environment", [this](const place& environment) {
    for_each_entry(environment, [this](const std::string& name, const place& variable) {
      const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
      };
      const bool digit_first = !name.empty() && name.front() >= '0' && name.front() <= '9';
      if (name.empty() || digit_first || !std::all_of(name.begin(), name.end(), allowed)) {
        problems_.wrong_key(variable,
                            in_quotes(name) +
                                " cannot name an environment variable: letters, digits and '_', no digit "
                                "first");
      } else if (name.starts_with("PENSTOCK_")) {
        problems_.wrong_key(variable,
                            in_quotes(name) + ": the daemon itself sets what begins with PENSTOCK_");
      }
    });
  });
}

void checker::check_triggers(const std::string& job, const place& triggers) {
  std::set<std::string> topics;
  for_each_item(triggers, [&](const place& trigger) {
    if (problems_.full()) return;
    check_schedule(trigger);
    look_at_text(trigger, "topic", [&](const place& topic) {
      if (topics.insert(topic.what().text).second) return;
      problems_.wrong_value(topic, "topic " + in_quotes(topic.what().text) + " starts this job already");
    });
    look_at(trigger, "after", [&](const place& after) { check_after(job, after); });
  });
}

void checker::check_schedule(const place& trigger) {
  look_at_text(trigger, "cron", [this](const place& cron) {
    const auto parsed = parse_cron(cron.what().text);
    if (!parsed) problems_.wrong_value(cron, "not a cron expression: " + parsed.error().detail);
  });
  look_at_text(trigger, "timezone", [this](const place& zone) {
    if (auto fault = time_zone_fault(zone.what().text)) problems_.wrong_value(zone, *fault);
  });
}

void checker::check_after(const std::string& job, const place& after) {
  if (after.what().type == node::kind::scalar) {
    check_job_exists(job, after, parse_job_reference(after.what().text));
    return;
  }
  look_at_text(after, "job", [&](const place& name) {
    job_reference target = parse_job_reference(name.what().text);
    const node* pipeline = after.what().find("pipeline");
    if (pipeline && pipeline->type == node::kind::scalar) {
      if (!target.pipeline.empty()) {
        problems_.wrong_value(name,
                              in_quotes(name.what().text) + " names a pipeline, and so does 'pipeline'");
        return;
      }
      target.pipeline = pipeline->text;
    }
    check_job_exists(job, name, target);
  });
}

void checker::check_job_exists(const std::string& job, const place& where, const job_reference& target) {
  if (!is_name(target.job) || (!target.pipeline.empty() && !is_name(target.pipeline))) {
    problems_.wrong_value(where, in_quotes(where.what().text) + " is neither a job nor pipeline.job");
    return;
  }
  const node* own_name = document_.what().find("name");
  const bool here = target.pipeline.empty() || (own_name && own_name->text == target.pipeline);
  if (!here) return;  // another pipeline may come later
  if (starts_after_.graph.count(target.job)) {
    starts_after_.add(job, target.job, where);
    return;
  }
  const node* jobs = document_.what().find("jobs");
  problems_.wrong_value(where,
                        "this pipeline has no job " + in_quotes(target.job) + "; " +
                            suggestion(target.job, jobs ? keys_of(*jobs) : std::vector<std::string>{}) +
                            " A job of another pipeline is written pipeline.job");
}

}  // namespace

std::string default_step_name(std::string_view component, std::size_t index) {
  return std::string(component) + "_" + std::to_string(index + 1);
}

job_reference parse_job_reference(std::string_view text) {
  const auto dot = text.find('.');
  if (dot == text.npos) return {.pipeline = "", .job = std::string(text)};
  return {.pipeline = std::string(text.substr(0, dot)), .job = std::string(text.substr(dot + 1))};
}

void check_pipeline(const place& document, const catalog& components, problem_list& problems) {
  checker(document, components, problems).check();
}

}  // namespace penstock::config
