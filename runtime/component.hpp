// The contracts of sources, steps and sinks, on one page. A component is one file under runtime/components/:
// its field records, its settings, its registration (see registry.hpp), its code.
//
// A component instance belongs to one dataflow_run and is used on that run's strand only, one call at a time
// (a blocking_sink's calls run on a blocking thread, still one at a time). Order of a batch's life:
//   source.read -> steps.process -> sink.write -> checkpoint commit -> source.acknowledge
// so a source confirms upstream only what is safe downstream. A component throws when it cannot go on; the
// run then fails with that text and its owner restarts it from the last checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "config/definition.hpp"
#include "config/secrets.hpp"
#include "runtime/event.hpp"
#include "runtime/flow_store.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class blocking_pool;
class topics;
class webhooks;

// What the daemon offers to components. Lives as long as the daemon.
struct services {
  runtime::topics& topics;
  runtime::flow_store& flows;
  runtime::webhooks& webhooks;
  runtime::blocking_pool& blocking;
  config::secret_sources secrets;
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

  // A setting's text with secrets filled in; throws std::runtime_error naming the reference that has no
  // value.
  std::string reveal(const std::string& text) const;
};

class source {
 public:
  virtual ~source() = default;

  // Called once, before read(): go on after `position` (0: from the beginning).
  virtual asio::awaitable<void> open(std::int64_t position) = 0;
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

 protected:
  ~step_output() = default;
};

class step {
 public:
  virtual ~step() = default;

  // Changes `events` in place: keeps, drops, replaces or adds. Never waits. An event made from another keeps
  // its `position`.
  virtual void process(batch& events, step_output& out) = 0;

  // Durable state, for steps that have some. restore() is called once before the first batch; changes() after
  // each batch, and what it returns is committed together with the cursor.
  virtual void restore(const std::vector<state_entry>& entries) { (void)entries; }
  virtual std::vector<state_change> changes() { return {}; }
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
