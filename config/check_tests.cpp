#include "config/check_tests.hpp"

#include <algorithm>

#include "config/check_pipeline.hpp"
#include "config/checked_value.hpp"
#include "config/in_quotes.hpp"
#include "config/parameters.hpp"
#include "config/scalar.hpp"
#include "config/time.hpp"
#include "config/validate.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

constexpr std::string_view attributes_key = "event", payload_key = "data";

// Who writes just these two keys means an event with its attributes, not a payload.
bool has_attributes(const node& event) {
  const node* attributes = event.find(attributes_key);
  return event.fields.size() == 2 && attributes && event.find(payload_key) && attributes->type == node::kind::mapping;
}

bool has_attributes(const value& event) {
  const value* attributes = event.is_object() ? find(event, attributes_key) : nullptr;
  return attributes && event.size() == 2 && find(event, payload_key) && attributes->is_object();
}

class test_checker {
 public:
  test_checker(const place& document, problem_list& problems) : document_(document), problems_(problems) {}

  void check(const place& test) {
    check_expects(test);
    for (const char* key : {"given", "expect"}) look_at(test, key, [this](const place& events) { check_events(events); });
    const node* dataflow = subject_of(test);
    look_at(test, "outputs", [&](const place& outputs) { check_outputs(outputs, dataflow); });
    if (!dataflow) return;
    const std::vector<std::string> steps = step_names(*dataflow);
    look_at_text(test, "step", [&](const place& step) { check_step(step, steps); });
    look_at(test, "dead", [&](const place& dead) {
      for_each_item(dead, [&](const place& letter) {
        look_at_text(letter, "step", [&](const place& step) { check_step(step, steps); });
      });
    });
  }

 private:
  void check_expects(const place& test) {
    static const field& record = find_child(pipeline_fields(), "tests")->children.at(0);
    if (!is_mapping_or_null(test.what())) return;
    for (const char* key : {"expect", "outputs", "dead"}) {
      if (given_or_meant(test.what(), record, key)) return;
    }
    problems_.wrong_key(test, "it expects nothing; say 'expect' ('expect: []' when no event may come out), 'outputs' or 'dead'");
  }

  void check_events(const place& events) {
    for_each_item(events, [this](const place& event) {
      if (!has_attributes(event.what()) || problems_.full()) return;
      look_at(event, attributes_key, [this](const place& attributes) {
        for_each_entry(attributes, [this](const std::string& name, const place& p) { check_attribute(name, p); });
      });
    });
  }

  void check_attribute(const std::string& name, const place& p) {
    static const std::vector<std::string> known{"id",  "source", "type",  "subject",
                                                "key", "time",   "topic", "datacontenttype"};
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      problems_.wrong_key(p, "an event has no attribute " + in_quotes(name) + "; " + suggestion(name, known));
    } else if (p.what().type != node::kind::scalar) {
      problems_.wrong_value(p, "expected a text, got " + kind_of(p.what()));
    } else if (name == "time" && !parse_time(p.what().text)) {
      problems_.wrong_value(p, "expected a time as in RFC 3339, such as 2018-02-07T00:00:00Z, got " + kind_and_text_of(p.what()));
    } else if (name == "id" && p.what().text.empty()) {
      problems_.wrong_value(p, "an event's id is not empty");
    }
  }

  // The mapping that holds the steps which are tested; null when there is none, which has been told then.
  const node* subject_of(const place& test) {
    const node* found = nullptr;
    look_at_text(test, "flow", [&](const place& name) { found = find_work(name, "flows", "flow"); });
    look_at_text(test, "job", [&](const place& name) {
      const node* job = find_work(name, "jobs", "job");
      found = job ? task_of(*job, name, test) : nullptr;
    });
    if (!found || !found->find("run")) return found;
    const char* key = test.what().find("task") ? "task" : test.what().find("job") ? "job" : "flow";
    look_at(test, key, [&](const place& p) {
      problems_.wrong_value(p, in_quotes(p.what().text) + " is a command; only what 'from', 'steps' and 'to' do can be tested");
    });
    return nullptr;
  }

  const node* find_work(const place& name, std::string_view group, const std::string& word) {
    const node* all = document_.what().find(group);
    if (!all && given_or_meant(document_.what(), pipeline_fields(), group)) return nullptr;
    const node* found = all ? all->find(name.what().text) : nullptr;
    if (found || !is_name(name.what().text)) return found;
    const std::vector<std::string> known = all ? keys_of(*all) : std::vector<std::string>{};
    problems_.wrong_value(name, "there is no " + word + " " + in_quotes(name.what().text) + "; " +
                                    (known.empty() ? "the pipeline has no " + std::string(group)
                                                   : suggestion(name.what().text, known)));
    return nullptr;
  }

  const node* task_of(const node& job, const place& name, const place& test) {
    const node* tasks = job.find("tasks");
    const node* found = tasks ? nullptr : &job;
    bool named = false;
    look_at_text(test, "task", [&](const place& task) {
      named = true;
      found = tasks ? tasks->find(task.what().text) : nullptr;
      if (found || !is_name(task.what().text)) return;
      problems_.wrong_value(task, !tasks ? "the job " + in_quotes(name.what().text) + " has no tasks; leave this out"
                                         : "there is no task " + in_quotes(task.what().text) + "; " +
                                               suggestion(task.what().text, keys_of(*tasks)));
    });
    static const field& record = find_child(pipeline_fields(), "tests")->children.at(0);
    if (tasks && !named && !given_or_meant(test.what(), record, "task")) {
      problems_.wrong_value(name, "this job has tasks; say which with 'task': " + joined(keys_of(*tasks)));
    }
    return found;
  }

  static std::string joined(const std::vector<std::string>& words) {
    std::string all;
    for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
    return all;
  }

  static std::vector<std::string> step_names(const node& dataflow) {
    std::vector<std::string> names;
    const node* steps = dataflow.find("steps");
    if (!steps) return names;
    for (const node& step : steps->items) {
      const node* given = step.find("name");
      const std::string component = !step.fields.empty() ? step.fields.front().key : step.text;
      names.push_back(given ? given->text : default_step_name(component, names.size()));
    }
    return names;
  }

  void check_step(const place& step, const std::vector<std::string>& known) {
    const std::string& name = step.what().text;
    if (!is_name(name) || std::find(known.begin(), known.end(), name) != known.end()) return;
    problems_.wrong_value(step, "there is no step " + in_quotes(name) + "; " +
                                    (known.empty() ? "there are no steps at all" : suggestion(name, known)));
  }

  void check_outputs(const place& outputs, const node* dataflow) {
    const node* there = dataflow ? dataflow->find("outputs") : nullptr;
    const std::vector<std::string> known = there ? keys_of(*there) : std::vector<std::string>{};
    for_each_entry(outputs, [&](const std::string& name, const place& events) {
      check_events(events);
      if (!dataflow || !is_name(name) || std::find(known.begin(), known.end(), name) != known.end()) return;
      problems_.wrong_key(events, "there is no output " + in_quotes(name) + "; " +
                                      (known.empty() ? "there are no 'outputs'" : suggestion(name, known)));
    });
  }

  const place& document_;
  problem_list& problems_;
};

