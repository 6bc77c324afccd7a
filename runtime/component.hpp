// The contracts of sources, steps and sinks, on one page. A component is one file under runtime/components/:
// its field records, its settings, its registration (see registry.hpp), its code.
//
// A component instance belongs to one dataflow_run and is used on that run's strand only, one call at a time
// (a blocking_sink's calls run on a blocking thread, still one at a time). Order of a batch's life:
//   source.read -> steps.process -> sink.write -> checkpoint commit -> source.acknowledge
// so a source confirms upstream only what is safe downstream. A component throws when it cannot go on; the
// run then fails with that text and its owner restarts it from the last checkpoint. A constructor reads settings and
// touches nothing outside: what opens files, sockets and programs is open().
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "config/secrets.hpp"
#include "runtime/event.hpp"
#include "runtime/flow_store.hpp"
#include "runtime/trouble_note.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class blocking_pool;
class subscribers;
class topics;
class webhooks;

// What the daemon offers to components. Lives as long as the daemon.
struct services {
  runtime::topics& topics;
  runtime::flow_store& flows;
  runtime::webhooks& webhooks;
  runtime::subscribers& subscribers;
  runtime::blocking_pool& blocking;
  config::secret_sources secrets;
};

// What the programs get that a component starts.
struct program_surroundings {
  std::map<std::string, std::string> environment{};  // all of it but what settings add; empty: a PATH only
  std::filesystem::path log{};                       // the file for what they write to stderr; empty: the daemon's log
};

// Where an instance is used. Constant while the instance lives.
struct component_context {
  runtime::services& services;
  std::string pipeline;
  std::string consumer;  // "PIPELINE/flow/FLOW" or "PIPELINE/run/RUN/TASK": producer name, cursor name
  std::filesystem::path workdir;   // relative paths start here; exists
  asio::any_io_executor executor;  // the run's strand
  // What expressions see as `params` and `run`: the JSON {"params":…,"run":…}. Null in a flow.
  std::shared_ptr<const std::string> run_context{};
  std::string step{};  // the step's name; empty in sources and sinks
  // Asked where a component starts programs: the many flows that start none keep nothing for them. Empty: there is nothing.
  std::function<program_surroundings()> programs{};
  // The wall clock for what steps make of time. In a test of a pipeline it stands still.
  std::function<timestamp()> now = wall_now;
  // Where a source or sink that tries again by itself says why nothing moves meanwhile. Never null.
  std::shared_ptr<trouble_note> trouble = std::make_shared<trouble_note>();

  // A setting's text with secrets filled in; throws std::runtime_error naming the reference that has no
  // value.
  std::string reveal(const std::string& text) const;
  // For log lines: "PIPELINE/flow/FLOW STEP", without what only tells two lives of a flow apart.
  std::string label() const;
};

class source {
 public:
  virtual ~source() = default;

  // Called once, before read(): go on after `position` (0: from the beginning).
  virtual asio::awaitable<void> open(std::int64_t position) = 0;
  // For a source whose positions need more than a number to be found again: record() is asked after each read(), and is
  // durable before the events go on; empty: nothing to keep. recall() gets the newest before open(), with the position that
  // was safe downstream at the end; nothing, where the flow has read from another component since.
  virtual std::string record() const { return {}; }
  virtual void recall(const std::string& record, std::optional<std::int64_t> committed) { (void)record, (void)committed; }
  // The next events, at most about `most`; waits for the first without using a thread. Nothing: the input has
  // ended (or stop_input was called and everything taken in before has been delivered).
  virtual asio::awaitable<std::optional<batch>> read(std::size_t most) = 0;
  // All events up to this batch are safe downstream. `position`: the last event's.
  virtual void acknowledge(std::int64_t position) { (void)position; }
  // The batch that was read last could not be made safe; its upstream must be told (e.g. HTTP 503).
  virtual void reject(const std::string& reason) { (void)reason; }
  // Take in nothing more; a waiting read() returns. Callable on the strand at any time; idempotent.
  virtual void stop_input() = 0;
};

// Where a step tells what became of an event that it took out of the batch for a reason other than filtering.
class step_output {
 public:
  virtual void dead(const event& e, std::string reason) = 0;  // to the dead letters, with step and reason
  virtual void duplicate(const event& e) = 0;                 // seen before: counted
  // To the named output, a copy; the event itself goes on when it stays in the batch. `output` is one that the
  // component's spec names (component_spec::outputs); where the definition has no such output the copy is dropped,
  // and counted as filtered unless the event stays.
  virtual void to_output(const event& e, std::string_view output) = 0;
  // Too late for what the step works out: counted as late, and sent to the output `late` when there is one.
  virtual void late(const event& e) = 0;

 protected:
  ~step_output() = default;
};

// Calls come one at a time, in this order: restore, open, then for each batch process (or process_waiting), then
// changes; tick between batches; finish once, then close. What a step does with a batch must follow from its state
// and the events in their order alone, whatever the borders of the batches: after a crash the events since the last
// commit come again, perhaps in other batches, and the same results must leave at the same positions, so that sinks
// recognise them.
class step {
 public:
  virtual ~step() = default;

