#include "runtime/dataflow_run.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "runtime/gate.hpp"
#include "runtime/ulid.hpp"

namespace penstock::runtime {

namespace {

// Under this step name (no real step's) the store keeps what the consumer reads: see
// state::forget_other_input.
constexpr const char* own_state = "";
constexpr const char* input_key = "input";
constexpr const char* sink_step = "to";  // the step name of what the sink refused

struct named_step {
  std::string name;
  std::unique_ptr<step> does;
};

// What became of one batch. Counted only when it is settled, so that a batch read twice after a failure
// counts once.
struct tally {
  std::int64_t received = 0, emitted = 0, filtered = 0, dead = 0, duplicates = 0;
};

dead_letter letter_of(const event& e, std::string step, std::string reason) {
  dead_letter letter;
  letter.id = make_ulid();
  letter.step = std::move(step);
  letter.reason = std::move(reason);
  letter.at = wall_now();
  letter.event_id = e.id;
  letter.source = e.source;
  letter.type = e.type;
  letter.subject = e.subject;
  letter.datacontenttype = e.datacontenttype;
  letter.key = e.key;
  letter.data = e.data;
  letter.event_time = e.time;
  letter.position = e.position;
  return letter;
}

// Takes what one step says about the events it removed.
class step_report final : public step_output {
 public:
  step_report(const std::string& step, std::vector<dead_letter>& letters) : step_(step), letters_(letters) {}

  void dead(const event& e, std::string reason) override {
    letters_.push_back(letter_of(e, step_, std::move(reason)));
    ++dead_count;
  }
  void duplicate(const event&) override { ++duplicate_count; }

  std::int64_t dead_count = 0;
  std::int64_t duplicate_count = 0;

 private:
  const std::string& step_;
  std::vector<dead_letter>& letters_;
};

// What a source reads, in words: its component and the setting that names its input ("topic orders").
// Positions mean something only there.
std::string input_of(const registry& components, const config::component_use& from) {
  const auto& specs = components.catalog().sources;
  const auto spec = specs.find(from.component);
  if (spec == specs.end()) return from.component;
  const std::string& naming = spec->second.settings.shorthand;
  if (naming.empty() || !from.settings.contains(naming)) return from.component;
  return from.component + " " + from.settings.at(naming).get<std::string>();
}

std::int64_t last_position(const batch& events) {
  std::int64_t last = 0;
  for (const event& e : events.events) last = std::max(last, e.position);
  return last;
}

}  // namespace

struct dataflow_run::state {
  state(asio::any_io_executor s, const registry& c, services& offered, dataflow_options o)
      : strand(std::move(s)),
        components(c),
        store(offered.flows),
        options(std::move(o)),
        context{offered, options.pipeline, options.consumer, options.workdir, strand, options.run_context},
        work(strand) {
    if (!options.counters) options.counters = std::make_shared<dataflow_counters>();
  }

  const asio::any_io_executor strand;
  const registry& components;
  flow_store& store;
  dataflow_options options;
  component_context context;
  component_context sink_context = context;  // its consumer, the producer name, also says what is read

  // All below: on the strand.
  gate work;             // the input's batches and replays take turns at steps and sink
  bool at_work = false;  // between prepare() and the end
  bool draining = false;
  std::string failure{};  // a replay broke the sink: ends the run
  std::string at{};  // the component at work, for the text of a failure; while it reads, that of a replay
  bool reading = false;
  std::unique_ptr<source> from{};
  std::vector<named_step> steps{};
  std::unique_ptr<sink> to{};
  std::int64_t position = 0;  // safe downstream
  std::string sink_checkpoint{};
  std::vector<state_change> own_changes{};  // ours, for the next commit

  static asio::awaitable<dataflow_outcome> execute(std::shared_ptr<state> self);
  static asio::awaitable<result<void>> replay(std::shared_ptr<state> self, batch events,
                                              std::vector<std::string> ids);

