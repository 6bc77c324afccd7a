// One test of a pipeline: the real steps in the real engine, between given events and sinks that only remember.
//
// Everything around the dataflow (flow store, threads, the folder it works in) is made for this one test and is gone
// when it has ended, also when a signal ends the program. The pipeline's own source, sinks and topics are not touched; what a
// step does by itself (ask a server, start a program) it does. Called on one thread, which waits.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "config/expectation.hpp"
#include "runtime/registry.hpp"

namespace penstock::runtime {

struct test_outcome {
  std::string failure;  // the dataflow could not be run to its end, and why; then nothing was compared
  std::vector<config::unmet_expectation> unmet;
  bool passed() const { return failure.empty() && unmet.empty(); }
};

// `folder`: that of the definition file, absolute; what ${dir} stands for. `test` is one of `pipeline`.
test_outcome run_pipeline_test(const registry& components, const config::pipeline& pipeline, const config::pipeline_test& test,
                               const std::filesystem::path& folder);

}  // namespace penstock::runtime
