#include "runtime/sink_set.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>

#include <spdlog/spdlog.h>

namespace penstock::runtime {

namespace {

using steady = std::chrono::steady_clock;

constexpr const char* checkpoint_key = "sink ";  // with the output's name
// A sink that goes on with none of so many events in a row is itself to blame, not they.
constexpr int most_buried_alone = 3;

std::chrono::nanoseconds pause_before(const config::delivery_policy& policy, int attempt) {
  auto pause = policy.backoff_first;
  for (int i = 2; i < attempt && pause < policy.backoff_limit; ++i) pause *= 2;
  return std::min(pause, std::max(policy.backoff_limit, policy.backoff_first));
}

// The events of a batch that are still to be delivered, and where in the batch they stand.
struct undelivered {
  explicit undelivered(std::shared_ptr<const batch> all) : events(std::move(all)), index(events->size()) {
    std::iota(index.begin(), index.end(), std::size_t{0});
  }

  std::shared_ptr<const batch> events;
  std::vector<std::size_t> index;

  // `now`: what became of those that are not in `open`, numbered as in `events`.
  template <class Delivery>
  void settle(write_result now, const std::vector<std::size_t>& open, int attempt, Delivery& done) {
    write_result& all = done.written;
    for (refused_event& one : now.refused) all.refused.push_back({index[one.index], std::move(one.reason)});
    all.duplicates += now.duplicates;
    all.checkpoint = std::move(now.checkpoint);
    done.attempts.resize(all.refused.size(), attempt);
    auto rest = std::make_shared<batch>();
    std::vector<std::size_t> places;
    for (const std::size_t i : open) {
      const event copy = rest->copy(events->events[i]);
      rest->events.push_back(copy);
      places.push_back(index[i]);
    }
    events = std::move(rest);
    index = std::move(places);
  }