  asio::awaitable<void> work_to_the_end();
  asio::awaitable<void> prepare();
  void forget_other_input(checkpoint& saved);
  void make_components();
  void restore_steps(const checkpoint& saved);
  std::string source_label() const;
  asio::awaitable<void> settle(batch events);
  void process(std::size_t step, batch& events, tally& counted, commit& next);
  void take_step_changes(commit& next);
  asio::awaitable<void> write(batch events, tally& counted, commit& next);
  asio::awaitable<void> save(commit next);
  void count(const tally& counted);
  void reject(const std::string& reason);
  asio::awaitable<void> settle_again(batch events, std::vector<std::string> ids);
  std::size_t first_step(const dead_letter& letter) const;
};

dataflow_run::dataflow_run(asio::any_io_executor strand, const registry& components, services& offered,
                           dataflow_options options)
    : state_(std::make_shared<state>(std::move(strand), components, offered, std::move(options))) {}

dataflow_run::~dataflow_run() = default;

asio::awaitable<dataflow_outcome> dataflow_run::run() {
  co_return co_await asio::co_spawn(state_->strand, state::execute(state_), asio::use_awaitable);
}

asio::awaitable<result<void>> dataflow_run::replay(batch events, std::vector<std::string> dead_letter_ids) {
  const std::shared_ptr<state> self = state_;
  auto again = state::replay(self, std::move(events), std::move(dead_letter_ids));
  co_return co_await asio::co_spawn(self->strand, std::move(again), asio::use_awaitable);
}

void dataflow_run::request_drain() {
  asio::post(state_->strand, [self = state_] {
    self->draining = true;
    if (self->from) self->from->stop_input();
  });
}

// ---------------------------------------------------------------------------------------------------------------
// The run

asio::awaitable<dataflow_outcome> dataflow_run::state::execute(std::shared_ptr<state> self) {
  dataflow_outcome outcome;
  try {
    co_await self->work_to_the_end();
    outcome.end = self->draining ? dataflow_end::drained : dataflow_end::input_ended;
  } catch (const std::exception& e) {
    outcome.end = dataflow_end::failed;
    const std::string where = self->reading ? self->source_label() : self->at;
    outcome.reason = self->failure.empty() ? where + ": " + e.what() : self->failure;
  }
  self->at_work = false;
  const gate::pass last = co_await self->work.enter();  // a replay may still be at the sink
  if (outcome.end == dataflow_end::failed) self->reject(outcome.reason);
  // On the strand, where they lived; whoever waits at them is told now.
  self->from.reset();
  self->steps.clear();
  self->to.reset();
  co_return outcome;
}

asio::awaitable<void> dataflow_run::state::work_to_the_end() {
  co_await prepare();
  at_work = true;
  while (true) {
    reading = true;
    std::optional<batch> events = co_await from->read(options.batch_events);
    reading = false;
    const gate::pass mine = co_await work.enter();
    if (!failure.empty()) throw std::runtime_error(failure);
    if (!events) {
      at_work = false;
      at = "to " + options.definition.to->component;
      co_await to->close();
      co_return;
    }
    co_await settle(std::move(*events));
    // A dataflow that never waits (generate to drop) must let request_drain() and other flows have their
    // turn.
    co_await asio::post(strand, asio::use_awaitable);
  }
}

asio::awaitable<void> dataflow_run::state::prepare() {
  at = "checkpoint";
  checkpoint saved = store.load(options.consumer);
  forget_other_input(saved);
  position = saved.position;
  sink_checkpoint = saved.sink;
  make_components();
  at = source_label();
  co_await from->open(position);
  if (draining) from->stop_input();
  restore_steps(saved);
  at = "to " + options.definition.to->component;
  co_await to->open(sink_checkpoint);
  if (!sink_checkpoint.empty()) co_return;
  commit first;
  first.position = position;
  first.sink = to->first_checkpoint();
  co_await save(std::move(first));
}

std::string dataflow_run::state::source_label() const {
  return "from " + (options.definition.from ? options.definition.from->component : std::string("input"));
}

// A changed definition may read something else under the same consumer name. Then the saved position means
// nothing, nor do those that sinks keep; without this a flow moved from a long topic to a young one would
// skip the young one's events.
void dataflow_run::state::forget_other_input(checkpoint& saved) {
  if (options.input || !options.definition.from) return;
  const std::string input = input_of(components, *options.definition.from);
  sink_context.consumer = options.consumer + " from " + input;
  const auto known = std::find_if(saved.steps.begin(), saved.steps.end(), [](const state_entry& entry) {
    return entry.step == own_state && entry.key == input_key;
  });
  if (known != saved.steps.end() && known->value == input) return;
  if (known != saved.steps.end()) {
    spdlog::info("{}: reads {} now, {} before: starts at its beginning", options.consumer, input,
                 known->value);
    saved.position = 0;
  }
  own_changes.push_back({own_state, input_key, input});
}

void dataflow_run::state::make_components() {
  const config::dataflow& definition = options.definition;
  at = "from";
  if (options.input) {
    from = std::move(options.input);
  } else if (definition.from) {
    at += " " + definition.from->component;
    from = components.source_of(*definition.from, context);
  } else {
    throw std::runtime_error("there is nothing to read");
  }
  for (const config::component_use& use : definition.steps) {
    at = "step " + use.name;
    steps.push_back({use.name, components.step_of(use, context)});
  }
  at = "to";
  if (!definition.to) throw std::runtime_error("there is nothing to write to");
  at += " " + definition.to->component;
  to = components.sink_of(*definition.to, sink_context);
}

void dataflow_run::state::restore_steps(const checkpoint& saved) {
  for (const named_step& one : steps) {
    at = "step " + one.name;
    std::vector<state_entry> entries;
    for (const state_entry& entry : saved.steps) {
      if (entry.step == one.name) entries.push_back(entry);
    }
    one.does->restore(entries);
  }
}

// One batch from source to acknowledgement.
asio::awaitable<void> dataflow_run::state::settle(batch events) {
  options.counters->last_event_us.store(to_micros(wall_now()), std::memory_order_relaxed);
  tally counted;
  counted.received = static_cast<std::int64_t>(events.size());
  commit next;
  next.position = std::max(position, last_position(events));
  for (std::size_t i = 0; i < steps.size(); ++i) process(i, events, counted, next);
  take_step_changes(next);
  co_await write(std::move(events), counted, next);
  co_await save(std::move(next));
  count(counted);
  from->acknowledge(position);
}

void dataflow_run::state::process(std::size_t step, batch& events, tally& counted, commit& next) {
  if (events.empty()) return;
  const named_step& one = steps[step];
  at = "step " + one.name;
  const auto before = static_cast<std::int64_t>(events.size());
  step_report report(one.name, next.dead);
  one.does->process(events, report);
  const auto after = static_cast<std::int64_t>(events.size());
  counted.dead += report.dead_count;
  counted.duplicates += report.duplicate_count;
  const std::int64_t dropped = before - after - report.dead_count - report.duplicate_count;
  // Events that a step made count as received, so that the sum holds.
  counted.filtered += std::max<std::int64_t>(dropped, 0);
  counted.received += std::max<std::int64_t>(-dropped, 0);
}

void dataflow_run::state::take_step_changes(commit& next) {
  for (const named_step& one : steps) {
    at = "step " + one.name;
    std::vector<state_change> changes = one.does->changes();
    for (state_change& change : changes) {
      change.step = one.name;
      next.steps.push_back(std::move(change));
    }
  }
}

asio::awaitable<void> dataflow_run::state::write(batch left, tally& counted, commit& next) {
  if (left.empty()) co_return;
  const auto events = std::make_shared<const batch>(std::move(left));
  at = "to " + options.definition.to->component;
  write_result written = co_await to->write(events);
  for (refused_event& refused : written.refused) {
    next.dead.push_back(letter_of(events->events.at(refused.index), sink_step, std::move(refused.reason)));
  }
  const auto refused = static_cast<std::int64_t>(written.refused.size());
  counted.dead += refused;
  counted.duplicates += written.duplicates;
  counted.emitted += static_cast<std::int64_t>(events->size()) - refused - written.duplicates;
  next.sink = std::move(written.checkpoint);
}

// Nothing is written when nothing would change: a webhook's events have no position.
asio::awaitable<void> dataflow_run::state::save(commit next) {
  const bool new_sink_checkpoint = !next.sink.empty() && next.sink != sink_checkpoint;
  if (!new_sink_checkpoint) next.sink = sink_checkpoint;
  const bool new_facts = !next.steps.empty() || !next.dead.empty() || !next.settled.empty();
  if (next.position == position && !new_sink_checkpoint && !new_facts) co_return;

  at = "checkpoint";
  next.consumer = options.consumer;
  for (dead_letter& letter : next.dead) {
    letter.pipeline = options.pipeline;
    letter.consumer = options.consumer;
  }
  next.steps.insert(next.steps.end(), own_changes.begin(), own_changes.end());
  position = next.position;
  sink_checkpoint = next.sink;
  co_await store.save(std::move(next));
  own_changes.clear();
}

void dataflow_run::state::count(const tally& counted) {
  dataflow_counters& all = *options.counters;
  const auto add = [](std::atomic<std::int64_t>& to_counter, std::int64_t n) {
    to_counter.fetch_add(n, std::memory_order_relaxed);
  };
  add(all.received, counted.received);
  add(all.emitted, counted.emitted);
  add(all.filtered, counted.filtered);
  add(all.dead, counted.dead);
  add(all.duplicates, counted.duplicates);
  add(all.batches, 1);
}

void dataflow_run::state::reject(const std::string& reason) {
  try {
    if (from) from->reject(reason);
  } catch (const std::exception& e) {
    spdlog::error("{}: telling the input of a failure failed: {}", options.consumer, e.what());
  }
}

// ---------------------------------------------------------------------------------------------------------------
// Replay

asio::awaitable<result<void>> dataflow_run::state::replay(std::shared_ptr<state> self, batch events,
                                                          std::vector<std::string> ids) {
  const gate::pass mine = co_await self->work.enter();
  if (!self->at_work || !self->failure.empty())
    co_return error{errc::unavailable, "the flow is not at work", {}, 1};
  try {
    co_await self->settle_again(std::move(events), std::move(ids));
    co_return result<void>();
  } catch (const std::exception& e) {
    // Steps may remember what was not committed, so the run starts anew from its checkpoint.
    self->failure = self->at + ": " + e.what();
    self->from->stop_input();
  }
  co_return error{errc::unavailable, self->failure, {}, 1};
}

// A dead letter holds the event as it was where it died, so it goes on from there. It has no position any
// more: sinks would take it for one that they have stored.
asio::awaitable<void> dataflow_run::state::settle_again(batch events, std::vector<std::string> ids) {
  std::map<std::string, dead_letter, std::less<>> letters;  // by event id
  const std::size_t settled_already = steps.size() + 1;  // begins nowhere
  std::vector<std::size_t> begins(events.size(), 0);
  for (std::size_t i = 0; i < events.size(); ++i) {
    events.events[i].position = 0;
    if (i >= ids.size()) continue;  // comes from no letter: goes through all steps
    std::optional<dead_letter> letter = store.find_dead_letter(ids[i]);
    if (!letter) {  // replayed or discarded meanwhile
      begins[i] = settled_already;
      continue;
    }
    begins[i] = first_step(*letter);
    letters.insert_or_assign(letter->event_id, std::move(*letter));
  }

  tally counted;
  counted.received = static_cast<std::int64_t>(events.size());
  commit next;
  next.position = position;
  batch under_way;
  for (std::size_t step = 0; step <= steps.size(); ++step) {
    for (std::size_t i = 0; i < begins.size(); ++i) {
      if (begins[i] == step) under_way.events.push_back(under_way.copy(events.events[i]));
    }
    if (step < steps.size()) process(step, under_way, counted, next);
  }
  take_step_changes(next);
  co_await write(std::move(under_way), counted, next);

  for (dead_letter& again : next.dead) {
    const auto before = letters.find(again.event_id);
    if (before == letters.end()) continue;
    again.position = before->second.position;
    again.attempts = before->second.attempts + 1;
  }
  next.settled = std::move(ids);
  co_await save(std::move(next));
  count(counted);
}

// The beginning when the step is no longer there.
std::size_t dataflow_run::state::first_step(const dead_letter& letter) const {
  if (letter.step == sink_step) return steps.size();
  const auto found = std::find_if(steps.begin(), steps.end(),
                                  [&](const named_step& one) { return one.name == letter.step; });
  return found == steps.end() ? 0 : static_cast<std::size_t>(found - steps.begin());
}

}  // namespace penstock::runtime
