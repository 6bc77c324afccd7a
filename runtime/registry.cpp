#include "runtime/registry.hpp"

#include <stdexcept>
#include <utility>

#include "runtime/lua.hpp"

namespace penstock::runtime {

namespace {

using config::component_kind;

template <class Maker>
void store(std::map<std::string, config::component_spec, std::less<>>& specs,
           std::map<std::string, Maker, std::less<>>& makers, component_kind kind,
           config::component_spec spec, Maker make) {
  if (spec.kind != kind)
    throw std::logic_error("component '" + spec.name + "' is registered as another kind");
  const std::string name = spec.name;
  if (!specs.emplace(name, std::move(spec)).second) {
    throw std::logic_error("component '" + name + "' is registered twice");
  }
  makers.emplace(name, std::move(make));
}

// A checked definition names known components only; an older binary may still meet a newer one's definition.
template <class Maker>
const Maker& find(const std::map<std::string, Maker, std::less<>>& makers, const std::string& name,
                  const char* kind) {
  const auto found = makers.find(name);
  if (found == makers.end())
    throw std::runtime_error(std::string("this version has no ") + kind + " '" + name + "'");
  return found->second;
}

}  // namespace

registry::registry() {
  catalog_.check_lua = [](std::string_view text, bool chunk) { return check_lua(text, chunk); };
}

void registry::add(config::component_spec spec, make_source make) {
  store(catalog_.sources, sources_, component_kind::source, std::move(spec), std::move(make));
}

void registry::add(config::component_spec spec, make_step make) {
  store(catalog_.steps, steps_, component_kind::step, std::move(spec), std::move(make));
}

void registry::add(config::component_spec spec, make_sink make) {
  store(catalog_.sinks, sinks_, component_kind::sink, std::move(spec), std::move(make));
}

std::unique_ptr<source> registry::source_of(const config::component_use& use,
                                            const component_context& context) const {
  return find(sources_, use.component, "source")(use.settings, context);
}

std::unique_ptr<step> registry::step_of(const config::component_use& use,
                                        const component_context& context) const {
  return find(steps_, use.component, "step")(use.settings, context);
}

std::unique_ptr<sink> registry::sink_of(const config::component_use& use,
                                        const component_context& context) const {
  return find(sinks_, use.component, "sink")(use.settings, context);
}

}  // namespace penstock::runtime
