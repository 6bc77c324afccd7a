// steps: filter - keeps the events for which an expression is true.
//
// false and nil drop the event (counted as filtered); a failing expression makes it a dead letter. Stateless.
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::filter_step {

namespace {

config::component_spec spec() {
  return {
      .kind = config::component_kind::step,
      .name = "filter",
      .doc = "Keeps the events for which the expression is true; false and nil drop them.",
      .settings = {.name = "filter",
                   .type = config::field_type::expression,
                   .doc = "A Lua expression over `event` and `meta`; in a run also `params` and `run`.",
                   .required = true,
                   .example = "event.total > 5000"},
      .examples = {"filter: event.total > 5000", "filter: event.status ~= nil and meta.type == 'order'"},
  };
}

class filter_step final : public event_step {
 public:
  filter_step(std::string condition, const std::string* run_context)
      : condition_(std::move(condition), run_context) {}

  bool take(event& e, batch&, step_output& out) override {
    lua_outcome<bool> kept = condition_.truth(e);
    if (kept.failure.empty()) return kept.value;
    out.dead(e, std::move(kept.failure));
    return false;
  }

 private:
  const lua_expression condition_;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<filter_step>(settings.get<std::string>(), context.run_context.get());
        }));
}

}  // namespace penstock::runtime::components::filter_step
