// One dataflow, executed until its input ends, it is drained, or it fails.
//
// Lives on one strand (flow pool for flows, batch pool for tasks of runs) and owns its source, steps and sinks. One
// coroutine reads and settles batch after batch; a second one, only where a step asks for it, gives steps their time
// (step::tick). It never retries beyond its `delivery`: a failure ends it, nothing unsafe was acknowledged, and its owner
// (scheduler/) decides about the next start, which resumes at the last checkpoint. request_drain() and replay() may be
// called from any thread.
//
// Holds at every moment: received = emitted + filtered + dead + duplicates (flow_counters.hpp). Cursors and the
// positions kept by sinks belong to (consumer, what is read): a flow whose `from` names something else after a change
// starts at that input's beginning.
//
// Positions. A sink recognises what it has stored by the position of its event, so whatever is made anew after a crash
// must leave with the position that it had. What steps make of events has those events' positions. What they make of
// time has none, so each tick that has results takes one for itself: the position after the last one, and all events
// that follow count one more. Which ticks there were, and when by the wall clock, is stored before their results leave,
// so that a tick is repeated after a crash with the time that it had.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "runtime/component.hpp"
#include "runtime/flow_counters.hpp"
#include "runtime/registry.hpp"
#include "runtime/tap.hpp"

namespace penstock::runtime {

// The step of dead letters of what the source could not read (event::fault): there is no event that could be replayed.
inline constexpr const char* step_unreadable = "from";

enum class dataflow_end { input_ended, drained, failed };

struct dataflow_outcome {
  dataflow_end end = dataflow_end::input_ended;
  std::string reason{};  // of a failure: component name and what it said
  bool has_checkpoint = false;  // the flow store holds something of the consumer, from now or before
};

// Events that are on their way between source and sink at once, unless somebody asks for less.
constexpr std::size_t most_batch_events = 1000;

struct dataflow_options {
  std::string pipeline;
  std::string consumer;
  std::filesystem::path workdir;
  std::shared_ptr<const config::dataflow> definition{};  // never null; shared, because an idle flow should cost little
  std::unique_ptr<source> input{};  // used instead of definition.from when set (a run's claimed events)
  std::shared_ptr<dataflow_counters> counters{};
  std::shared_ptr<flow_taps> taps{};  // null: nobody can look on
  asio::any_io_executor pool{};       // for the strands of `parallel`; empty: there is one part only
  std::function<program_surroundings()> programs{};  // see component_context
  std::function<void()> on_open{};    // called once, on the strand: source, steps and sinks are at work
  bool held = false;                  // once all are open, wait for release() before anything is read or stored
  std::size_t batch_events = most_batch_events;
  std::function<timestamp()> now = wall_now;  // see component_context
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
  // How many of them failed again. unavailable: the run is not at work, or the sink cannot take them now; then nothing
  // has changed.
  asio::awaitable<result<std::int64_t>> replay(batch events, std::vector<std::string> dead_letter_ids);
  // Stop the input, finish what was taken in, then end with `drained`. What steps are still working out is kept for
  // the next start; `for_good`: it is emitted, for there will be none.
  void request_drain(bool for_good = false);
  // One that is held goes on. One that is drained instead has changed nothing. From any thread.
  void release();

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace penstock::runtime
