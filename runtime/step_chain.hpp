// The steps of a dataflow, in order: what they make of a batch, and what they remember.
//
// Owned by one dataflow_run, used on its strand, one call at a time. Nothing here is durable by itself: a passage holds
// all that became of a batch (what goes to each sink, dead letters, counts), and the run commits it together with
// take_changes(). With `parallel`, the leading stateless steps exist several times; each works on its own part of the
// batch on a strand of its own, and the parts are put together in their order.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/definition.hpp"
#include "runtime/component.hpp"
#include "runtime/flow_counters.hpp"
#include "runtime/registry.hpp"
#include "runtime/tap.hpp"

namespace penstock::runtime {

// A batch on its way through the steps, and what became of its events so far.
struct passage {
  passage(std::size_t steps, std::size_t named_outputs) : outputs(named_outputs), of_step(steps) {}

  batch events;                // at the end: for `to`
  std::vector<batch> outputs;  // for the named outputs, in the definition's order
  tally counted;               // `received` and `emitted` are the run's to count
  std::vector<tally> of_step;
  std::vector<dead_letter> dead;
};

dead_letter letter_of(const event& e, std::string step, std::string reason);

class step_chain {
 public:
  // Makes the steps; `at()` names the one that threw. `context`, that of the dataflow, outlives it. `pool`: where strands
  // for parallel parts come from; empty: there is one part only. `taps` may be null.
  step_chain(const config::dataflow& definition, const registry& components, const component_context& context,
             asio::any_io_executor pool, std::shared_ptr<flow_taps> taps);

  // Hands each step what it had kept. Entries that no step can use any more (it is gone, or a setting on which they
  // depend has changed) are put into `changes` for removal.
  void restore(const std::vector<state_entry>& saved, std::vector<state_change>& changes);
  asio::awaitable<void> open();
  asio::awaitable<void> close();  // of those that were opened; does not throw

  // Steps [first, size()) over p.events.
  asio::awaitable<void> pass(passage& p, std::size_t first = 0);
  // One step alone.
  asio::awaitable<void> pass_step(passage& p, std::size_t index);
  // When the first of the steps wants its tick().
  std::optional<timestamp> wake_at() const;
  // What is due at `now`, or all that is left (`ended`), through the steps behind each. New events get `position`.
  asio::awaitable<void> tick(passage& p, timestamp now, bool ended, std::int64_t position);

  std::vector<state_change> take_changes();
  std::size_t size() const { return steps_.size(); }
  std::optional<std::size_t> find(std::string_view step) const;
  passage new_passage() const { return {steps_.size(), output_names_.size()}; }
  const std::string& at() const { return at_; }  // "step NAME": the one at work

 private:
  struct named_step {
    std::string name;
    std::unique_ptr<step> does;
    std::string fingerprint;  // of the settings that its state depends on; empty: it has none
  };
  class report;
  // Instances of the leading stateless steps for one more part of a batch, and its strand.
  struct lane {
    asio::any_io_executor strand;
    std::vector<std::unique_ptr<step>> steps;
  };
  struct part;

  // `by` null: our own instances, on the strand.
  step& instance(const lane* by, std::size_t index) const { return by ? *by->steps[index] : *steps_[index].does; }
  asio::awaitable<void> pass_some(passage& p, std::size_t first, std::size_t until, const lane* by);
  asio::awaitable<void> pass_one(passage& p, std::size_t index, const lane* by);
  std::size_t together_until(std::size_t first, std::size_t until, const lane* by) const;
  void take_together(passage& p, std::size_t first, std::size_t until, const lane* by);
  asio::awaitable<void> pass_in_parallel(passage& p, std::size_t first);
  asio::awaitable<void> work_on(part& mine, std::size_t first, const lane* by);
  void tap_after(std::string_view name, const batch& events) const;

  std::vector<named_step> steps_;
  std::vector<std::string> output_names_;
  std::vector<lane> lanes_;      // beside the strand of the run
  std::size_t in_parallel_ = 0;  // so many leading steps
  std::size_t opened_ = 0;
  const component_context& context_;
  const std::shared_ptr<flow_taps> taps_;
  std::string at_;
};

}  // namespace penstock::runtime
