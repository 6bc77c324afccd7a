// steps: map - makes a new JSON object of each event, one expression for each field, in the order written.
//
// The new payload is JSON whatever the old one was; the attributes stay. A failing expression makes the event
// a dead letter. Stateless.
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::map_step {

namespace {

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::step,
      .name = "map",
      .doc =
          "Replaces the payload by a JSON object with these fields, in this order. nil is written as null.",
      .settings = {.name = "map",
                   .type = field_type::map,
                   .doc = "Field name: Lua expression over `event` and `meta`; in a run also `params` and "
                          "`run`.",
                   .required = true,
                   .example = "{order_id: event.id, total: tonumber(event.total_price)}",
                   .children = {{.name = "field",
                                 .type = field_type::expression,
                                 .doc = "The field's value.",
                                 .example = "event.customer.id"}},
                   .minimum = 1},
      .examples = {"map: {order_id: event.id, total: tonumber(event.total_price)}",
                   "map: {id: meta.id, at: iso_time(event.time / 1000), place: event.place}"},
  };
}

std::vector<std::pair<std::string, std::string>> fields_of(const config::value& settings) {
  std::vector<std::pair<std::string, std::string>> fields;
  for (const auto& [name, expression] : settings.items())
    fields.emplace_back(name, expression.get<std::string>());
  return fields;
}

class map_step final : public event_step {
 public:
  map_step(const config::value& settings, const std::string* run_context)
      : mapping_(fields_of(settings), run_context) {}

  bool take(event& e, batch& memory, step_output& out) override {
    made_.clear();
    lua_outcome<bool> mapped = mapping_.apply(e, made_);
    if (!mapped.failure.empty()) {
      out.dead(e, std::move(mapped.failure));
      return false;
    }
    e.data = memory.keep(made_);
    e.datacontenttype = {};
    return true;
  }

 private:
  const lua_mapping mapping_;
  std::string made_;  // the payload under way; its storage is used again
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<map_step>(settings, context.run_context.get());
        }));
}

}  // namespace penstock::runtime::components::map_step
