#include "config/check_pipeline.hpp"

#include <cstdint>
#include <map>
#include <set>

#include "config/check_bounds.hpp"
#include "config/check_commands.hpp"
#include "config/check_expressions.hpp"
#include "config/check_triggers.hpp"
#include "config/declared_parameters.hpp"
#include "config/in_quotes.hpp"
#include "config/scalar.hpp"
#include "config/validate.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

class checker {
 public:
  checker(const place& document, const catalog& components, problem_list& problems)
      : document_(document), components_(components), problems_(problems), triggers_(document, problems) {}

  void check();

 private:
  void check_flow(const std::string& name, const place& flow, const field& record);
  void check_job(const place& job, const field& record);
  void check_work_of_job(const place& job, const field& record);
  void check_tasks(const place& tasks, const field& record);
  void check_needs(const std::string& task, const place& needs, const node& tasks, dependencies& all);
  void check_one_kind_of_work(const place& p, const field& record);
  void check_dataflow(const place& p, const field& record);
  void check_source(const place& from, bool in_flow);
  void check_step_names(const place& steps);
  void check_pools(const place& pools);
  std::string unknown_pool(const std::string& name) const;
  void check_alert(const place& alert, const field& record);
  void check_workdir(const place& workdir);

  static bool has_trigger(const node& job) {
    const node* trigger = job.find("trigger");
    return trigger && (!trigger->items.empty() || !trigger->fields.empty());
  }

  // One slip is one problem: what is meant by a misspelt key is not missing.
  static bool has(const place& p, const field& record, std::string_view key) {
    return given_or_meant(p.what(), record, key);
  }

  const place& document_;
  const catalog& components_;
  problem_list& problems_;
  trigger_checker triggers_;
  std::map<std::string, std::int64_t> pools_;  // slots
  bool pools_misspelt_ = false;                // nobody knows them, then
};

void checker::check() {
  const auto record_of = [](std::string_view group) -> const field& {
    return find_child(pipeline_fields(), group)->children.at(0);
  };
  look_at_text(document_, "workdir", [this](const place& p) { check_workdir(p); });
  pools_misspelt_ = has(document_, pipeline_fields(), "pools") && !document_.what().find("pools");
  look_at(document_, "pools", [this](const place& pools) {
    // A number of slots that is none is reported by the records; any use of that pool is fine then.
    for_each_entry(pools, [this](const std::string& name, const place& slots) {
      pools_[name] = integer_of(slots.what()).value_or(INT64_MAX);
    });
  });
  look_at(document_, "flows", [&](const place& flows) {
    for_each_entry(flows, [&](const std::string& name, const place& flow) {
      check_flow(name, flow, record_of("flows"));
    });
  });
  look_at(document_, "jobs", [&](const place& jobs) {
    for_each_entry(jobs, [&](const std::string& name, const place& job) {
      if (!is_mapping_or_null(job.what())) return;
      check_job(job, record_of("jobs"));
      look_at(job, "trigger", [&](const place& triggers) { triggers_.check(name, triggers); });
    });
  });
  triggers_.check_cycles();
}

void checker::check_workdir(const place& workdir) {
  const std::string& text = workdir.what().text;
  if (text.starts_with('/') || text.starts_with("${dir}")) return;
  problems_.wrong_value(workdir, "the folder " + in_quotes(text) + " must be absolute or begin with ${dir}");
}

void checker::check_flow(const std::string& name, const place& flow, const field& record) {
  if (!is_mapping_or_null(flow.what())) return;
  const bool from = has(flow, record, "from");
  const bool run = has(flow, record, "run");
  if (!from && !run) problems_.wrong_key(flow, "a flow needs 'from' and 'to', or 'run'");
  check_one_kind_of_work(flow, record);
  if (from) check_dataflow(flow, record);
  look_at(flow, "from", [&](const place& source) {
    check_source(source, true);
    triggers_.check_source(name, source);
  });
  check_command(flow, problems_);
  check_flow_expressions(flow, components_, problems_);
  look_at(flow, "ready", [this](const place& ready) { check_readiness(ready, problems_); });
}

