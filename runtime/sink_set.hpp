// The sinks of a dataflow: `to` and its named outputs, with their checkpoints, and what is done when one of them does not
// take events now (config::delivery_policy).
//
// Owned by one dataflow_run, used on its strand, one call at a time. write() returns once every event is safe in its
// sink, has become a dead letter, or was recognised as stored before; what the next commit must hold it leaves in the
// commit. A sink that has failed is made anew and opened at its last checkpoint before it is tried again.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/definition.hpp"
#include "runtime/component.hpp"
#include "runtime/flow_counters.hpp"
#include "runtime/registry.hpp"
#include "runtime/step_chain.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

class sink_set {
 public:
  // `definition` and `context`, those of the dataflow, outlive it; `producer` is the consumer's name together with what it
  // reads. Throws when the definition has no `to` or a sink cannot be made.
  sink_set(const config::dataflow& definition, const registry& components, const component_context& context,
           std::string producer, std::shared_ptr<dataflow_counters> counters);

  // `to_checkpoint` and, among `saved`, those of the named outputs. What must be committed before the first write is put
  // into `first`.
  asio::awaitable<void> open(const std::string& to_checkpoint, const std::vector<state_entry>& saved, commit& first);
  // Writes p.events and p.outputs. Throws when a sink does not take them now and they are to be held.
  asio::awaitable<void> write(passage& p, commit& next);
  asio::awaitable<void> close();
  asio::awaitable<void> abandon();  // after a failure
  void hurry();  // pauses between attempts end now, and none follows: the flow is to stop

  // Where a dead letter of that step name was refused: 0 for `to`, 1 and up for named outputs, -1 for none of them.
  int place_of(std::string_view step) const;
  const std::string& at() const { return at_; }  // "to COMPONENT": the one at work
  // Of `to`, as it was committed last.
  const std::string& checkpoint() const { return all_.front().checkpoint; }

 private:
  struct one_sink {
    const config::component_use& use;
    std::string producer;    // its name: positions in the sink belong to it
    std::string step;        // as dead letters name it: "to", or "to OUTPUT"
    std::string checkpoint{};
    std::unique_ptr<sink> does{};
  };

  struct delivery {
    write_result written{};
    std::vector<int> attempts{};  // of each of written.refused
  };
  asio::awaitable<delivery> deliver(one_sink& to, std::shared_ptr<const batch> events);
  asio::awaitable<void> write_one(one_sink& to, batch left, passage& p, commit& next);
  component_context context_of(const one_sink& one) const;
  void keep(one_sink& of, std::string checkpoint, commit& next) const;

  const registry& components_;
  const component_context& context_;
  const config::delivery_policy policy_;
  const std::shared_ptr<dataflow_counters> counters_;
  const std::shared_ptr<wakeup> hurried_;
  bool hurry_ = false;
  std::vector<one_sink> all_;  // `to` first
  std::string at_ = "to";
};

}  // namespace penstock::runtime
