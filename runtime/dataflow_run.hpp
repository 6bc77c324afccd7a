// One dataflow, executed until its input ends, it is drained, or it fails.
//
// Lives on one strand (flow pool for flows, batch pool for tasks of runs), is one coroutine, and owns its
// source, steps and sink. It never retries: a failure ends it, nothing unsafe was acknowledged, and its owner
// (scheduler/) decides about the next start, which resumes at the last checkpoint. request_drain() and
// replay() may be called from any thread.
//
// Holds at every moment: received = emitted + filtered + dead + duplicates. A batch is counted when it is
// settled (safe and its cursor saved), so one that is read again after a failure counts once; events that a
// step made count as received. Cursors and the positions kept by sinks belong to (consumer, what is read): a
// flow whose `from` names something else after a change starts at that input's beginning.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "runtime/component.hpp"
#include "runtime/registry.hpp"

namespace penstock::runtime {

enum class dataflow_end { input_ended, drained, failed };

struct dataflow_outcome {
  dataflow_end end = dataflow_end::input_ended;
  std::string reason{};  // of a failure: component name and what it said
};

// Counted since the counters were made; one object may serve several successive runs of a flow. Relaxed
// atomics.
struct dataflow_counters {
  std::atomic<std::int64_t> received{0}, emitted{0}, filtered{0}, dead{0}, duplicates{0}, batches{0};
  std::atomic<std::int64_t> last_event_us{
      0};  // wall time of the last batch, microseconds since the epoch; 0: never
};

struct dataflow_options {
  std::string pipeline;
  std::string consumer;
  std::filesystem::path workdir;
  config::dataflow definition;
  std::unique_ptr<source> input{};  // used instead of definition.from when set (a run's claimed events)
  std::shared_ptr<dataflow_counters> counters{};
  std::size_t batch_events = 1000;
  std::shared_ptr<const std::string> run_context{};  // see component_context
};

class dataflow_run {
 public:
  dataflow_run(asio::any_io_executor strand, const registry& components, services& offered,
               dataflow_options options);
  ~dataflow_run();

  // Call once, awaited from any executor; runs on the strand. Never throws.
  asio::awaitable<dataflow_outcome> run();
  // Puts dead events through steps and sink again, between two batches of the input; their dead letters are
  // removed in the transaction that makes the outcome safe (one that fails again is a new dead letter).
  // unavailable: the run is not at work, or the sink cannot take them now; then nothing has changed.
  asio::awaitable<result<void>> replay(batch events, std::vector<std::string> dead_letter_ids);
  // Stop the input, finish what was taken in, then end with `drained`.
  void request_drain();

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::runtime
