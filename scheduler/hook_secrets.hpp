// Secrets of webhooks' signatures that are there already and can be no key of their scheme: such a definition is refused
// when it is put. A secret that is not there yet is no fault; its flow or trigger waits for it. Pure but for looking the
// secrets up; any thread.
#pragma once

#include <vector>

#include "config/definition.hpp"
#include "config/secrets.hpp"

namespace penstock::scheduler {

// What is wrong never shows the secret.
std::vector<problem> hook_secret_faults(const config::pipeline& definition, const config::secret_sources& sources);

}  // namespace penstock::scheduler
