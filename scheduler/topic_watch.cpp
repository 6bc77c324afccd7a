// A topic trigger: events become runs, each claimed by a cursor that moves in the transaction that makes the run.
//
// Nothing is claimed before the run can start, so what cannot start yet stays in the topic. With `where` or an overlap key
// the events are looked at first, on the batch pool, going on where the last look ended.
#include <boost/asio/strand.hpp>
#include <spdlog/spdlog.h>

#include "runtime/topic.hpp"
#include "runtime/topic_scan.hpp"
#include "scheduler/room_request.hpp"
#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {

namespace {

// A cursor that passes over events which start nothing is stored only now and then.
constexpr std::int64_t passed_over_unstored = 1000;
// Bounds a transaction, and how long the room that its runs have stands empty until it is stored.
constexpr std::size_t most_claimed_at_once = 64;

class topic_watch final : public trigger_watch {
 public:
  topic_watch(surroundings& around, std::shared_ptr<job_runs> runs, const config::topic_trigger& trigger,
              std::shared_ptr<runtime::wakeup> wake)
      : around_(around),
        runs_(std::move(runs)),
        trigger_(trigger),
        key_(trigger_key(trigger)),
        wake_(std::move(wake)),
        room_(runs_, runs_->pipeline() + "/" + runs_->job() + "/" + key_, wake_) {}

  asio::awaitable<void> open() override {
    room_.cancel();
    const auto known = around_.store.cursor(runs_->pipeline(), runs_->job(), key_);
    if (!known) co_await around_.store.set_cursor(runs_->pipeline(), runs_->job(), key_, 0);
    begin_at(known.value_or(0));
    if (open_) watch(open_);
    topic_ = around_.offered.topics.find(trigger_.topic);
    if (topic_) {
      topic_->require_reached(cursor_);
      pass_over_what_is_gone();
      subscription_ = topic_->subscribe([wake = wake_](std::int64_t) { wake->notify(); });
    } else {
      spdlog::warn("job {}/{}: its trigger's topic '{}' does not exist yet", runs_->pipeline(), runs_->job(), trigger_.topic);
    }
  }

  asio::awaitable<when> advance(timestamp now, bool quiet) override {
    looking_ = true;
    const std::shared_ptr<void> done(nullptr, [this](void*) { looking_ = false; });
    co_return co_await look_and_act(now, quiet);
  }

  const std::string& key() const override { return key_; }
  std::optional<std::int64_t> cursor(const std::string& topic) const override {
    if (topic != trigger_.topic) return std::nullopt;
    return passed_over_;  // nobody is behind for what starts nothing
  }
  std::int64_t expression_failures() const override { return expression_failures_ + seen_.failures; }
  bool misses_topic() const override { return !topic_; }
  bool busy() const override { return open_ && !open_->over(); }

  bool watch_open(const std::shared_ptr<live_run>& run) override {
    if (!topic_ || run->record().input.topic != trigger_.topic || trigger_.grace_period.count() <= 0) return false;
    if (gone_ > run->record().input.after) return false;  // it will fail for what is gone
    // Only the run whose claim ends at the cursor can grow, and not while that is being moved.
    if (looking_ || run->record().input.until != cursor_ || (open_ && open_ != run && !open_->over())) return false;
    watch(run);
    last_event_ = wall_now();
    return true;
  }

 private:
  asio::awaitable<when> look_and_act(timestamp now, bool quiet) {
    if (!topic_) co_return std::nullopt;  // misses_topic()
    if (open_ && open_->over()) {
      open_.reset();
      begin_at(cursor_);
    }
    if (open_) co_return co_await advance_open(now);
    if (quiet) {
      room_.cancel();
      co_return std::nullopt;
    }
    co_await look(trigger_.max_events);
    const auto decision = decide(trigger_, view(), now);
    switch (decision.what) {
      case topic_decision::action::wait: room_.cancel(); co_return std::nullopt;
      case topic_decision::action::wait_until: room_.cancel(); co_return decision.at;
      case topic_decision::action::claim: break;
    }
    if (!room_.ask(seen_.key, seen_.oldest.value_or(now))) co_return std::nullopt;
    co_await claim(decision.until, now);
    co_return now;
  }

