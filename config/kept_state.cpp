#include "config/kept_state.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace penstock::config {

std::string state_fingerprint(const component_use& step, const catalog& components) {
  const auto spec = components.steps.find(step.component);
  if (spec == components.steps.end() || spec->second.state_settings.empty()) return {};
  value kept{{"component", step.component}};
  for (const std::string& name : spec->second.state_settings) {
    if (!step.settings.is_object()) {
      kept[name] = step.settings;
    } else if (step.settings.contains(name)) {
      kept[name] = step.settings.at(name);
    }
  }
  return kept.dump();
}

std::string input_of(const component_use& from, const catalog& components) {
  const auto spec = components.sources.find(from.component);
  if (spec == components.sources.end()) return from.component;
  const std::string& naming = spec->second.settings.shorthand;
  if (naming.empty() || !from.settings.contains(naming)) return from.component;
  const value& named = from.settings.at(naming);
  return named.is_string() ? from.component + " " + named.get<std::string>() : from.component;
}

std::vector<std::string> state_losses(const pipeline& before, const pipeline& after, const catalog& components) {
  std::vector<std::string> losses;
  for (const auto& [name, flow] : before.flows) {
    const auto next = after.flows.find(name);
    const auto* old_work = std::get_if<dataflow>(&flow.does);
    const auto* new_work = next == after.flows.end() ? nullptr : std::get_if<dataflow>(&next->second.does);
    if (!old_work || (next != after.flows.end() && !new_work)) continue;
    for (const component_use& step : old_work->steps) {
      const std::string print = state_fingerprint(step, components);
      if (print.empty()) continue;
      const std::string where = "flow " + name + ", step " + step.name + ": ";
      if (!new_work) {
        losses.push_back(where + "the flow is gone; what the step had kept is emitted where it can be, then forgotten");
        continue;
      }
      const auto same = std::find_if(new_work->steps.begin(), new_work->steps.end(),
                                     [&](const component_use& other) { return other.name == step.name; });
      if (same == new_work->steps.end()) {
        losses.push_back(where + "is gone, and what it had kept is forgotten");
      } else if (state_fingerprint(*same, components) != print) {
        losses.push_back(where + "what it had kept does not fit its new settings; it starts empty");
      }
    }
  }
  return losses;
}

}  // namespace penstock::config
