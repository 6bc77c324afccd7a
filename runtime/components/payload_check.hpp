// What sinks that write JSON do with events that say they are JSON and are not: refuse them, one by one, so
// that one bad line of a file neither stops a flow nor spoils what stands beside it.
#pragma once

#include <string>
#include <vector>

#include "runtime/component.hpp"
#include "runtime/json.hpp"

namespace penstock::runtime::components {

// One for each event of the batch that claims to be JSON but cannot be read as such.
inline std::vector<refused_event> malformed_events(const batch& events) {
  std::vector<refused_event> refused;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const event& e = events.events[i];
    if (!e.is_json() || e.data.empty()) continue;  // CloudEvents may come without data
    if (std::string wrong = check_json(e.data); !wrong.empty()) refused.push_back({i, std::move(wrong)});
  }
  return refused;
}

// Calls take(event) for each event that is not refused, in order. `refused` is ordered by index.
template <class F>
void for_each_accepted(const batch& events, const std::vector<refused_event>& refused, F take) {
  auto next = refused.begin();
  for (std::size_t i = 0; i < events.size(); ++i) {
    if (next != refused.end() && next->index == i) {
      ++next;
    } else {
      take(events.events[i]);
    }
  }
}

}  // namespace penstock::runtime::components