  // Where no event has to be looked at, full runs behind the first are claimed with it while there is room for them: they
  // share its commit.
  std::int64_t next_full(std::int64_t until) const {
    const bool counts_only = !looks_inside() && trigger_.grace_period.count() == 0;
    return counts_only && seen_.until - until >= trigger_.max_events ? until + trigger_.max_events : 0;
  }

  // What was there before this trigger and is no longer kept, or was in a file that is lost, starts nothing.
  void pass_over_what_is_gone() {
    if (topic_->last_offset() <= cursor_) return;
    const auto kept = topic_->status();
    gone_ = kept.first_offset > 0 ? kept.first_offset - 1 : kept.last_offset;
    passed_over_ = std::max(passed_over_, gone_);
    seen_.until = std::max(seen_.until, gone_);
  }

  bool looks_inside() const { return !trigger_.where.empty() || !runs_->definition().overlap_key.empty(); }

  void begin_at(std::int64_t cursor) {
    if (cursor >= seen_.until) expression_failures_ += seen_.failures;  // else they are looked at again
    cursor_ = cursor;
    passed_over_ = std::max(passed_over_, cursor);
    seen_ = {};
    seen_.until = std::max(cursor, gone_);
  }

  void watch(std::shared_ptr<live_run> run) {
    open_ = std::move(run);
    seen_.keyed = true;  // only events of the run's own key join it
    seen_.key = open_->record().overlap_key;
  }

  // What waits behind the cursor: `seen_`.
  asio::awaitable<void> look(std::int64_t most) {
    const std::int64_t last = topic_->last_offset();
    const std::int64_t before = std::max(cursor_, gone_);
    if (looks_inside()) {
      runtime::scan_rule rule{trigger_.where, runs_->definition().overlap_key, most};
      const auto worker = asio::any_io_executor(asio::make_strand(around_.where.batch));
      seen_ = co_await runtime::scan_topic(topic_, seen_, last, std::move(rule), worker);
      if (seen_.matching == 0) passed_over_ = std::max(passed_over_, seen_.until);
      if (seen_.matching == 0 && seen_.until - cursor_ >= passed_over_unstored) {
        co_await around_.store.set_cursor(runs_->pipeline(), runs_->job(), key_, seen_.until);
        begin_at(seen_.until);
      }
      co_return;
    }
    const bool timed = trigger_.max_wait.count() > 0 || trigger_.debounce.count() > 0;
    if (timed && last > seen_.until) {
      if (!seen_.oldest) seen_.oldest = topic_->received_at(before + 1);
      seen_.newest = topic_->received_at(last);
    }
    seen_.until = last;
    seen_.matching = last - before;
    seen_.full_at = seen_.matching >= most ? before + most : 0;
  }

  topic_view view() const {
    topic_view v;
    v.cursor = cursor_;
    v.last_offset = seen_.until;
    v.matching = seen_.matching;
    v.full_at = seen_.full_at;
    v.closed = seen_.closed;
    v.oldest = seen_.oldest;
    v.newest = seen_.newest;
    return v;
  }

  std::int64_t events_until(std::int64_t until) const {
    return seen_.full_at != 0 && until == seen_.full_at ? std::min(seen_.matching, trigger_.max_events)
                                                        : seen_.matching;
  }

  asio::awaitable<void> claim(std::int64_t until, timestamp now) {
    std::vector<job_runs::claim> claims;
    claims.push_back(claimed(passed_over_, cursor_, until, events_until(until)));
    for (auto next = next_full(until); next != 0 && claims.size() < most_claimed_at_once; next = next_full(until)) {
      if (!room_.ask(seen_.key, now)) break;
      claims.push_back(claimed(until, until, next, trigger_.max_events));
      until = next;
    }
    const bool opens = claims.front().made.run.input.open;
    const auto runs = co_await runs_->start_claimed(std::move(claims));
    begin_at(until);
    if (!opens) co_return;
    watch(runs.front());
    last_event_ = now;
  }

