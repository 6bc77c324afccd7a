#include "runtime/components/missing_program.hpp"

#include <cstdlib>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/launch.hpp"
#include "runtime/process.hpp"

namespace penstock::runtime::components {

namespace {

// What the program itself would be looked up in.
std::string path_of(const config::value& settings) {
  const auto given = settings.find("environment");
  if (given != settings.end() && given->contains("PATH")) return given->at("PATH").get<std::string>();
  const char* const ours = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return ours ? ours : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

}  // namespace

void require_program(const config::value& settings) {
  if (settings.at("run").at(0).get<std::string>().empty()) throw std::runtime_error("run: the program's name is empty");
}

std::string missing_program(const config::value& settings) {
  const std::vector<std::string> run{settings.at("run").at(0).get<std::string>()};
  const std::string& name = run.front();
  const std::map<std::string, std::string> environment{{"PATH", path_of(settings)}};
  const bool relative = name.find('/') != name.npos && !name.starts_with('/');
  if (relative || name.find("${") != name.npos || environment.at("PATH").find("${") != std::string::npos) return {};
  if (name.starts_with('/')) {
    std::error_code ignored;
    return std::filesystem::exists(name, ignored) ? "" : "run: there is no '" + name + "' here now";
  }
  const std::filesystem::path folder = "/";
  const process_start how{.arguments = run, .environment = environment, .folder = folder, .in = -1, .out = -1, .err = -1};
  const result<std::string> found = find_program(how);
  return found ? "" : "run: " + found.error().detail + " now";
}

}  // namespace penstock::runtime::components
