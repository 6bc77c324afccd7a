#include "config/check_expressions.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "config/fill_in.hpp"
#include "config/in_quotes.hpp"
#include "config/lua_mentions.hpp"
#include "config/scalar.hpp"
#include "config/task_order.hpp"
#include "config/validate.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

// What an expression may speak of where it stands.
struct scope {
  std::string_view task{};   // whose it is; empty: of no task
  bool item = false;         // an item of the task's for_each
  bool tasks = true;         // what tasks have put out
  bool run = true;           // params and run
  std::string_view what{};   // names the expression in messages, where not all may be used
  std::string_view sees{};   // what it may speak of, in words
};

// What the daemon tells of a run (scheduler/run_context.cpp).
const std::vector<std::string>& facts_of_a_run() {
  static const std::vector<std::string> all{"id",         "pipeline",      "job",      "trigger",  "attempt",
                                            "created_at", "scheduled_for", "upstream", "priority", "key"};
  return all;
}

// `params and params.x`: what may be absent is asked for first.
bool is_asked_for(const std::vector<lua_mention>& mentions, const std::string& variable) {
  return std::find(mentions.begin(), mentions.end(), lua_mention{variable, ""}) != mentions.end();
}

// Walks over the expressions among the settings of a component.
template <class Then>
void for_each_expression(const place& p, const field& record, Then then) {
  const node& n = p.what();
  switch (record.type) {
    case field_type::expression:
      if (n.type == node::kind::scalar) then(p);
      return;
    case field_type::list:
      for_each_item(p, [&](const place& item) { for_each_expression(item, record.children.at(0), then); });
      return;
    case field_type::map:
      for_each_entry(p, [&](const std::string&, const place& item) {
        for_each_expression(item, record.children.at(0), then);
      });
      return;
    case field_type::object: {
      const field* meant = is_short_form(n, record) ? find_child(record, record.shorthand) : nullptr;
      if (meant) return for_each_expression(p, *meant, then);
      for_each_entry(p, [&](const std::string& key, const place& item) {
        if (const field* child = find_child(record, key)) for_each_expression(item, *child, then);
      });
      return;
    }
    default:
      return;
  }
}

// The expressions of a dataflow: of its steps, and of where its events come from and go to.
template <class Then>
void for_each_expression_of_dataflow(const place& p, const catalog& components, Then then) {
  const auto look = [&](const place& use, component_kind kind) {
    for_each_entry(use, [&](const std::string& name, const place& settings) {
      const auto spec = components.of(kind).find(name);
      if (spec != components.of(kind).end()) for_each_expression(settings, spec->second.settings, then);
    });
  };
  look_at(p, "from", [&](const place& from) { look(from, component_kind::source); });
  look_at(p, "steps", [&](const place& steps) {
    for_each_item(steps, [&](const place& step) { look(step, component_kind::step); });
  });
  look_at(p, "to", [&](const place& to) { look(to, component_kind::sink); });
  look_at(p, "outputs", [&](const place& outputs) {
    for_each_entry(outputs, [&](const std::string&, const place& to) { look(to, component_kind::sink); });
  });
}

// Walks over the arguments and the values of the environment.
template <class Then>
void for_each_text_of_command(const place& p, Then then) {
  const auto look = [&then](const place& text) {
    if (text.what().type == node::kind::scalar) then(text);
  };
  look_at(p, "run", [&](const place& run) {
    if (run.what().type == node::kind::sequence) for_each_item(run, look);
  });
  look_at(p, "environment", [&](const place& environment) {
    for_each_entry(environment, [&](const std::string&, const place& text) { look(text); });
  });
}

// `params.max-age` reads as a subtraction in Lua: how a name with a dash must be written, if one was meant.
std::string dashed_hint(const std::string& variable, const std::string& key, std::string_view text,
                        const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (!name.starts_with(key + "-") || text.find(variable + "." + name) == text.npos) continue;
    return "write " + variable + "[\"" + name + "\"]";
  }
  return {};
}

class expression_checker {
 public:
  expression_checker(const place& job, const catalog& components, problem_list& problems)
      : job_(job), components_(components), problems_(problems), order_(tasks_of(job.what())) {
    for (const auto& name : order_.names()) tasks_.push_back(name);
    const node* params = job.what().find("params");
    if (params) params_ = keys_of(*params);
  }

