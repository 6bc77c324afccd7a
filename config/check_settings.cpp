#include "config/check_settings.hpp"

#include <stdexcept>
#include <string>

#include "config/checked_value.hpp"
#include "config/validate.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

// One use of a component: where its name stands, and its settings.
struct found_use {
  const component_spec& spec;
  const value& settings;
  usage where;
};

// The spec of what is used, or null: it broke its record.
const component_spec* spec_of(const value& use, component_kind kind, const catalog& components) {
  if (!use.is_object() || use.empty()) return nullptr;
  for (const auto& [key, settings] : use.items()) {
    const auto found = components.of(kind).find(key);
    if (found != components.of(kind).end()) return &found->second;
  }
  return nullptr;
}

std::string endless(const component_spec& spec, const value& settings) {
  return spec.endless ? spec.endless(settings) : "";
}

// Calls visit(place, found_use) for every component of a document, `problems` or not.
template <class Visit>
class walker {
 public:
  walker(const catalog& components, const Visit& visit) : components_(components), visit_(visit) {}

  void document(const place& p, const value& checked) {
    for (const bool in_run : {false, true}) {
      const char* const group = in_run ? "jobs" : "flows";
      const value* all = find_in(checked, group);
      if (!all) continue;
      look_at(p, group, [&](const place& works) {
        for_each_entry(works, [&](const std::string& name, const place& one) {
          if (const value* v = find_in(*all, name)) work(one, *v, in_run);
        });
      });
    }
  }

 private:
  static const value* find_in(const value& v, const std::string& key) { return v.is_object() ? find(v, key) : nullptr; }

  // A flow, a job or a task.
  void work(const place& p, const value& v, bool in_run) {
    const usage at_source{in_run, in_run};
    usage behind = at_source;  // a run's input ends, or the source is refused
    if (const value* from = find_in(v, "from"); from && !in_run) {
      const component_spec* source = spec_of(*from, component_kind::source, components_);
      behind.input_ends = !source || (source->bounded && endless(*source, from->at(source->name)).empty());
    }
    each(p, v, "from", component_kind::source, at_source);
    each(p, v, "steps", component_kind::step, behind);
    each(p, v, "to", component_kind::sink, behind);
    if (const value* outputs = find_in(v, "outputs")) {
      look_at(p, "outputs", [&](const place& all) {
        for (const auto& entry : all.what().fields) each(all, *outputs, entry.key, component_kind::sink, behind);
      });
    }
    if (const value* tasks = find_in(v, "tasks")) {
      look_at(p, "tasks", [&](const place& all) {
        for_each_entry(all, [&](const std::string& name, const place& task) {
          if (const value* one = find_in(*tasks, name)) work(task, *one, in_run);
        });
      });
    }
    const value* alerts = find_in(v, "alerts");
    if (!alerts || !alerts->is_array()) return;
    look_at(p, "alerts", [&](const place& all) {
      std::size_t i = 0;
      for_each_item(all, [&](const place& alert) {
        if (i < alerts->size()) each(alert, (*alerts)[i++], "to", component_kind::sink, {});
      });
    });
  }

  // What stands under the key: one use, or a list of them.
  void each(const place& p, const value& v, const std::string& key, component_kind kind, usage where) {
    const value* uses = find_in(v, key);
    if (!uses) return;
    look_at(p, key, [&](const place& written) {
      if (!uses->is_array()) return one(written, *uses, kind, where);
      for (std::size_t i = 0; i < uses->size() && i < written.what().items.size(); ++i)
        one(written.item(i), (*uses)[i], kind, where);
    });
  }

  void one(const place& written, const value& use, component_kind kind, usage where) {
    const component_spec* spec = spec_of(use, kind, components_);
    if (!spec) return;
    const found_use found{*spec, use.at(spec->name), where};
    const auto* entry = find_entry(written.what(), spec->name);
    if (entry) {
      visit_(written.child(*entry), found);
    } else {
      visit_(written, found);  // named without settings
    }
  }

  const catalog& components_;
  const Visit& visit_;
};

}  // namespace

void check_settings(const place& document, const value& checked, const catalog& components, problem_list& problems) {
  const auto check = [&](const place& p, const found_use& use) {
    if (problems.full() || problems.found_in(p)) return;
    const std::string without_end = use.where.in_run ? endless(use.spec, use.settings) : "";
    if (!without_end.empty())
      problems.wrong_key(p, "with '" + without_end + "' it never ends, so a job cannot read it");
    if (!use.spec.check) return;
    try {
      use.spec.check(use.settings, use.where);
    } catch (const std::runtime_error& wrong) {
      problems.wrong_key(p, wrong.what());
    }
  };
  walker(components, check).document(document, checked);
}

void find_doubts(const place& document, const value& checked, const catalog& components, problem_list& warnings) {
  const auto look = [&](const place& p, const found_use& use) {
    const std::string doubt = use.spec.doubt ? use.spec.doubt(use.settings) : "";
    if (!doubt.empty()) warnings.wrong_key(p, doubt);
  };
  walker(components, look).document(document, checked);
}

}  // namespace penstock::config
