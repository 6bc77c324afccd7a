// What the components that run a long-lived program have in common: how it is started and ended.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/component.hpp"
#include "runtime/line_program.hpp"

namespace penstock::runtime::components {

// The setting `run`; `doc` says what the program has to do.
inline config::field program_run_field(std::string doc, std::string example) {
  return {.name = "run",
          .type = config::field_type::list,
          .doc = "The program and its arguments; no shell unless one is named. " + std::move(doc),
          .required = true,
          .example = std::move(example),
          .children = {{.name = "argument", .type = config::field_type::string, .doc = "One argument."}},
          .minimum = 1};
}

// The settings workdir and environment.
inline std::vector<config::field> program_place_fields() {
  using config::field_type;
  return {{.name = "workdir",
           .type = field_type::string,
           .doc = "The folder that it starts in, seen from the pipeline's folder.",
           .example = "${dir}"},
          {.name = "environment",
           .type = field_type::map,
           .doc = "Variables beside those that every command has. Python is told not to buffer its output "
                  "(PYTHONUNBUFFERED).",
           .example = "{MODEL: small}",
           .children = {{.name = "value", .type = field_type::string, .doc = "Its value; secrets by reference."}}}};
}

// From the settings run, workdir, environment and grace. `name`: of the component, in the daemon's log.
inline line_program_options program_options(const config::value& v, const component_context& context, std::string name) {
  line_program_options o;
  o.name = std::move(name);
  for (const auto& argument : v.at("run")) o.run.push_back(context.reveal(argument.get<std::string>()));
  if (context.programs) {
    program_surroundings around = context.programs();
    o.environment = std::move(around.environment);
    o.log = std::move(around.log);
  }
  o.environment.try_emplace("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  o.environment.try_emplace("PENSTOCK_PIPELINE", context.pipeline);
  o.environment.try_emplace("PYTHONUNBUFFERED", "1");
  const config::value environment = v.value("environment", config::value::object());
  for (const auto& [variable, text] : environment.items())
    o.environment.insert_or_assign(variable, context.reveal(text.get<std::string>()));
  o.folder = context.workdir / v.value("workdir", "");
  o.grace = std::chrono::nanoseconds(v.at("grace").get<std::int64_t>());
  return o;
}

}  // namespace penstock::runtime::components