  void check() {
    look_at(job_, "trigger", [this](const place& triggers) { check_triggers(triggers); });
    look_at(job_, "on_overlap", [this](const place& rule) {
      look_at_text(rule, "key", [this](const place& key) {
        const scope params_and_run{
            .tasks = false, .what = "the key of on_overlap", .sees = "params, run and event"};
        check_mentions(key, key.what().text, params_and_run);
        check_key_of_triggers(key);
      });
    });
    check_command(job_, {});
    check_dataflow(job_);
    look_at(job_, "tasks", [this](const place& tasks) {
      for_each_entry(tasks, [this](const std::string& name, const place& task) { check_task(name, task); });
    });
  }

 private:
  static const node& tasks_of(const node& job) {
    static const node none{};
    const node* tasks = job.find("tasks");
    return tasks ? *tasks : none;
  }

  void check_triggers(const place& triggers) {
    for_each_item(triggers, [this](const place& trigger) {
      if (problems_.full()) return;
      look_at_text(trigger, "where", [this](const place& where) {
        const scope event_only{.tasks = false, .run = false, .what = "'where'", .sees = "event and meta"};
        check_mentions(where, where.what().text, event_only);
      });
    });
  }

  // Only a run of REST, a hook or a file has both parameters and an event when its key is computed.
  void check_key_of_triggers(const place& key) {
    const auto mentions = lua_mentions(key.what().text);
    const auto mentions_only = [&mentions](const std::string& variable) {
      const auto is_it = [&variable](const lua_mention& m) { return m.variable == variable; };
      return std::any_of(mentions.begin(), mentions.end(), is_it) && !is_asked_for(mentions, variable);
    };
    std::optional<std::string> fault;
    look_at(job_, "trigger", [&](const place& triggers) {
      for_each_item(triggers, [&](const place& trigger) {
        for (const std::string variable : {"params", "run"}) {
          if (!trigger.what().find("topic") || !mentions_only(variable)) continue;
          fault = "a topic trigger sorts events by the key before there is a run: it sees event, not " + variable;
        }
        for (const std::string kind : {"cron", "every", "at", "after"}) {
          if (!trigger.what().find(kind) || !mentions_only("event")) continue;
          fault = "a run that '" + kind + "' starts has no event; write (event or {}).NAME if others have one";
        }
      });
    });
    if (fault) problems_.wrong_value(key, *fault);
  }

  void check_dataflow(const place& p) {
    const scope steps{.tasks = false, .what = "a dataflow of a job", .sees = "event, meta, params and run"};
    for_each_expression_of_dataflow(p, components_, [&](const place& expression) {
      if (!problems_.full()) check_mentions(expression, expression.what().text, steps);
    });
  }

  void check_task(const std::string& name, const place& task) {
    if (problems_.full()) return;
    const scope before{.task = name};
    look_at_text(task, "if",
                 [&](const place& condition) { check_mentions(condition, condition.what().text, before); });
    look_at(task, "for_each", [&](const place& list) { check_list(list, before); });
    check_command(task, {.task = name, .item = task.what().find("for_each") != nullptr});
    check_dataflow(task);
  }

  void check_list(const place& list, const scope& where) {
    const node& n = list.what();
    if (n.type == node::kind::sequence) return;
    if (n.type != node::kind::scalar || number_of(n) || boolean_of(n)) {
      problems_.wrong_value(list, "expected a list, or an expression that gives one, got " + kind_and_text_of(n));
    } else if (check_syntax(list, n.text, "")) {
      check_mentions(list, n.text, where);
    }
  }

  void check_command(const place& p, const scope& where) {
    for_each_text_of_command(p, [&](const place& text) {
      if (problems_.full()) return;
      for (const text_part& part : split_fill_ins(text.what().text)) {
        if (part.type == text_part::kind::text) {
          if (auto slip = fill_in_slip(part.text)) problems_.wrong_value(text, *slip);
        } else if (part.type == text_part::kind::unclosed) {
          problems_.wrong_value(text, in_quotes(part.text) + " has no closing brace");
        } else if (part.type == text_part::kind::expression &&
                   check_syntax(text, part.text, in_quotes("${" + part.text + "}") + ": ")) {
          check_mentions(text, part.text, where);
        }
      }
    });
  }

  bool check_syntax(const place& where, const std::string& expression, const std::string& shown) {
    if (expression.find_first_not_of(" \t\r\n") == expression.npos) {
      problems_.wrong_value(where, shown + "empty; expected a Lua expression");
      return false;
    }
    if (!components_.check_lua) return true;
    if (const auto fault = components_.check_lua(expression, false)) {
      problems_.wrong_value(where, shown + "not valid Lua: " + *fault);
      return false;
    }
    const auto slip = lua_slip(expression);
    if (slip) problems_.wrong_value(where, shown + *slip);
    return !slip;
  }

