// How far a flow with several topics has read each of them.
//
// Such a flow's position is the number of events that it has read from all of them together, for the topics have no common
// order of their own. So that an event keeps its position when it comes again after a crash, what a batch takes from each
// topic is written down before the batch goes on: the record below. Once the flow's committed position has reached the
// batch's end, the record says where to go on; until then, what to read again.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "runtime/flow_store.hpp"

namespace penstock::runtime {

struct topics_read {
  struct part {
    std::int64_t before = 0, after = 0;  // offsets of this topic: the batch has those in (before, after]
  };

  std::int64_t position = 0;  // of the flow, before the batch
  std::int64_t events = 0;    // in the batch; they have the positions that follow
  std::map<std::string, part> topics{};

  bool reached_by(std::int64_t committed) const { return committed >= position + events; }

  std::string text() const;
  static topics_read of(const std::string& text);  // throws std::runtime_error: damaged
};

// The offset up to which this consumer, whose position `committed` is, has read the topic. Nothing: no record of it.
// Blocks briefly.
std::optional<std::int64_t> offset_read(flow_store& store, const std::string& consumer, std::int64_t committed,
                                        const std::string& topic);

}  // namespace penstock::runtime
