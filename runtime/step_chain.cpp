#include "runtime/step_chain.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <map>
#include <stdexcept>
#include <utility>

#include <spdlog/spdlog.h>

#include "config/kept_state.hpp"
#include "runtime/lua.hpp"
#include "runtime/ulid.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime {

namespace {

// The step name (no real step's) under which fingerprints are kept.
constexpr const char* fingerprints = " fingerprints";
constexpr std::string_view late_output = "late";
constexpr std::size_t events_worth_a_part = 32;  // for steps that only compute
constexpr std::int64_t timed_one_in = 16;        // events, where several steps take one together

}  // namespace

dead_letter letter_of(const event& e, std::string step, std::string reason) {
  dead_letter letter;
  letter.id = make_ulid();
  letter.step = std::move(step);
  letter.reason = std::move(reason);
  letter.at = wall_now();
  letter.event_id = e.id;
  letter.source = e.source;
  letter.topic = e.topic;
  letter.type = e.type;
  letter.subject = e.subject;
  letter.datacontenttype = e.datacontenttype;
  letter.key = e.key;
  letter.data = e.data;
  letter.event_time = e.time;
  letter.position = e.position;
  return letter;
}

// Takes what one step says about events.
class step_chain::report final : public step_output {
 public:
  report(const std::string& step, const std::vector<std::string>& names, std::vector<batch>& outputs,
         std::vector<dead_letter>& letters)
      : step_(step), names_(names), outputs_(outputs), letters_(letters) {}

  void dead(const event& e, std::string reason) override {
    letters_.push_back(letter_of(e, step_, std::move(reason)));
    ++dead_count;
  }
  void duplicate(const event&) override { ++duplicate_count; }
  void to_output(const event& e, std::string_view output) override {
    const auto found = std::find(names_.begin(), names_.end(), output);
    if (found == names_.end()) return;
    batch& there = outputs_[static_cast<std::size_t>(found - names_.begin())];
    const event copy = there.copy(e);
    there.events.push_back(copy);
    ++sent_count;
  }
  void late(const event& e) override {
    ++late_count;
    to_output(e, late_output);
  }

  std::int64_t dead_count = 0, duplicate_count = 0, late_count = 0, sent_count = 0;

 private:
  const std::string& step_;
  const std::vector<std::string>& names_;
  std::vector<batch>& outputs_;
  std::vector<dead_letter>& letters_;
};

// What one lane makes of its part of a batch.
struct step_chain::part {
  part(std::size_t steps, std::size_t named_outputs) : done(steps, named_outputs) {}
  passage done;
  std::exception_ptr failure;
};

step_chain::step_chain(const config::dataflow& definition, const registry& components, const component_context& context,
                       asio::any_io_executor pool, std::shared_ptr<flow_taps> taps)
    : context_(context), taps_(std::move(taps)) {
  const auto make = [&](const config::component_use& use, const asio::any_io_executor& where) {
    at_ = "step " + use.name;
    component_context mine = context;
    mine.executor = where;
    mine.step = use.name;
    try {
      return components.step_of(use, mine);
    } catch (const std::exception& e) {
      throw std::runtime_error(use.name + ": " + e.what());
    }
  };
  for (const auto& use : definition.steps) {
    steps_.push_back({use.name, make(use, context_.executor), config::state_fingerprint(use, components.catalog())});
  }
  for (const auto& output : definition.outputs) output_names_.push_back(output.name);
  while (in_parallel_ < steps_.size() && steps_[in_parallel_].does->stateless()) ++in_parallel_;
  if (in_parallel_ == 0 || !pool) return;
  for (int i = 1; i < definition.parallel; ++i) {
    lane one{asio::make_strand(pool), {}};
    for (std::size_t at = 0; at < in_parallel_; ++at) one.steps.push_back(make(definition.steps[at], one.strand));
    lanes_.push_back(std::move(one));
  }
}

// ---- state ----