  void check_mentions(const place& where, const std::string& expression, const scope& may) {
    for (const auto& [variable, key] : lua_mentions(expression)) {
      std::optional<std::string> fault;
      if (variable == "params" || variable == "run") {
        fault = may.run ? fault_of_run(variable, key, expression) : not_here(variable, may);
      } else if (variable == "tasks") {
        fault = may.tasks ? task_fault(key, expression, may) : not_here(variable, may);
      } else if (variable.starts_with("item") && !may.item) {
        fault = may.tasks ? no_item(variable) : not_here(variable, may);
      }
      if (fault) problems_.wrong_value(where, *fault);
    }
  }

  static std::string not_here(const std::string& variable, const scope& may) {
    return "'" + variable + "' means nothing here; " + std::string(may.what) + " sees " + std::string(may.sees);
  }

  static std::string no_item(const std::string& variable) {
    return "'" + variable + "' means something in the command of a task with 'for_each' only; a shell's own variable "
           "is written $" + variable;
  }

  std::optional<std::string> fault_of_run(const std::string& variable, const std::string& key,
                                          const std::string& expression) const {
    if (variable == "params") return parameter_fault(variable, key, expression);
    const auto& facts = facts_of_a_run();
    if (key.empty() || std::find(facts.begin(), facts.end(), key) != facts.end()) return std::nullopt;
    return "a run has no " + in_quotes(key) + "; " + suggestion(key, facts);
  }

  std::optional<std::string> parameter_fault(const std::string& variable, const std::string& key,
                                             const std::string& expression) const {
    if (!params_ || key.empty()) return std::nullopt;
    if (std::find(params_->begin(), params_->end(), key) != params_->end()) return std::nullopt;
    const std::string hint = dashed_hint(variable, key, expression, *params_);
    if (!hint.empty()) return "there is no parameter " + in_quotes(key) + "; " + hint;
    return "there is no parameter " + in_quotes(key) + "; " +
           (params_->empty() ? "'params' declares none" : suggestion(key, *params_));
  }

  std::optional<std::string> task_fault(const std::string& key, const std::string& expression, const scope& may) {
    if (may.task.empty()) {
      return tasks_.empty() ? "this job has no 'tasks' that could have put something out"
                            : "'tasks' means something in the tasks of a job only";
    }
    if (key.empty()) return std::nullopt;
    if (!order_.has(key)) {
      const std::string hint = dashed_hint("tasks", key, expression, tasks_);
      return "there is no task " + in_quotes(key) + "; " + (hint.empty() ? suggestion(key, tasks_) : hint);
    }
    if (key == may.task) return "a task does not see what it puts out itself";
    if (order_.needs(may.task, key)) return std::nullopt;
    return "the task " + in_quotes(key) + " need not have ended by then; add it to 'needs'";
  }

  const place& job_;
  const catalog& components_;
  problem_list& problems_;
  task_order order_;
  std::vector<std::string> tasks_;
  std::optional<std::vector<std::string>> params_;  // absent: any may be given
};

}  // namespace

void check_job_expressions(const place& job, const catalog& components, problem_list& problems) {
  expression_checker(job, components, problems).check();
}

void check_flow_expressions(const place& flow, const catalog& components, problem_list& problems) {
  for_each_expression_of_dataflow(flow, components, [&problems](const place& expression) {
    const auto mentions = lua_mentions(expression.what().text);
    for (const auto& [variable, key] : mentions) {
      if (problems.full()) return;
      if (variable == "event" || variable == "meta" || is_asked_for(mentions, variable)) continue;
      problems.wrong_value(expression, "'" + variable + "' means nothing here; a flow sees event and meta");
    }
  });
  const auto check = [&problems](const place& text) {
    if (problems.full()) return;
    if (auto slip = fill_in_slip(text.what().text)) problems.wrong_value(text, *slip);
    for (const text_part& part : split_fill_ins(text.what().text)) {
      const std::size_t dot = part.text.find_first_of(".[}");
      if (part.type != text_part::kind::expression || dot == part.text.npos || part.text[dot] != '.') continue;
      problems.wrong_value(text, in_quotes("${" + part.text + "}") +
                                     ": only a job's commands have params, run, tasks and item");
    }
  };
  for_each_text_of_command(flow, check);
  look_at(flow, "ready", [&](const place& ready) { for_each_text_of_command(ready, check); });
}

}  // namespace penstock::config
