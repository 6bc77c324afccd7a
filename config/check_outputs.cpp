#include "config/check_outputs.hpp"

#include <algorithm>

#include "config/checked_value.hpp"
#include "config/in_quotes.hpp"
#include "config/scalar.hpp"
#include "config/validate.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

// Steps may send nothing there: what comes too late is counted in any case.
constexpr std::string_view optional_output = "late";

void check_dataflow(const place& p, const value& checked, const catalog& components, problem_list& problems) {
  const value* steps = find(checked, "steps");
  const value* outputs = find(checked, "outputs");
  if (!steps) return;
  std::vector<std::string> offered;
  look_at(p, "steps", [&](const place& written) {
    for (std::size_t i = 0; i < steps->size(); ++i) {
      const std::string& component = component_name((*steps)[i]);
      const component_spec& spec = components.steps.find(component)->second;
      if (!spec.outputs) continue;
      for (const std::string& name : spec.outputs((*steps)[i].at(component))) {
        offered.push_back(name);
        if (name == optional_output || (outputs && outputs->contains(name))) continue;
        problems.wrong_key(written.item(i), "this step sends events to " + in_quotes(name) +
                                                ", but 'outputs' does not say where that is; 'outputs: {" + name +
                                                ": drop}' drops them");
      }
    }
  });
  look_at(p, "outputs", [&](const place& written) {
    for_each_entry(written, [&](const std::string& name, const place& output) {
      if (std::find(offered.begin(), offered.end(), name) != offered.end()) return;
      problems.wrong_key(output, "no step sends anything to " + in_quotes(name) + "; " +
                                     (offered.empty() ? "of these steps none has outputs" : suggestion(name, offered)));
    });
  });
}

void check_each(const place& p, const value& checked, const catalog& components, problem_list& problems) {
  for_each_entry(p, [&](const std::string& name, const place& work) {
    const value* one = find(checked, name);
    if (!one || !one->is_object()) return;
    check_dataflow(work, *one, components, problems);
    look_at(work, "tasks", [&](const place& tasks) { check_each(tasks, one->at("tasks"), components, problems); });
  });
}

}  // namespace

void check_outputs(const place& document, const value& checked, const catalog& components, problem_list& problems) {
  for (const char* group : {"flows", "jobs"}) {
    look_at(document, group, [&](const place& p) { check_each(p, checked.at(group), components, problems); });
  }
}

}  // namespace penstock::config
