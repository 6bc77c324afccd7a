// Where topics go on whose files were lost.
//
// Called once, on the control thread, before anything reads or writes a topic. What was in such a file is gone. Made anew, it
// would begin with offset 1, and all who had read it would pass over as many new events as they had read; so it goes on after
// the furthest of its readers. Triggers that were behind that one go on there too: nothing is left to make runs of. A topic that
// nobody had read begins anew, for without its file nothing tells that it ever had an event.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <vector>

#include "scheduler/pipeline_revision.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

// `revisions`: all pipelines that will live; their topics are declared. What cannot be stored is said on the log.
boost::asio::awaitable<void> go_on_in_lost_topics(surroundings& around,
                                                  std::vector<std::shared_ptr<const pipeline_revision>> revisions);

}  // namespace penstock::scheduler