void step_chain::restore(const std::vector<state_entry>& saved, std::vector<state_change>& changes) {
  std::map<std::string, std::string, std::less<>> known;  // fingerprints
  std::map<std::string, std::vector<state_entry>, std::less<>> entries;
  for (const state_entry& entry : saved) {
    if (entry.step == fingerprints) {
      known[entry.key] = entry.value;
    } else if (!entry.step.empty()) {
      entries[entry.step].push_back(entry);
    }
  }
  const auto remove = [&changes](const std::vector<state_entry>& all) {
    for (const state_entry& entry : all) changes.push_back({entry.step, entry.key, std::nullopt});
  };
  for (named_step& one : steps_) {
    at_ = "step " + one.name;
    std::vector<state_entry> mine;
    if (const auto found = entries.find(one.name); found != entries.end()) {
      mine = std::move(found->second);
      entries.erase(found);
    }
    const auto print = known.find(one.name);
    const std::string before = print == known.end() ? one.fingerprint : print->second;
    if (before != one.fingerprint && !mine.empty()) {
      spdlog::warn("{} {}: what it had kept does not fit its settings any more: it starts empty", context_.label(), one.name);
      remove(mine);
      mine.clear();
    }
    if (print == known.end() ? !one.fingerprint.empty() : before != one.fingerprint) {
      changes.push_back({fingerprints, one.name, one.fingerprint});
    }
    one.does->restore(mine);
  }
  for (const auto& [step, left] : entries) {
    spdlog::info("{}: step {} is gone: what it had kept is forgotten", context_.label(), step);
    remove(left);
  }
}

std::vector<state_change> step_chain::take_changes() {
  std::vector<state_change> all;
  for (const named_step& one : steps_) {
    at_ = "step " + one.name;
    auto changes = one.does->changes();
    for (state_change& change : changes) {
      change.step = one.name;
      all.push_back(std::move(change));
    }
  }
  return all;
}

asio::awaitable<void> step_chain::open() {
  for (; opened_ < steps_.size(); ++opened_) {
    at_ = "step " + steps_[opened_].name;
    co_await steps_[opened_].does->open();
  }
  for (lane& one : lanes_) {
    for (auto& does : one.steps) {
      auto opening = does->open();
      co_await asio::co_spawn(one.strand, std::move(opening), asio::use_awaitable);
    }
  }
}

asio::awaitable<void> step_chain::close() {
  for (std::size_t i = 0; i < opened_; ++i) co_await steps_[i].does->close();
  for (lane& one : lanes_) {  // where they live: a program's end is told to them there
    for (auto& does : one.steps) {
      auto closing = does->close();
      co_await asio::co_spawn(one.strand, std::move(closing), asio::use_awaitable);
    }
  }
  opened_ = 0;
}

std::optional<std::size_t> step_chain::find(std::string_view step) const {
  const auto found = std::find_if(steps_.begin(), steps_.end(), [&](const named_step& one) { return one.name == step; });
  if (found == steps_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - steps_.begin());
}

// ---- events ----

void step_chain::tap_after(std::string_view name, const batch& events) const {
  if (taps_ && taps_->wanted()) taps_->offer(name, events);
}

namespace {

// Of `entered` events `left` are still there; `told` says what became of others. Events that a step made count as
// received, so that the sum holds.
template <class Report>
tally tally_of(std::int64_t entered, std::int64_t left, const Report& told) {
  const std::int64_t dropped = entered - left - told.dead_count - told.duplicate_count - told.sent_count;
  tally counted;
  counted.received = entered + std::max<std::int64_t>(-dropped, 0);
  counted.emitted = left + told.sent_count;
  counted.filtered = std::max<std::int64_t>(dropped, 0);
  counted.dead = told.dead_count;
  counted.duplicates = told.duplicate_count;
  counted.late = told.late_count;
  return counted;
}

// What a step's counts mean for the dataflow's.
void count_in(passage& p, std::size_t index, const tally& of_step, std::int64_t entered) {
  p.of_step[index].add(of_step);
  p.counted.received += of_step.received - entered;
  p.counted.filtered += of_step.filtered;
  p.counted.dead += of_step.dead;
  p.counted.duplicates += of_step.duplicates;
  p.counted.late += of_step.late;
}

using steady = std::chrono::steady_clock;

std::int64_t nanoseconds_since(steady::time_point began) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(steady::now() - began).count();
}

}  // namespace

