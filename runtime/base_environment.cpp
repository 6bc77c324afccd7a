#include "runtime/base_environment.hpp"

#include <cstdlib>

namespace penstock::runtime {

std::map<std::string, std::string> base_environment(const std::string& instance, const std::string& pipeline) {
  std::map<std::string, std::string> environment{{"PENSTOCK_INSTANCE", instance}, {"PENSTOCK_PIPELINE", pipeline}};
  for (const char* name : {"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"}) {
    if (const char* value = std::getenv(name)) environment.emplace(name, value);  // NOLINT(concurrency-mt-unsafe)
  }
  environment.try_emplace("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  return environment;
}

}  // namespace penstock::runtime
