#include "runtime/dataflow_run.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "config/kept_state.hpp"
#include "runtime/gate.hpp"
#include "runtime/sink_set.hpp"
#include "runtime/step_chain.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

namespace {

// Under engine_state the store keeps, beside the sinks' checkpoints and the source's record:
constexpr const char* ticks_key = "ticks";      // how many ticks had results
constexpr const char* pending_key = "pending";  // the tick whose results may have left: microseconds, and whether last

std::int64_t last_position(const batch& events) {
  std::int64_t last = 0;
  for (const event& e : events.events) last = std::max(last, e.position);
  return last;
}

std::int64_t number(std::string_view text) {
  std::int64_t n = 0;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

// What the engine has kept under that key; empty: nothing.
std::string own_entry(const checkpoint& saved, const std::string& key) {
  for (const state_entry& entry : saved.steps) {
    if (entry.step == engine_state && entry.key == key) return entry.value;
  }
  return {};
}

// A time at which steps are asked what is due, or asked for all that is left.
struct tick_time {
  timestamp at{};
  bool ended = false;

  std::string text() const { return std::to_string(to_micros(at)) + (ended ? " last" : ""); }
  static tick_time of(std::string_view text) { return {from_micros(number(text)), text.ends_with("last")}; }
};

}  // namespace

struct dataflow_run::state {
  state(asio::any_io_executor s, const registry& c, services& offered, dataflow_options o)
      : strand(std::move(s)),
        components(c),
        store(offered.flows),
        options(std::move(o)),
        definition(*options.definition),
        bounded(options.input != nullptr),
        context{offered, std::move(options.pipeline), std::move(options.consumer), std::move(options.workdir), strand,
                std::move(options.run_context), {}, std::move(options.programs), std::move(options.now)},
        work(strand),
        tick_due(std::make_shared<wakeup>(strand)),
        let_go(options.held ? std::make_shared<wakeup>(strand) : nullptr) {
    if (!options.counters) options.counters = std::make_shared<dataflow_counters>();
    context.trouble = {options.counters, &options.counters->source_trouble};
    auto& of_steps = options.counters->steps;
    while (of_steps.size() < definition.steps.size()) {
      of_steps.push_back(std::make_unique<step_counters>(definition.steps[of_steps.size()].name));
    }
  }

  const asio::any_io_executor strand;
  const registry& components;
  flow_store& store;
  dataflow_options options;  // what `context` has is taken out of it
  const config::dataflow& definition;
  const bool bounded;  // it is given its input, as a task of a run
  component_context context;

  // All below: on the strand.
  gate work;             // the input's batches, ticks and replays take turns at steps and sinks
  bool at_work = false;  // between prepare() and the end
  bool draining = false;
  bool held = false;
  bool for_good = false;
  std::string failure{};  // a replay or a tick could not be settled: ends the run
  std::string at{};       // the part at work, for the text of a failure, while it is neither a step nor a sink
  bool reading = false;
  std::unique_ptr<source> from{};
  std::optional<step_chain> steps{};
  std::optional<sink_set> sinks{};
  std::string producer{};     // the consumer's name and what it reads: positions in sinks belong to it; goes on to `sinks`
  std::weak_ptr<state> shared{};
  std::int64_t position = 0;  // of the source, safe downstream
  std::string saved_sink{};   // the checkpoint of `to`, likewise
  std::int64_t ticks = 0;     // positions that ticks have taken; sinks see position + ticks
  bool positioned = false;    // the source has positions
  bool position_unsaved = false;
  bool has_checkpoint = false;  // the store holds something of the consumer
  std::vector<state_change> own_changes{};  // ours, for the next commit
  std::optional<timestamp> next_tick{};     // what the ticker waits for
  commit first{};                           // what opening has changed, to be stored before anything else
  std::optional<tick_time> pending_tick{};  // was under way when the daemon was killed
  const std::shared_ptr<wakeup> tick_due;   // next_tick has changed, or the run is over
  const std::shared_ptr<wakeup> let_go;     // no longer held, or draining; null: it never was held
  std::shared_ptr<wakeup> ticker_ended{};   // null: there was no ticker
  bool ticker_lives = false;
  bool over = false;