asio::awaitable<void> step_chain::pass(passage& p, std::size_t first) {
  if (!lanes_.empty() && first < in_parallel_) {
    co_await pass_in_parallel(p, first);
    first = in_parallel_;
  }
  co_await pass_some(p, first, steps_.size(), nullptr);
}

asio::awaitable<void> step_chain::pass_step(passage& p, std::size_t index) {
  return pass_some(p, index, index + 1, nullptr);
}

asio::awaitable<void> step_chain::pass_some(passage& p, std::size_t first, std::size_t until, const lane* by) {
  while (first < until && !p.events.empty()) {
    if (!by) at_ = "step " + steps_[first].name;
    const std::size_t next = together_until(first, until, by);
    if (next > first) {
      take_together(p, first, next, by);
      first = next;
    } else {
      co_await pass_one(p, first, by);
      ++first;
    }
  }
}

asio::awaitable<void> step_chain::pass_one(passage& p, std::size_t index, const lane* by) {
  const std::string& name = steps_[index].name;
  step& does = instance(by, index);
  report told(name, output_names_, p.outputs, p.dead);
  const auto began = steady::now();
  const auto entered = static_cast<std::int64_t>(p.events.size());
  if (does.waits()) {
    co_await does.process_waiting(p.events, told);
  } else {
    does.process(p.events, told);
  }
  tally counted = tally_of(entered, static_cast<std::int64_t>(p.events.size()), told);
  counted.busy_ns = nanoseconds_since(began);
  tap_after(name, p.events);
  count_in(p, index, counted, entered);
}

// Where a row of steps that take each event by itself ends. Nobody taps, who would want to see batches between them.
std::size_t step_chain::together_until(std::size_t first, std::size_t until, const lane* by) const {
  if (taps_ && taps_->wanted()) return first;
  std::size_t end = first;
  while (end < until && dynamic_cast<event_step*>(&instance(by, end))) ++end;
  return end;
}

// Event by event through all of them, so that a payload is parsed once. What each step takes of the time is measured on
// some of its events.
void step_chain::take_together(passage& p, std::size_t first, std::size_t until, const lane* by) {
  struct one_step {
    event_step& does;
    report told;
    std::int64_t entered = 0, left = 0, timed = 0, timed_ns = 0;
  };
  std::vector<one_step> row;
  row.reserve(until - first);
  for (std::size_t i = first; i < until; ++i) {
    row.push_back({dynamic_cast<event_step&>(instance(by, i)), report(steps_[i].name, output_names_, p.outputs, p.dead)});
  }
  std::size_t at = 0;  // in the row
  const auto stays = [&](event& e) {
    for (at = 0; at < row.size(); ++at) {
      one_step& one = row[at];
      const bool timed = one.entered++ % timed_one_in == 0;
      const auto began = timed ? steady::now() : steady::time_point{};
      const bool passed = one.does.take(e, p.events, one.told);
      if (timed) {
        ++one.timed;
        one.timed_ns += nanoseconds_since(began);
      }
      if (!passed) return false;
      ++one.left;
    }
    return true;
  };
  try {
    const payload_hold parsed_once;
    std::erase_if(p.events.events, [&](event& e) { return !stays(e); });
  } catch (...) {
    if (!by) at_ = "step " + steps_[first + at].name;
    throw;
  }
  for (std::size_t i = 0; i < row.size(); ++i) {
    const one_step& one = row[i];
    tally counted = tally_of(one.entered, one.left, one.told);
    if (one.timed > 0) counted.busy_ns = one.timed_ns * one.entered / one.timed;
    if (one.entered > 0) count_in(p, first + i, counted, one.entered);
  }
}

