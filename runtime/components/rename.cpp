// steps: rename - gives fields of a JSON object other names; values stay as they were written.
//
// All old names are taken first, so two fields can change names with each other. An absent field is left alone; a new
// name that the event already has makes it a dead letter, because one of the two would be lost. Stateless.
#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/change_fields.hpp"

namespace penstock::runtime::components::rename_step {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "rename",
      .doc = "Renames fields; all others stay. A field that moves to another object, or out of one, comes last there.",
      .settings = {.name = "rename",
                   .type = field_type::map,
                   .doc = "Old name: new name; inner fields with dots.",
                   .required = true,
                   .example = "{custNo: customer_id, address.zip: postcode}",
                   .children = {{.name = "new", .type = field_type::string, .doc = "The new name.", .example = "customer_id"}},
                   .minimum = 1},
      .examples = {"rename: {custNo: customer_id}", "rename: {custNo: customer.id, address.zip: postcode}"},
  };
}

class rename_step final : public step {
 public:
  explicit rename_step(const config::value& settings) {
    std::set<std::vector<std::string>> targets;
    for (const auto& [from, to] : settings.items()) {
      move m{path_of(from), path_of(to.get<std::string>()), to.get<std::string>()};
      if (!targets.insert(m.to).second) throw std::runtime_error("two fields would be named '" + m.to_text + "'");
      freed_.insert(m.from);
      if (same_object(m))
        in_place_.push_back(std::move(m));
      else
        elsewhere_.push_back(std::move(m));
    }
    for (const move& m : in_place_) names_.emplace_back(&m.from, &m.to.back());
  }

  void process(batch& events, step_output& out) override {
    change_fields(events, out, [this](json_tree& tree) { return rename(tree); });
  }

  bool stateless() const override { return true; }

 private:
  struct move {
    std::vector<std::string> from, to;
    std::string to_text;
  };

  static bool same_object(const move& m) {
    return m.from.size() == m.to.size() && std::equal(m.from.begin(), m.from.end() - 1, m.to.begin());
  }

  // Those that leave their object first, then names in place, then those that come from elsewhere.
  std::string rename(json_tree& tree) const {
    std::vector<std::optional<std::string>> values;
    for (const move& m : elsewhere_) values.push_back(tree.take(m.from));
    for (const move& m : in_place_) {
      if (!freed_.contains(m.to) && tree.find(m.from) && tree.find(m.to)) return there_already(m);
    }
    tree.rename(names_);
    for (std::size_t i = 0; i < elsewhere_.size(); ++i) {
      if (!values[i]) continue;
      if (tree.find(elsewhere_[i].to)) return there_already(elsewhere_[i]);
      if (!tree.set(elsewhere_[i].to, std::move(*values[i])))
        return "there is no room for '" + elsewhere_[i].to_text + "': what should hold it is no object";
    }
    return {};
  }

  static std::string there_already(const move& m) { return "there is a field '" + m.to_text + "' already"; }

  std::vector<move> in_place_, elsewhere_;
  std::set<std::vector<std::string>> freed_;  // old names
  std::vector<json_tree::new_name> names_;    // of in_place_
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), [](const config::value& v) { return rename_step(v); }),
        registry::make_step([](const config::value& settings, const component_context&) {
          return std::make_unique<rename_step>(settings);
        }));
}

}  // namespace penstock::runtime::components::rename_step
