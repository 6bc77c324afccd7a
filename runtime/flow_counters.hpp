// What a dataflow has counted since its counters were made; one object may serve several successive runs of a flow.
//
// Written on the flow's strand, read on any thread; relaxed atomics, so a reader may see one batch half counted.
// Counts change when a batch is settled (safe and its cursor saved), so one that is read again after a failure counts
// once. At rest received = emitted + filtered + dead + duplicates, for the whole and for each step.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/trouble_note.hpp"

namespace penstock::runtime {

// What became of events: of one batch, in all or in one step.
struct tally {
  std::int64_t received = 0, emitted = 0, filtered = 0, dead = 0, duplicates = 0;
  std::int64_t late = 0;     // of those above: too late for what a step works out
  std::int64_t busy_ns = 0;  // of a step: how long it worked

  void add(const tally& other) {
    received += other.received;
    emitted += other.emitted;
    filtered += other.filtered;
    dead += other.dead;
    duplicates += other.duplicates;
    late += other.late;
    busy_ns += other.busy_ns;
  }
};

struct event_counters {
  std::atomic<std::int64_t> received{0}, emitted{0}, filtered{0}, dead{0}, duplicates{0}, late{0}, busy_ns{0}, batches{0};

  void add(const tally& counted) {
    const auto grow = [](std::atomic<std::int64_t>& counter, std::int64_t n) {
      if (n != 0) counter.fetch_add(n, std::memory_order_relaxed);
    };
    grow(received, counted.received);
    grow(emitted, counted.emitted);
    grow(filtered, counted.filtered);
    grow(dead, counted.dead);
    grow(duplicates, counted.duplicates);
    grow(late, counted.late);
    grow(busy_ns, counted.busy_ns);
    grow(batches, 1);
  }
};

struct step_counters : event_counters {
  explicit step_counters(std::string step) : name(std::move(step)) {}
  const std::string name;
};

struct dataflow_counters : event_counters {
  std::atomic<std::int64_t> last_event_us{0};  // wall time of the last batch, microseconds since the epoch; 0: never
  std::atomic<std::int64_t> redelivered{0};    // attempts at a sink after a failed one (`delivery`)
  trouble_note source_trouble{}, sink_trouble{};  // why nothing comes in, or leaves, while the flow runs
  // One for each step of the definition, in its order. Set before the first run, constant from then on.
  std::vector<std::unique_ptr<step_counters>> steps;
};

}  // namespace penstock::runtime
