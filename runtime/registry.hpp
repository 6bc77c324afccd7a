// All components that this binary knows: an object filled by one explicit list (components/all.cpp), so
// nothing depends on static initialisation. A name registered twice throws. Constant after construction; any
// thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>

#include "config/field.hpp"
#include "runtime/component.hpp"

namespace penstock::runtime {

// The spec of a component whose constructor reads its settings with `read`: what that throws is found when a definition
// is put, not at each start. `read` is called with the settings, and with where they are used if it wants to know.
template <class Read>
config::component_spec checked_by(config::component_spec spec, Read read) {
  spec.check = [read](const config::value& settings, config::usage where) {
    if constexpr (std::is_invocable_v<Read, const config::value&, config::usage>) {
      static_cast<void>(read(settings, where));
    } else {
      static_cast<void>(read(settings));
    }
  };
  return spec;
}

class registry {
 public:
  using make_source =
      std::function<std::unique_ptr<source>(const config::value& settings, const component_context&)>;
  using make_step =
      std::function<std::unique_ptr<step>(const config::value& settings, const component_context&)>;
  using make_sink =
      std::function<std::unique_ptr<sink>(const config::value& settings, const component_context&)>;

  registry();  // knows no component yet, only Lua's syntax check

  void add(config::component_spec spec, make_source make);
  void add(config::component_spec spec, make_step make);
  void add(config::component_spec spec, make_sink make);

  // `settings` were checked against the component's record. Throws when it cannot be made (a secret has no
  // value).
  std::unique_ptr<source> source_of(const config::component_use& use, const component_context& context) const;
  std::unique_ptr<step> step_of(const config::component_use& use, const component_context& context) const;
  std::unique_ptr<sink> sink_of(const config::component_use& use, const component_context& context) const;

  // For config/: the specs, with Lua's syntax check.
  const config::catalog& catalog() const { return catalog_; }

 private:
  config::catalog catalog_;
  std::map<std::string, make_source, std::less<>> sources_;
  std::map<std::string, make_step, std::less<>> steps_;
  std::map<std::string, make_sink, std::less<>> sinks_;
};

// Everything under runtime/components/.
registry make_registry();

}  // namespace penstock::runtime
