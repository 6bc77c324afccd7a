#include "scheduler/hook_secrets.hpp"

#include <optional>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "runtime/webhook_intake.hpp"

namespace penstock::scheduler {

namespace {

struct no_value_yet {};

std::optional<std::string> fault_of(const std::string& path, const config::value& signature,
                                    const config::secret_sources& sources) {
  const auto reveal = [&sources](const std::string& text) {
    const auto found = config::resolve_secrets(text, sources);
    if (!found) throw no_value_yet{};
    return *found;
  };
  try {
    runtime::webhook_intake(path, signature, reveal);
  } catch (const no_value_yet&) {
    return std::nullopt;
  } catch (const std::runtime_error& wrong) {
    return wrong.what();
  }
  return std::nullopt;
}

const config::component_use* hook_of(const config::flow& flow) {
  const auto* does = std::get_if<config::dataflow>(&flow.does);
  return does && does->from && does->from->component == "webhook" ? &*does->from : nullptr;
}

}  // namespace

std::vector<problem> hook_secret_faults(const config::pipeline& definition, const config::secret_sources& sources) {
  std::vector<problem> out;
  const auto look_at = [&](const std::string& pointer, const std::string& path, const config::value& signature) {
    if (auto fault = fault_of(path, signature, sources)) out.push_back({pointer, 0, 0, "/hooks" + path + ": " + *fault});
  };
  for (const auto& [name, flow] : definition.flows) {
    const auto* hook = hook_of(flow);
    if (!hook || !hook->settings.contains("signature")) continue;
    look_at("/flows/" + name + "/from/webhook/signature", hook->settings.at("path").get<std::string>(),
            hook->settings.at("signature"));
  }
  for (const auto& [name, job] : definition.jobs) {
    for (const auto& trigger : job.triggers) {
      const auto* hook = std::get_if<config::webhook_trigger>(&trigger);
      if (hook) look_at("/jobs/" + name + "/trigger", hook->path, hook->signature);
    }
  }
  return out;
}

}  // namespace penstock::scheduler