// One part through the leading steps.
asio::awaitable<void> step_chain::work_on(part& mine, std::size_t first, const lane* by) {
  try {
    co_await pass_some(mine.done, first, in_parallel_, by);
  } catch (...) {
    mine.failure = std::current_exception();
  }
}

asio::awaitable<void> step_chain::pass_in_parallel(passage& p, std::size_t first) {
  at_ = "step " + steps_[first].name;
  const bool waiting = std::any_of(steps_.begin() + static_cast<std::ptrdiff_t>(first),
                                   steps_.begin() + static_cast<std::ptrdiff_t>(in_parallel_),
                                   [](const named_step& one) { return one.does->waits(); });
  const std::size_t least = waiting ? 1 : events_worth_a_part;
  const std::size_t many = std::clamp<std::size_t>(p.events.size() / least, 1, lanes_.size() + 1);

  // The parts' events lie in the whole batch's memory until the parts are put together.
  std::vector<event> all = std::exchange(p.events.events, {});
  std::vector<part> parts;
  parts.reserve(many);
  for (std::size_t i = 0; i < many; ++i) {
    parts.emplace_back(steps_.size(), output_names_.size());
    const auto from = static_cast<std::ptrdiff_t>(all.size() * i / many);
    const auto until = static_cast<std::ptrdiff_t>(all.size() * (i + 1) / many);
    parts.back().done.events.events.assign(all.begin() + from, all.begin() + until);
  }
  auto left = std::make_shared<std::atomic<std::size_t>>(many - 1);
  const auto done = std::make_shared<wakeup>(context_.executor);
  for (std::size_t i = 1; i < many; ++i) {
    lane& there = lanes_[i - 1];
    const auto told = [left, done](std::exception_ptr) {
      if (--*left == 0) done->notify();
    };
    asio::co_spawn(there.strand, work_on(parts[i], first, &there), told);
  }
  co_await work_on(parts[0], first, nullptr);
  while (*left > 0) co_await done->wait();

  for (part& one : parts) {
    if (one.failure) std::rethrow_exception(one.failure);
  }
  for (part& one : parts) {
    p.events.append(std::move(one.done.events));
    for (std::size_t i = 0; i < p.outputs.size(); ++i) p.outputs[i].append(std::move(one.done.outputs[i]));
    for (std::size_t i = 0; i < p.of_step.size(); ++i) p.of_step[i].add(one.done.of_step[i]);
    p.counted.add(one.done.counted);
    std::move(one.done.dead.begin(), one.done.dead.end(), std::back_inserter(p.dead));
  }
}

// ---- time ----

std::optional<timestamp> step_chain::wake_at() const {
  std::optional<timestamp> first;
  for (const named_step& one : steps_) {
    const auto at = one.does->wake_at();
    if (at && (!first || *at < *first)) first = at;
  }
  return first;
}

asio::awaitable<void> step_chain::tick(passage& p, timestamp now, bool ended, std::int64_t position) {
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    co_await pass_step(p, i);
    named_step& one = steps_[i];
    at_ = "step " + one.name;
    batch due;
    report told(one.name, output_names_, p.outputs, p.dead);
    if (ended) {
      one.does->finish(due, told);
    } else {
      one.does->tick(now, due, told);
    }
    const auto made = static_cast<std::int64_t>(due.size()) + told.sent_count + told.dead_count;
    if (made == 0) continue;
    for (event& e : due.events) e.position = position;
    for (batch& output : p.outputs) {
      for (event& e : output.events) e.position = position;
    }
    tap_after(one.name, due);
    p.of_step[i].received += made;
    p.of_step[i].emitted += static_cast<std::int64_t>(due.size()) + told.sent_count;
    p.of_step[i].dead += told.dead_count;
    p.counted.received += made;
    p.counted.dead += told.dead_count;
    p.events.append(std::move(due));
  }
}

}  // namespace penstock::runtime