void checker::check_job(const place& job, const field& record) {
  check_work_of_job(job, record);
  check_job_expressions(job, components_, problems_);
  check_bounds_of_job(job, problems_);
  look_at(job, "params", [&](const place& params) {
    check_declared_parameters(params, has_trigger(job.what()), problems_);
  });
  look_at(job, "pools", [this](const place& pools) { check_pools(pools); });
  look_at(job, "alerts", [&](const place& alerts) {
    const field& alert_record = find_child(record, "alerts")->children.at(0);
    for_each_item(alerts, [&](const place& alert) { check_alert(alert, alert_record); });
  });
}

void checker::check_work_of_job(const place& job, const field& record) {
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
  check_command(job, problems_);
}

void checker::check_tasks(const place& tasks, const field& record) {
  dependencies needs;
  for (const auto& name : keys_of(tasks.what())) needs.graph[name];
  for_each_entry(tasks, [&](const std::string& name, const place& task) {
    if (!is_mapping_or_null(task.what())) return;
    const bool dataflow = has(task, record, "from") || has(task, record, "steps") || has(task, record, "to");
    const bool command = has(task, record, "run");
    if (!dataflow && !command) problems_.wrong_key(task, "a task needs 'run', or 'from', 'steps' and 'to'");
    check_one_kind_of_work(task, record);
    if (dataflow && !command) check_dataflow(task, record);
    look_at(task, "from", [this](const place& source) { check_source(source, false); });
    check_command(task, problems_);
    look_at(task, "needs", [&](const place& list) { check_needs(name, list, tasks.what(), needs); });
  });
  report_cycles(needs, "these tasks need each other: ", problems_);
}

void checker::check_needs(const std::string& task, const place& needs, const node& tasks, dependencies& all) {
  std::set<std::string> named;
  for_each_item(needs, [&](const place& need) {
    const node& n = need.what();
    if (n.type != node::kind::scalar || problems_.full()) return;
    if (!named.insert(n.text).second) {
      problems_.wrong_value(need, in_quotes(n.text) + " is named twice");
    } else if (tasks.find(n.text)) {
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

void checker::check_pools(const place& pools) {
  const bool mapping = pools.what().type == node::kind::mapping;
  const auto check = [&](const std::string& name, std::int64_t slots, const place& where) {
    if (problems_.full() || !is_name(name)) return;
    const auto declared = pools_.find(name);
    if (declared == pools_.end()) {
      if (pools_misspelt_) return;
      mapping ? problems_.wrong_key(where, unknown_pool(name)) : problems_.wrong_value(where, unknown_pool(name));
    } else if (slots > declared->second) {
      problems_.wrong_value(where, "the pool " + in_quotes(name) + " has only " +
                                       std::to_string(declared->second) +
                                       (declared->second == 1 ? " slot" : " slots"));
    }
  };
  if (mapping) {
    for_each_entry(pools, [&](const std::string& name, const place& slots) {
      check(name, integer_of(slots.what()).value_or(1), slots);
    });
  } else {
    for_each_item(pools, [&](const place& item) { check(item.what().text, 1, item); });
  }
}

std::string checker::unknown_pool(const std::string& name) const {
  std::vector<std::string> known;
  for (const auto& [pool, slots] : pools_) known.push_back(pool);
  return "there is no pool " + in_quotes(name) + "; " +
         (known.empty() ? "declare it in the pipeline's 'pools', such as pools: {" + name + ": 2}"
                        : suggestion(name, known));
}

void checker::check_alert(const place& alert, const field& record) {
  if (!is_mapping_or_null(alert.what())) return;
  std::set<std::string> events;
  look_at(alert, "on", [&](const place& on) {
    for_each_item(on, [&](const place& event) {
      const std::string& word = event.what().text;
      if (events.insert(word).second) return;
      problems_.wrong_value(event, in_quotes(word) + " is named twice");
    });
  });
  if (events.count("late") && !has(alert, record, "late_after")) {
    problems_.wrong_key(alert, "the key 'late_after' is missing: after how long is a run late?");
  }
  const std::set<std::string> failure_only{"failure"};
  if (events != failure_only) return;
  look_at(alert, "late_after",
          [this](const place& p) { problems_.wrong_key(p, "'late_after' goes with 'on: late'"); });
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
