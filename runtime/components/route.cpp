// steps: route - sends events to named outputs by conditions; what matches none goes on to the next step.
//
// The conditions are asked in the order written. Without `all` the first that holds takes the event out of the chain;
// with it a copy goes to every output whose condition holds. A failing condition makes the event a dead letter, and then
// it goes nowhere else. Stateless.
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::route_step {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "route",
      .doc = "Sends each event to the output whose condition holds, the first in the order written. Events that match "
             "none go on to the next step.",
      .settings = {.name = "route",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "to",
                                 .type = field_type::map,
                                 .doc = "Output name: condition. `outputs` says where each output leads.",
                                 .required = true,
                                 .example = "{big: event.total > 5000, eu: event.region == 'eu'}",
                                 .children = {{.name = "condition",
                                               .type = field_type::expression,
                                               .doc = "A Lua expression over `event` and `meta`; in a run also "
                                                      "`params` and `run`.",
                                               .example = "event.total > 5000"}},
                                 .minimum = 1,
                                 .keys_are_names = true},
                                {.name = "all",
                                 .type = field_type::boolean,
                                 .doc = "Send a copy to every output whose condition holds, not only to the first.",
                                 .fallback = "false"}},
                   .shorthand = "to"},
      .examples = {"route: {big: event.total > 5000, eu: event.region == 'eu'}",
                   "route: {to: {big: event.total > 5000, eu: event.region == 'eu'}, all: true}"},
      .outputs =
          [](const config::value& settings) {
            std::vector<std::string> names;
            if (!settings.is_object() || !settings.contains("to")) return names;  // it breaks its record
            for (const auto& [name, condition] : settings.at("to").items()) names.push_back(name);
            return names;
          },
  };
}

class route_step final : public event_step {
 public:
  route_step(const config::value& settings, const std::string* run_context) : all_(settings.at("all").get<bool>()) {
    for (const auto& [name, condition] : settings.at("to").items())
      ways_.push_back({name, lua_expression(condition.get<std::string>(), run_context)});
  }

  bool take(event& e, batch&, step_output& out) override {
    taken_.clear();
    if (std::string failure = choose(e); !failure.empty()) {
      out.dead(e, std::move(failure));
      return false;
    }
    for (const way* one : taken_) out.to_output(e, one->output);
    return taken_.empty();
  }

 private:
  struct way {
    std::string output;
    lua_expression condition;
  };

  // All conditions are asked before the event goes anywhere. Returns why one failed.
  std::string choose(const event& e) {
    for (const way& one : ways_) {
      lua_outcome<bool> holds = one.condition.truth(e);
      if (!holds.failure.empty()) return one.output + ": " + holds.failure;
      if (!holds.value) continue;
      taken_.push_back(&one);
      if (!all_) break;
    }
    return {};
  }

  const bool all_;
  std::vector<way> ways_;
  std::vector<const way*> taken_;  // by the event at hand
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<route_step>(settings, context.run_context.get());
        }));
}

}  // namespace penstock::runtime::components::route_step