  // A run of the events in (after, until], of which `events` count, in the room that was granted last.
  job_runs::claim claimed(std::int64_t after, std::int64_t cursor, std::int64_t until, std::int64_t events) {
    new_run made;
    made.run = runs_->draft(trigger_kind::topic);
    made.run.overlap_key = seen_.key;
    auto& input = made.run.input;
    input.type = run_input::kind::topic;
    input.topic = trigger_.topic;
    input.where = trigger_.where;
    input.after = after;
    input.until = until;
    input.open = trigger_.grace_period.count() > 0 && !seen_.closed;
    input.events = events;
    made.cursor = cursor_move{runs_->pipeline(), runs_->job(), key_, cursor, until};
    return {std::move(made), room_.take()};
  }

  // When a commit has failed that stored it all the same, it is stored.
  asio::awaitable<void> extend(std::string run, std::int64_t until, std::int64_t events, cursor_move move) {
    try {
      co_await around_.store.extend_input(std::move(run), until, events, std::move(move));
    } catch (const std::exception&) {
      if (around_.store.cursor(runs_->pipeline(), runs_->job(), key_) != until) throw;
    }
  }

  // The run that reads this trigger's events is still open: give it what came meanwhile, or close it.
  asio::awaitable<when> advance_open(timestamp now) {
    const auto run = open_;
    const std::int64_t room = trigger_.max_events - run->record().input.events;
    if (!runs_->stopping() && room > 0) co_await look(room);
    const auto& input = run->record().input;
    const open_view v{.after = input.until - input.events,  // as if every event counted
                      .until = input.until,
                      .last_offset = seen_.matching > 0 ? (seen_.full_at != 0 ? seen_.full_at : seen_.until) : input.until,
                      .last_event = last_event_};
    auto decision = decide(trigger_, v, now);
    if (runs_->stopping() || (seen_.closed && seen_.matching == 0)) decision.what = open_decision::action::close;
    switch (decision.what) {
      case open_decision::action::wait_until: co_return decision.at;
      case open_decision::action::extend: {
        const std::int64_t until = v.last_offset;
        const std::int64_t events = events_until(until);
        cursor_move move{runs_->pipeline(), runs_->job(), key_, cursor_, until};
        co_await extend(run->record().id, until, events, std::move(move));
        run->extend_input(until, events);
        begin_at(until);
        watch(run);
        last_event_ = now;
        co_return now;
      }
      case open_decision::action::close: break;
    }
    co_await around_.store.close_input(run->record().id);
    run->close_input();
    open_.reset();
    begin_at(cursor_);
    co_return now;
  }

  surroundings& around_;
  const std::shared_ptr<job_runs> runs_;
  const config::topic_trigger trigger_;
  const std::string key_;
  const std::shared_ptr<runtime::wakeup> wake_;
  room_request room_;
  std::shared_ptr<runtime::topic> topic_;  // null: does not exist yet
  std::shared_ptr<runtime::topic::subscription> subscription_;
  std::int64_t cursor_ = 0;           // as it is stored
  std::int64_t gone_ = 0;             // events up to here are no longer kept
  std::int64_t passed_over_ = 0;      // cursor_, or beyond it: up to here nothing behind it counts
  std::int64_t expression_failures_ = 0;  // among what is not in seen_ any more
  bool looking_ = false;             // advance() is on its way
  runtime::scan_state seen_;         // of the events behind the cursor
  std::shared_ptr<live_run> open_;   // the run whose claim may still grow
  timestamp last_event_{};           // when that claim last grew
};

}  // namespace

std::unique_ptr<trigger_watch> make_topic_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                                const config::topic_trigger& trigger,
                                                std::shared_ptr<runtime::wakeup> wake) {
  return std::make_unique<topic_watch>(around, std::move(runs), trigger, std::move(wake));
}

}  // namespace penstock::scheduler