  static asio::awaitable<dataflow_outcome> execute(std::shared_ptr<state> self);
  static asio::awaitable<result<std::int64_t>> replay(std::shared_ptr<state> self, batch events,
                                              std::vector<std::string> ids);

  asio::awaitable<void> work_to_the_end();
  asio::awaitable<void> prepare();
  void tell_open();
  asio::awaitable<void> begin();
  bool name_input(const checkpoint& saved);  // the same as before
  std::string record_key() const;
  asio::awaitable<void> write_record();
  std::optional<tick_time> read_own_state(const checkpoint& saved);
  void make_components();
  asio::awaitable<void> end_input();
  std::string source_label() const;
  std::string whereabouts() const;
  asio::awaitable<void> settle(batch events);
  static void bury_faulty(passage& p);
  asio::awaitable<void> finish(passage p, commit next);
  asio::awaitable<void> save(commit next);
  asio::awaitable<void> save_position();
  void count(const passage& p);
  void reject(const std::string& reason);

  void plan_tick();
  static asio::awaitable<void> keep_ticking(std::shared_ptr<state> self);
  asio::awaitable<void> tick(tick_time when, bool again);

  asio::awaitable<std::int64_t> settle_again(batch events, std::vector<std::string> ids);
  std::size_t first_step(const dead_letter& letter) const;
};

dataflow_run::dataflow_run(asio::any_io_executor strand, const registry& components, services& offered,
                           dataflow_options options)
    : state_(std::make_shared<state>(std::move(strand), components, offered, std::move(options))) {}

dataflow_run::~dataflow_run() = default;

asio::awaitable<dataflow_outcome> dataflow_run::run() {
  return asio::co_spawn(state_->strand, state::execute(state_), asio::use_awaitable);
}

asio::awaitable<result<std::int64_t>> dataflow_run::replay(batch events, std::vector<std::string> dead_letter_ids) {
  const std::shared_ptr<state> self = state_;
  auto again = state::replay(self, std::move(events), std::move(dead_letter_ids));
  co_return co_await asio::co_spawn(self->strand, std::move(again), asio::use_awaitable);
}

void dataflow_run::request_drain(bool for_good) {
  asio::post(state_->strand, [self = state_, for_good] {
    self->draining = true;
    self->for_good = self->for_good || for_good;
    if (self->let_go) self->let_go->notify();
    if (self->from) self->from->stop_input();
    if (self->sinks) self->sinks->hurry();
  });
}

void dataflow_run::release() {
  asio::post(state_->strand, [self = state_] {
    self->held = false;
    if (self->let_go) self->let_go->notify();
  });
}

// ---------------------------------------------------------------------------------------------------------------
// The run

asio::awaitable<dataflow_outcome> dataflow_run::state::execute(std::shared_ptr<state> self) {
  dataflow_outcome outcome;
  self->shared = self;
  try {
    co_await self->work_to_the_end();
    outcome.end = self->draining ? dataflow_end::drained : dataflow_end::input_ended;
  } catch (const std::exception& e) {
    outcome.end = dataflow_end::failed;
    outcome.reason = self->failure;
    if (outcome.reason.empty()) outcome.reason = (self->reading ? self->source_label() : self->whereabouts()) + ": " + e.what();
  }
  self->at_work = false;
  self->over = true;
  self->tick_due->notify();
  while (self->ticker_lives) co_await self->ticker_ended->wait();
  const gate::pass last = co_await self->work.enter();  // a replay may still be at a sink
  if (outcome.end == dataflow_end::failed) self->reject(outcome.reason);
  if (outcome.end != dataflow_end::input_ended && self->position_unsaved) co_await self->save_position();
  if (self->steps) co_await self->steps->close();
  if (outcome.end == dataflow_end::failed && self->sinks) co_await self->sinks->abandon();
  outcome.has_checkpoint = self->has_checkpoint;
  // On the strand, where they lived; whoever waits at them is told now.
  self->from.reset();
  self->steps.reset();
  self->sinks.reset();
  self->options.counters->source_trouble.clear();
  self->options.counters->sink_trouble.clear();
  co_return outcome;
}

asio::awaitable<void> dataflow_run::state::work_to_the_end() {
  held = options.held;
  co_await prepare();
  if (options.held) {
    tell_open();
    while (held && !draining) co_await let_go->wait();
    if (held) co_return co_await sinks->abandon();
  }
  co_await begin();
  at_work = true;
  if (!options.held) tell_open();
  plan_tick();
  while (true) {
    reading = true;
    std::optional<batch> events = co_await from->read(options.batch_events);
    reading = false;
    const gate::pass mine = co_await work.enter();
    if (!failure.empty()) throw std::runtime_error(failure);
    if (!events) {
      at_work = false;
      co_return co_await end_input();
    }
    co_await settle(std::move(*events));
    plan_tick();
    // A dataflow that never waits (generate to drop) must let request_drain() and other flows have their
    // turn.
    co_await asio::post(strand, asio::use_awaitable);
  }
}

void dataflow_run::state::tell_open() {
  if (const auto tell = std::exchange(options.on_open, nullptr)) tell();
}

asio::awaitable<void> dataflow_run::state::end_input() {
  if (!draining || for_good) {
    const tick_time last{context.now(), true};
    co_await tick(last, false);
  }
  at.clear();
  co_await sinks->close();
}

asio::awaitable<void> dataflow_run::state::prepare() {
  at = "checkpoint";
  const checkpoint saved = store.load(context.consumer);
  position = saved.position;
  const bool same_input = name_input(saved);
  saved_sink = saved.sink;
  has_checkpoint = position != 0 || !saved_sink.empty() || !saved.steps.empty();
  pending_tick = read_own_state(saved);
  make_components();
  at = source_label();
  if (const std::string record = own_entry(saved, record_key()); !record.empty())
    from->recall(record, same_input ? std::optional(saved.position) : std::nullopt);
  co_await from->open(position);
  if (draining) from->stop_input();
  at.clear();
  try {
    steps->restore(saved.steps, own_changes);
    co_await steps->open();
  } catch (...) {
    at = steps->at();
    throw;
  }
  first.position = position;
  co_await sinks->open(saved.sink, saved.steps, first);
}

asio::awaitable<void> dataflow_run::state::begin() {
  if (first.sink != saved_sink || !first.steps.empty()) co_await save(std::move(first));
  if (pending_tick) co_await tick(*pending_tick, true);
}

std::string dataflow_run::state::source_label() const {
  return "from " + (definition.from ? definition.from->component : std::string("input"));
}

// Who is at work beside the source, for the text of a failure.
std::string dataflow_run::state::whereabouts() const {
  if (!at.empty()) return at;
  return sinks ? sinks->at() : "to";
}

std::string dataflow_run::state::record_key() const {
  return source_record + (definition.from ? definition.from->component : std::string());
}

// What the source must have on disk before its batch goes on.
asio::awaitable<void> dataflow_run::state::write_record() {
  std::string record = from->record();
  if (record.empty()) co_return;
  commit planned;
  planned.position = position;
  planned.sink = saved_sink;
  planned.steps.push_back({engine_state, record_key(), std::move(record)});
  co_await save(std::move(planned));
}

// A changed definition may read something else under the same consumer name. Then the saved position means
// nothing, nor do those that sinks keep; without this a flow moved from a long topic to a young one would
// skip the young one's events.
bool dataflow_run::state::name_input(const checkpoint& saved) {
  producer = context.consumer;
  if (options.input || !definition.from) return true;
  const std::string input = config::input_of(*definition.from, components.catalog());
  producer += " from " + input;
  const std::string before = own_entry(saved, input_key);
  if (before == input) return true;
  own_changes.push_back({engine_state, input_key, input});
  if (before.empty()) return true;
  spdlog::info("{}: reads {} now, {} before", context.label(), input, before);
  position = 0;
  return false;
}

// The tick that was under way when the daemon was killed, if there was one.
std::optional<tick_time> dataflow_run::state::read_own_state(const checkpoint& saved) {
  std::optional<tick_time> pending;
  for (const state_entry& entry : saved.steps) {
    if (entry.step != engine_state) continue;
    if (entry.key == ticks_key) ticks = number(entry.value);
    if (entry.key == pending_key) pending = tick_time::of(entry.value);
  }
  return pending;
}

void dataflow_run::state::make_components() {
  at = "from";
  if (options.input) {
    from = std::move(options.input);
  } else if (definition.from) {
    at += " " + definition.from->component;
    from = components.source_of(*definition.from, context);
  } else {
    throw std::runtime_error("there is nothing to read");
  }
  at = "step";
  steps.emplace(definition, components, context, options.pool, options.taps);
  at = "to";
  sinks.emplace(definition, components, context, std::move(producer), options.counters);
}

// One batch from source to acknowledgement.
asio::awaitable<void> dataflow_run::state::settle(batch events) {
  options.counters->last_event_us.store(to_micros(wall_now()), std::memory_order_relaxed);
  if (options.taps && options.taps->wanted()) options.taps->offer("from", events);
  commit next;
  next.position = std::max(position, last_position(events));
  positioned = positioned || next.position > 0;
  passage p = steps->new_passage();
  p.counted.received = static_cast<std::int64_t>(events.size());
  p.events = std::move(events);
  bury_faulty(p);
  co_await write_record();
  at.clear();
  try {
    co_await steps->pass(p);
  } catch (...) {
    at = steps->at();
    throw;
  }
  co_await finish(std::move(p), std::move(next));
  from->acknowledge(position);
}

// What the source could not read (event::fault).
void dataflow_run::state::bury_faulty(passage& p) {
  std::erase_if(p.events.events, [&p](const event& e) {
    if (e.fault.empty()) return false;
    p.dead.push_back(letter_of(e, step_unreadable, std::string(e.fault)));
    ++p.counted.dead;
    return true;
  });
}

// What has passed the steps goes to the sinks, and all of it is committed.
asio::awaitable<void> dataflow_run::state::finish(passage p, commit next) {
  auto changes = steps->take_changes();
  std::move(changes.begin(), changes.end(), std::back_inserter(next.steps));
  if (ticks > 0) {
    const auto move_on = [this](batch& events) {
      for (event& e : events.events) e.position += e.position > 0 ? ticks : 0;
    };
    move_on(p.events);
    for (batch& output : p.outputs) move_on(output);
  }
  if (options.taps && options.taps->wanted()) options.taps->offer("to", p.events);
  at.clear();
  co_await sinks->write(p, next);
  for (dead_letter& letter : p.dead) {
    if (letter.position > 0 && sinks->place_of(letter.step) >= 0) letter.position -= ticks;
  }
  next.dead = std::move(p.dead);
  co_await save(std::move(next));
  count(p);
}

// Nothing is written when nothing would change: a webhook's events have no position. A bounded run (of a job) saves a
// position that comes alone with the next one only, so that one of a single batch saves none; how far it came counts for
// its next attempt, and after a kill it repeats one batch more.
asio::awaitable<void> dataflow_run::state::save(commit next) {
  const bool new_facts = next.sink != saved_sink || !next.steps.empty() || !next.dead.empty() || !next.settled.empty();
  if (next.position == position && !new_facts) co_return;
  if (bounded && !new_facts && !std::exchange(position_unsaved, true)) {
    position = next.position;
    co_return;
  }
  position_unsaved = false;

  at = "checkpoint";
  next.consumer = context.consumer;
  for (dead_letter& letter : next.dead) {
    letter.pipeline = context.pipeline;
    letter.consumer = context.consumer;
  }
  next.steps.insert(next.steps.begin(), own_changes.begin(), own_changes.end());  // first: they removed what is old
  position = next.position;
  saved_sink = next.sink;
  has_checkpoint = true;
  co_await store.save(std::move(next));
  own_changes.clear();
  at.clear();
}

// For the next attempt. When it fails, that one repeats a batch.
asio::awaitable<void> dataflow_run::state::save_position() {
  commit reached;
  reached.consumer = context.consumer;
  reached.position = position;
  reached.sink = saved_sink;
  has_checkpoint = true;
  try {
    co_await store.save(std::move(reached));
  } catch (const std::exception& e) {
    spdlog::error("{}: how far it came cannot be stored: {}", context.label(), e.what());
  }
}

void dataflow_run::state::count(const passage& p) {
  if (p.counted.received > 0) options.counters->add(p.counted);  // a tick may have had nothing to do
  for (std::size_t i = 0; i < p.of_step.size(); ++i) {
    if (p.of_step[i].received > 0) options.counters->steps[i]->add(p.of_step[i]);
  }
}

void dataflow_run::state::reject(const std::string& reason) {
  try {
    if (from) from->reject(reason);
  } catch (const std::exception& e) {
    spdlog::error("{}: telling the input of a failure failed: {}", context.label(), e.what());
  }
}

// ---------------------------------------------------------------------------------------------------------------
// Time

void dataflow_run::state::plan_tick() {
  const auto wanted = steps->wake_at();
  if (wanted == next_tick) return;
  next_tick = wanted;
  if (ticker_lives) {
    tick_due->notify();
  } else if (next_tick) {
    ticker_lives = true;
    if (!ticker_ended) ticker_ended = std::make_shared<wakeup>(strand);
    const auto self = shared.lock();
    const auto ended = [self](std::exception_ptr) {
      self->ticker_lives = false;
      self->ticker_ended->notify();
    };
    asio::co_spawn(strand, keep_ticking(self), ended);
  }
}

asio::awaitable<void> dataflow_run::state::keep_ticking(std::shared_ptr<state> self) {
  while (!self->over) {
    if (!self->next_tick) {
      co_await self->tick_due->wait();
      continue;
    }
    const auto left = *self->next_tick - self->context.now();
    if (left.count() > 0) {
      // Not longer than a minute at a time: the wall clock may be set.
      const auto pause = std::min<std::chrono::steady_clock::duration>(left, std::chrono::minutes(1));
      co_await self->tick_due->wait_until(std::chrono::steady_clock::now() + pause);
      continue;
    }
    const gate::pass mine = co_await self->work.enter();
    if (self->over || !self->at_work || !self->failure.empty()) break;
    try {
      const tick_time now{self->context.now(), false};
      co_await self->tick(now, false);
      self->next_tick = self->steps->wake_at();
    } catch (const std::exception& e) {
      self->failure = self->whereabouts() + ": " + e.what();
      self->from->stop_input();
      break;
    }
  }
}

// `again`: it was stored as pending before a crash. With `work` held.
asio::awaitable<void> dataflow_run::state::tick(tick_time when, bool again) {
  passage p = steps->new_passage();
  const bool has_positions = positioned || position > 0;
  at.clear();
  try {
    co_await steps->tick(p, when.at, when.ended, has_positions ? position + 1 : 0);
  } catch (...) {
    at = steps->at();
    throw;
  }
  bool leaves = !p.events.empty();
  for (const batch& output : p.outputs) leaves = leaves || !output.empty();
  commit next;
  next.position = position;
  next.sink = saved_sink;
  // What was pending may have left before the crash, so it keeps its position though nothing leaves now.
  const bool takes_position = has_positions && (leaves || again);
  if (takes_position) {
    if (!again) {
      commit pending = next;
      pending.steps.push_back({engine_state, pending_key, when.text()});
      co_await save(std::move(pending));
    }
    next.steps.push_back({engine_state, ticks_key, std::to_string(ticks + 1)});
    next.steps.push_back({engine_state, pending_key, std::nullopt});
  }
  co_await finish(std::move(p), std::move(next));
  if (takes_position) ++ticks;
}

// ---------------------------------------------------------------------------------------------------------------
// Replay

asio::awaitable<result<std::int64_t>> dataflow_run::state::replay(std::shared_ptr<state> self, batch events,
                                                          std::vector<std::string> ids) {
  const gate::pass mine = co_await self->work.enter();
  if (!self->at_work || !self->failure.empty())
    co_return error{errc::unavailable, "the flow is not at work", {}, 1};
  try {
    const std::int64_t dead = co_await self->settle_again(std::move(events), std::move(ids));
    self->plan_tick();
    co_return dead;
  } catch (const std::exception& e) {
    // Steps may remember what was not committed, so the run starts anew from its checkpoint.
    self->failure = self->whereabouts() + ": " + e.what();
    self->from->stop_input();
  }
  co_return error{errc::unavailable, self->failure, {}, 1};
}

// A dead letter holds the event as it was where it died, so it goes on from there. It has no position any
// more: sinks would take it for one that they have stored.
asio::awaitable<std::int64_t> dataflow_run::state::settle_again(batch events, std::vector<std::string> ids) {
  std::map<std::string, dead_letter, std::less<>> letters;  // by event id
  const std::size_t settled_already = steps->size() + 1;  // begins nowhere
  std::vector<std::size_t> begins(events.size(), 0);
  passage p = steps->new_passage();
  for (std::size_t i = 0; i < events.size(); ++i) {
    event& e = events.events[i];
    e.position = 0;
    if (i >= ids.size()) {  // comes from no letter: goes through all steps
      ++p.counted.received;
      continue;
    }
    std::optional<dead_letter> letter = store.find_dead_letter(ids[i]);
    begins[i] = letter ? first_step(*letter) : settled_already;  // replayed or discarded meanwhile
    if (!letter) continue;
    ++p.counted.received;
    if (letter->step == step_unreadable) {  // there is no event that could go on
      p.dead.push_back(letter_of(e, step_unreadable, letter->reason));
      ++p.counted.dead;
      begins[i] = settled_already;
    }
    if (const int place = sinks->place_of(letter->step); place > 0) {
      batch& output = p.outputs[static_cast<std::size_t>(place) - 1];
      const event copy = output.copy(e);
      output.events.push_back(copy);
      begins[i] = settled_already;
    }
    letters.insert_or_assign(letter->event_id, std::move(*letter));
  }

  at.clear();
  for (std::size_t step = 0; step <= steps->size(); ++step) {
    for (std::size_t i = 0; i < begins.size(); ++i) {
      if (begins[i] != step) continue;
      const event copy = p.events.copy(events.events[i]);
      p.events.events.push_back(copy);
    }
    if (step == steps->size()) break;
    try {
      co_await steps->pass_step(p, step);
    } catch (...) {
      at = steps->at();
      throw;
    }
  }
  commit next;
  next.position = position;
  auto changes = steps->take_changes();
  std::move(changes.begin(), changes.end(), std::back_inserter(next.steps));
  co_await sinks->write(p, next);

  for (dead_letter& again : p.dead) {
    const auto before = letters.find(again.event_id);
    if (before == letters.end()) continue;
    again.position = before->second.position;
    again.attempts = before->second.attempts + 1;
  }
  const auto dead = static_cast<std::int64_t>(p.dead.size());
  next.dead = std::move(p.dead);
  next.settled = std::move(ids);
  co_await save(std::move(next));
  count(p);
  co_return dead;
}

// The beginning when the step is no longer there.
std::size_t dataflow_run::state::first_step(const dead_letter& letter) const {
  if (sinks->place_of(letter.step) == 0) return steps->size();
  return steps->find(letter.step).value_or(0);
}

}  // namespace penstock::runtime
