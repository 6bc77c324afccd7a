// steps: select - keeps only the named fields of a JSON object, in the order named and as they were written.
//
// A field that an event does not have is left out. What is no JSON object is a dead letter. Stateless.
#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/change_fields.hpp"

namespace penstock::runtime::components::select_step {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "select",
      .doc = "Keeps only these fields, in the order given here; numbers and texts stay as they were written.",
      .settings = {.name = "select",
                   .type = field_type::list,
                   .doc = "Fields; inner ones with dots, which keeps the objects around them.",
                   .required = true,
                   .example = "[id, customer.name]",
                   .children = {{.name = "field", .type = field_type::string, .doc = "A field.", .example = "customer.name"}},
                   .minimum = 1,
                   .single_allowed = true},
      .examples = {"select: [id, total, customer.name]", "select: id"},
  };
}

class select_step final : public step {
 public:
  explicit select_step(const config::value& settings) {
    for (const auto& field : settings) {
      const auto name = field.get<std::string>();
      auto path = path_of(name);
      if (std::find(paths_.begin(), paths_.end(), path) != paths_.end())
        throw std::runtime_error("'" + name + "' is named twice");
      paths_.push_back(std::move(path));
    }
  }

  void process(batch& events, step_output& out) override {
    change_fields(events, out, [this](json_tree& tree) {
      json_tree chosen;
      for (const auto& path : paths_) {
        // [a, a.b]: all of a is there already.
        if (const auto value = tree.find(path)) chosen.set(path, std::string(*value));
      }
      tree = std::move(chosen);
      return std::string();
    });
  }

  bool stateless() const override { return true; }

 private:
  std::vector<std::vector<std::string>> paths_;
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), [](const config::value& v) { return select_step(v); }),
        registry::make_step([](const config::value& settings, const component_context&) {
          return std::make_unique<select_step>(settings);
        }));
}

}  // namespace penstock::runtime::components::select_step
