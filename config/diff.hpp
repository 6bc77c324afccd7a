// What changes between two revisions of a pipeline. Start-up is a diff from nothing, reload and rollback are
// the same diff, so one path is always exercised. Pure, any thread.
#pragma once

#include <string>
#include <vector>

#include "config/definition.hpp"

namespace penstock::config {

struct changes {
  std::vector<std::string> added, changed, removed;  // names, sorted
  bool empty() const { return added.empty() && changed.empty() && removed.empty(); }
};

struct pipeline_diff {
  changes topics, flows, jobs;
  bool settings_changed = false;  // description, workdir, max_active, pools, tests
  bool empty() const { return topics.empty() && flows.empty() && jobs.empty() && !settings_changed; }
};

// `from` null means "from nothing", `to` null means "to nothing".
// A change of workdir counts as a change of every flow and job, because commands start there.
pipeline_diff diff(const pipeline* from, const pipeline* to);

}  // namespace penstock::config