// ---- from checked values ----

std::string attribute_text(std::string_view name, const value& v) {
  const std::string text = v.is_string() ? v.get<std::string>() : v.dump();
  return name == "time" ? format_time(parse_time(text).value()) : text;
}

test_event event_of(const value& v) {
  if (!has_attributes(v)) return {.attributes = {}, .data = v};
  test_event out{.attributes = {}, .data = v.at(payload_key)};
  for (const auto& [name, one] : v.at(attributes_key).items()) out.attributes.emplace(name, attribute_text(name, one));
  return out;
}

std::vector<test_event> events_of(const value& list) {
  std::vector<test_event> out;
  for (const value& one : list) out.push_back(event_of(one));
  return out;
}

test_death death_of(const value& v) {
  const value* data = find(v, "data");
  return {.step = text_or_empty(v, "step"), .reason = text_or_empty(v, "reason"), .data = data ? std::optional(*data) : std::nullopt};
}

pipeline_test test_of(const std::string& name, const value& v, mark at) {
  pipeline_test out{.name = name,
                    .at = at,
                    .flow = text_or_empty(v, "flow"),
                    .job = text_or_empty(v, "job"),
                    .task = text_or_empty(v, "task"),
                    .step = text_or_empty(v, "step"),
                    .given = events_of(v.at("given")),
                    .now = {},
                    .params = {},
                    .expect = {},
                    .outputs = {},
                    .dead = {}};
  if (!out.job.empty() && out.task.empty()) out.task = "main";
  if (const value* now = find(v, "now")) out.now = parse_time(now->get<std::string>());
  if (const value* expect = find(v, "expect")) out.expect = events_of(*expect);
  if (const value* outputs = find(v, "outputs")) {
    for (const auto& [output, events] : outputs->items()) out.outputs.emplace(output, events_of(events));
  }
  if (const value* dead = find(v, "dead")) {
    for (const value& one : *dead) out.dead.push_back(death_of(one));
  }
  out.emit_at_end = choice_of<bool>(v.at("at_end"), {{"emit", true}, {"keep", false}});
  return out;
}

// What is wrong with one parameter points at it, where it is given.
void tell(const problem& fault, const place& test, problem_list& problems) {
  bool told = false;
  look_at(test, "params", [&](const place& params) {
    for_each_entry(params, [&](const std::string& name, const place& p) {
      if (told || fault.pointer != "/params/" + pointer_part(name)) return;
      problems.wrong_value(p, fault.detail);
      told = true;
    });
  });
  if (told) return;
  const std::string_view pointer = fault.pointer;
  const std::string name(pointer.substr(std::min(pointer.rfind('/') + 1, pointer.size())));
  problems.wrong_key(test, (name == "params" ? "params" : "the parameter " + in_quotes(name)) + " " + fault.detail);
}

}  // namespace

void check_tests(const place& document, problem_list& problems) {
  test_checker checker(document, problems);
  look_at(document, "tests", [&](const place& tests) {
    for_each_entry(tests, [&](const std::string&, const place& test) {
      if (!problems.full()) checker.check(test);
    });
  });
}

void add_tests(const place& document, const value& checked, pipeline& to, problem_list& problems) {
  look_at(document, "tests", [&](const place& tests) {
    auto next = checked.begin();  // in the order written, as keys are unique
    for_each_entry(tests, [&](const std::string& name, const place& written) {
      const value& v = *next++;
      pipeline_test test = test_of(name, v, written.at());
      if (!test.job.empty()) {
        const value* given = find(v, "params");
        auto params = check_parameters(to.jobs.at(test.job), given ? *given : value());
        if (params) test.params = std::move(*params);
        if (!params) {
          for (const problem& fault : params.error().problems) tell(fault, written, problems);
        }
      }
      to.tests.push_back(std::move(test));
    });
  });
}

}  // namespace penstock::config