  // The first so many of them.
  template <class Delivery>
  void refuse(std::size_t count, const std::string& reason, int attempt, Delivery& done) {
    write_result now;
    now.checkpoint = done.written.checkpoint;
    for (std::size_t i = 0; i < count; ++i) now.refused.push_back({i, reason});
    std::vector<std::size_t> open(index.size() - count);
    std::iota(open.begin(), open.end(), count);
    settle(std::move(now), open, attempt, done);
  }
};

}  // namespace

sink_set::sink_set(const config::dataflow& definition, const registry& components, const component_context& context,
                   std::string producer, std::shared_ptr<dataflow_counters> counters)
    : components_(components),
      context_(context),
      policy_(definition.delivery),
      counters_(std::move(counters)),
      hurried_(std::make_shared<wakeup>(context.executor)) {
  if (!definition.to) throw std::runtime_error("there is nothing to write to");
  const auto add = [&](const config::component_use& use, std::string step, std::string name) {
    at_ = "to " + use.component;
    one_sink made{use, std::move(name), std::move(step)};
    made.does = components_.sink_of(use, context_of(made));
    all_.push_back(std::move(made));
  };
  all_.reserve(1 + definition.outputs.size());
  add(*definition.to, "to", std::move(producer));
  const std::string& of_to = all_.front().producer;
  for (const auto& output : definition.outputs) add(output, "to " + output.name, of_to + " to " + output.name);
}

component_context sink_set::context_of(const one_sink& one) const {
  component_context its = context_;
  its.consumer = one.producer;
  its.trouble = {counters_, &counters_->sink_trouble};
  return its;
}

asio::awaitable<void> sink_set::open(const std::string& to_checkpoint, const std::vector<state_entry>& saved,
                                     commit& first) {
  all_.front().checkpoint = to_checkpoint;
  for (const state_entry& entry : saved) {
    if (entry.step != engine_state) continue;
    for (one_sink& one : all_) {
      if (entry.key == checkpoint_key + one.step) one.checkpoint = entry.value;
    }
  }
  for (one_sink& one : all_) {
    at_ = "to " + one.use.component;
    co_await one.does->open(one.checkpoint);
    if (one.checkpoint.empty()) keep(one, one.does->first_checkpoint(), first);
  }
  first.sink = checkpoint();
}

void sink_set::keep(one_sink& of, std::string checkpoint, commit& next) const {
  if (checkpoint.empty() || checkpoint == of.checkpoint) return;
  of.checkpoint = std::move(checkpoint);
  if (&of != &all_.front()) next.steps.push_back({engine_state, checkpoint_key + of.step, of.checkpoint});
}

asio::awaitable<void> sink_set::write(passage& p, commit& next) {
  co_await write_one(all_.front(), std::move(p.events), p, next);
  for (std::size_t i = 0; i < p.outputs.size(); ++i) {
    co_await write_one(all_[i + 1], std::move(p.outputs[i]), p, next);
  }
  next.sink = checkpoint();
}

asio::awaitable<void> sink_set::write_one(one_sink& to, batch left, passage& p, commit& next) {
  if (left.empty()) co_return;
  // Two steps may have sent events to one output; sinks count on events of one position lying together.
  const auto earlier = [](const event& a, const event& b) { return a.position < b.position; };
  if (!std::is_sorted(left.events.begin(), left.events.end(), earlier)) {
    std::stable_sort(left.events.begin(), left.events.end(), earlier);
  }
  const auto events = std::make_shared<const batch>(std::move(left));
  at_ = "to " + to.use.component;
  delivery done = co_await deliver(to, events);
  counters_->sink_trouble.clear();
  write_result& written = done.written;
  for (std::size_t i = 0; i < written.refused.size(); ++i) {
    refused_event& one = written.refused[i];
    p.dead.push_back(letter_of(events->events.at(one.index), to.step, std::move(one.reason)));
    p.dead.back().attempts = done.attempts[i];
  }
  const auto refused = static_cast<std::int64_t>(written.refused.size());
  p.counted.dead += refused;
  p.counted.duplicates += written.duplicates;
  p.counted.emitted += static_cast<std::int64_t>(events->size()) - refused - written.duplicates;
  keep(to, std::move(written.checkpoint), next);
}

asio::awaitable<sink_set::delivery> sink_set::deliver(one_sink& to, std::shared_ptr<const batch> events) {
  delivery done;
  undelivered left(std::move(events));
  std::size_t first = 0;  // of those that are left: the blame so far was for it
  int blamed = 0;         // attempts that failed at `first`
  int general = 0;        // and those that no event is to blame for
  int buried_in_row = 0;  // for blame, with no event taken in between
  while (true) {
    const int attempt = blamed + general + 1;
    std::string failure;
    bool by_first = false;
    const std::size_t before = left.index.size();
    try {
      if (!to.does) {
        auto made = components_.sink_of(to.use, context_of(to));
        co_await made->open(to.checkpoint);
        to.does = std::move(made);
      }
      write_result written = co_await to.does->write(left.events);
      left.settle(std::move(written), {}, attempt, done);
      co_return done;
    } catch (partly_written& part) {
      failure = part.what();
      by_first = part.by_first;
      left.settle(std::move(part.settled), part.open, attempt, done);
      if (left.index.size() < before) buried_in_row = 0;
      if (std::exchange(first, left.index.front()) != left.index.front()) blamed = 0;
    } catch (const std::exception& e) {
      failure = *e.what() ? e.what() : "it did not say why";
    }
    const int of_this_kind = by_first ? ++blamed : ++general;
    const bool last = of_this_kind >= policy_.attempts || hurry_;
    if (last && (hurry_ || policy_.then == config::delivery_policy::last_resort::hold)) throw std::runtime_error(failure);
    if (to.does) co_await to.does->abandon();
    to.does.reset();
    if (last) {
      const bool alone = by_first && ++buried_in_row <= most_buried_alone;
      left.refuse(by_first ? 1 : left.index.size(), failure, attempt, done);
      if (!alone) left.refuse(left.index.size(), "not tried: nothing was taken behind " + std::to_string(most_buried_alone) +
                                                     " others at which it failed, the last time: " + failure, 0, done);
      if (left.index.empty()) co_return done;
      first = left.index.front();
      blamed = 0;
      continue;
    }
    counters_->redelivered.fetch_add(1, std::memory_order_relaxed);
    const std::string trouble =
        fmt::format("{} did not take {} events, attempt {} of {}: {}", at_, left.events->size(), of_this_kind, policy_.attempts, failure);
    spdlog::warn("{}: {}", context_of(to).label(), trouble);
    counters_->sink_trouble.set(trouble);
    const auto until = steady::now() + std::chrono::duration_cast<steady::duration>(pause_before(policy_, of_this_kind + 1));
    bool waits = !hurry_;
    while (waits) {
      const bool woken = co_await hurried_->wait_until(until);
      waits = woken && !hurry_;
    }
  }
}

asio::awaitable<void> sink_set::close() {
  for (one_sink& one : all_) {
    at_ = "to " + one.use.component;
    if (one.does) co_await one.does->close();
  }
}

asio::awaitable<void> sink_set::abandon() {
  for (one_sink& one : all_) {
    if (one.does) co_await one.does->abandon();
  }
}

void sink_set::hurry() {
  hurry_ = true;
  hurried_->notify();
}

int sink_set::place_of(std::string_view step) const {
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (all_[i].step == step) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace penstock::runtime
