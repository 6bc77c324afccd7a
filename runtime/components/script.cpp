// steps: script - runs Lua statements on each event: changes it, drops it, or makes several of it.
//
// A failing script makes the event a dead letter. Events made from one keep its attributes and position; when
// there are several, the last keeps its id and the ones before have "-1", "-2" … behind it, so ids are unique
// and the same again when the batch is repeated. Stateless: globals of a script are gone when it returns.
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime::components::script_step {

namespace {

config::component_spec spec() {
  return {
      .kind = config::component_kind::step,
      .name = "script",
      .doc =
          "Runs Lua statements on each event. They change the table `event` (JSON null is the value `null`), "
          "or return another table; `return nil` drops the event; `emit(table)` adds further events before "
          "it.",
      .settings = {.name = "script",
                   .type = config::field_type::script,
                   .doc = "Lua statements over `event` and `meta`, with `emit`; in a run also `params` and `run`.",
                   .required = true,
                   .example = "event.total = event.price * event.count"},
      .examples = {"script: event.total = event.price * event.count",
                   "script: |\n  for _, item in ipairs(event.items) do emit(item) end\n  return nil"},
  };
}

class script_step final : public step {
 public:
  script_step(std::string text, const std::string* run_context) : script_(std::move(text), run_context) {}

  bool stateless() const override { return true; }
  void process(batch& events, step_output& out) override {
    std::vector<event> made;
    made.reserve(events.size());
    for (const event& e : events.events) {
      lua_outcome<std::vector<std::string>> outcome = script_.run(e);
      if (outcome.failure.empty())
        add_events(events, e, outcome.value, made);
      else
        out.dead(e, std::move(outcome.failure));
    }
    events.events = std::move(made);
  }

 private:
  static void add_events(batch& events, const event& from, const std::vector<std::string>& payloads,
                         std::vector<event>& made) {
    for (std::size_t i = 0; i < payloads.size(); ++i) {
      event e = from;
      e.data = events.keep(payloads[i]);
      e.datacontenttype = {};
      if (i + 1 < payloads.size()) e.id = events.keep(std::string(from.id) + "-" + std::to_string(i + 1));
      made.push_back(e);
    }
  }

  const lua_script script_;
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_step([](const config::value& settings, const component_context& context) {
          return std::make_unique<script_step>(settings.get<std::string>(), context.run_context.get());
        }));
}

}  // namespace penstock::runtime::components::script_step
