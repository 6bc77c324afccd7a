// Where topics go on whose files were lost.
//
// Called once, on the control thread, before anything reads or writes a topic. What was in such a file is gone. Made anew, it
// would begin with offset 1, and all who had read it would pass over as many new events as they had read; so it goes on after
// the furthest of its readers. A reader that was behind that one goes on there too: nothing is left for it. A topic that nobody
// had read begins anew, for without its file nothing tells that it ever had an event. A file that
// ends before its readers is an older copy: that is for its owner to mend, and they say so (topic::require_reached).
#pragma once

#include <memory>
#include <vector>

#include "scheduler/pipeline_revision.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

// `revisions`: all pipelines that will live; their topics are declared. Blocks briefly.
void go_on_in_lost_topics(surroundings& around, const std::vector<std::shared_ptr<const pipeline_revision>>& revisions);

}  // namespace penstock::scheduler