  // Changes `events` in place: keeps, drops, replaces or adds. Never waits. An event made from another keeps
  // its `position`; one made from several has that of the last.
  virtual void process(batch& events, step_output& out) = 0;

  // A step that has to wait (for a program, a server): waits() is true, constantly, and process_waiting() is called in
  // the place of process(). It bounds its own waiting.
  virtual bool waits() const { return false; }
  virtual asio::awaitable<void> process_waiting(batch& events, step_output& out) {
    process(events, out);
    co_return;
  }
  virtual asio::awaitable<void> open() { co_return; }   // throws when the step cannot work now
  virtual asio::awaitable<void> close() { co_return; }  // also after a failure; does not throw

  // When time alone makes something due: tick() is called once the wall clock shows wake_at() (asked again after each
  // call), though no event came. Adds to `events` what is due, in an order that follows from the state alone; must
  // not look at a clock but `now`. `events` is empty before.
  virtual std::optional<timestamp> wake_at() const { return std::nullopt; }
  virtual void tick(timestamp now, batch& events, step_output& out) { (void)now, (void)events, (void)out; }
  // The input has ended, or the flow is drained: adds to `events` what was still being worked out.
  virtual void finish(batch& events, step_output& out) { (void)events, (void)out; }

  // Durable state, for steps that have some. restore() is called once before the first batch; changes() after
  // each batch, and what it returns is committed together with the cursor. When restore() throws, the flow does not
  // start: a state that the settings no longer fit is to be refused in words.
  virtual void restore(const std::vector<state_entry>& entries) { (void)entries; }
  virtual std::vector<state_change> changes() { return {}; }

  // Whether each event's fate is its own: no state, no ticks, nothing depends on what came before. Only such steps
  // are run several at a time (`parallel`), each on its own part of a batch; instances share nothing.
  virtual bool stateless() const { return false; }
};

// A stateless step that decides about each event by itself and at once. Several of them in a row take an event together, so
// that its payload is parsed once for all of them.
class event_step : public step {
 public:
  // Changes `e`, whose bytes lie in `memory`. False: it leaves the batch; `out` was told why, or it is filtered.
  virtual bool take(event& e, batch& memory, step_output& out) = 0;

  void process(batch& events, step_output& out) final {
    std::erase_if(events.events, [&](event& e) { return !take(e, events, out); });
  }
  bool stateless() const final { return true; }
};

// One event the sink will never take (a row breaks a constraint, HTTP 422): it becomes a dead letter.
struct refused_event {
  std::size_t index;  // in the batch
  std::string reason;
};

struct write_result {
  std::vector<refused_event> refused{};
  std::int64_t duplicates = 0;  // events that the sink recognised as already stored
  std::string checkpoint{};     // to be handed to open() after a restart; empty: as before
};

// Thrown by a sink's write() that cannot go on but has settled some of the events: these are neither sent again nor
// buried with the rest. For sinks without checkpoints.
class partly_written : public std::runtime_error {
 public:
  // `left`: which of the batch are not settled, ascending; `done`: what became of the others. `blame_first`: it was the first
  // of those that are left which the sink could not go on with, so none of the others has had an attempt.
  partly_written(const std::string& why, write_result done, std::vector<std::size_t> left, bool blame_first = false)
      : std::runtime_error(why), settled(std::move(done)), open(std::move(left)), by_first(blame_first) {}
  write_result settled;
  std::vector<std::size_t> open;
  bool by_first;
};

class sink {
 public:
  virtual ~sink() = default;

  // Called once, before write(); `checkpoint` is what the last committed write returned (empty: none yet).
  virtual asio::awaitable<void> open(const std::string& checkpoint) = 0;
  // Asked after an open() without a checkpoint: what must be known about the time before the first write
  // (where an existing file ended). It is committed before that write. Empty: nothing.
  virtual std::string first_checkpoint() { return {}; }
  // Returns once the events are durable at the other side. Throws when the sink cannot take them now.
  virtual asio::awaitable<write_result> write(std::shared_ptr<const batch> events) = 0;
  // The run has failed: lets what was written reach the other side, within a few seconds; does not throw. After this the
  // sink is destroyed.
  virtual asio::awaitable<void> abandon() { co_return; }
  // The input has ended and everything was written. After this the sink is destroyed.
  virtual asio::awaitable<void> close() = 0;
};

// A sink whose library blocks: implement the three *_blocking calls; they run on the blocking pool.
class blocking_sink : public sink {
 public:
  explicit blocking_sink(const component_context& context) : pool_(context.services.blocking) {}
  asio::awaitable<void> open(const std::string& checkpoint) final;
  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) final;
  asio::awaitable<void> close() final;

 protected:
  virtual void open_blocking(const std::string& checkpoint) = 0;
  virtual write_result write_blocking(const batch& events) = 0;
  virtual void close_blocking() {}

 private:
  blocking_pool& pool_;
};

}  // namespace penstock::runtime
