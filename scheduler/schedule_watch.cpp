// Schedules: cron, every and at. The last firing is stored in the transaction that makes its runs, so a time is neither
// missed nor doubled by a crash.
#include <chrono>

#include "scheduler/cron.hpp"
#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {

namespace {

using std::chrono::microseconds;

// A schedule that fires no later than this after its time was not missed; the policy for missed ones is for longer gaps.
constexpr std::chrono::minutes on_time{1};
constexpr std::chrono::hours most_set_back{3};
constexpr std::size_t most_missed = 1000;  // at once; the rest comes right behind

class schedule_watch : public trigger_watch {
 public:
  schedule_watch(surroundings& around, std::shared_ptr<job_runs> runs, std::string key)
      : around_(around), runs_(std::move(runs)), key_(std::move(key)) {}

  const std::string& key() const override { return key_; }
  std::optional<timestamp> next_firing() const override { return next_; }

 protected:
  std::optional<timestamp> stored_firing() {
    return around_.store.last_firing(runs_->pipeline(), runs_->job(), key_);
  }

  asio::awaitable<void> store_firing(timestamp fired) {
    schedule_move move{runs_->pipeline(), runs_->job(), key_, fired};
    co_await around_.store.set_firing(std::move(move));
  }

  // Makes one run for each time; one that is refused is recorded as skipped.
  asio::awaitable<void> fire(trigger_kind kind, std::vector<timestamp> times, timestamp fired) {
    if (times.empty()) {
      co_await store_firing(fired);
      co_return;
    }
    std::vector<run_record> runs;
    for (const auto at : times) {
      runs.push_back(runs_->draft(kind));
      runs.back().scheduled_for = at;
    }
    std::optional<schedule_move> move = schedule_move{runs_->pipeline(), runs_->job(), key_, fired};
    co_await runs_->make_all(std::move(runs), std::move(move));
  }

  surroundings& around_;
  const std::shared_ptr<job_runs> runs_;
  const std::string key_;
  std::optional<timestamp> next_;
};

class cron_watch final : public schedule_watch {
 public:
  cron_watch(surroundings& around, std::shared_ptr<job_runs> runs, const config::cron_trigger& trigger)
      : schedule_watch(around, std::move(runs), trigger_key(trigger)), trigger_(trigger) {}

  asio::awaitable<void> open() override {
    const auto known = stored_firing();
    last_ = known.value_or(wall_now());
    if (!known) co_await store_firing(last_);
  }

  asio::awaitable<when> advance(timestamp now, bool quiet) override {
    // The clock was set back: up to a few hours, as cron(8) does it, the times that come again do not fire again.
    if (last_ - now > most_set_back) last_ = now;
    const auto due = penstock::scheduler::next_firing(trigger_.expression, trigger_.timezone, last_);
    next_ = quiet ? std::nullopt : due;
    if (quiet) co_return std::nullopt;
    if (!due || *due > now) co_return due;
    auto times = due_times(*due, now);
    const bool more = times.size() == most_missed;
    const auto fired = more ? times.back() : now;
    co_await fire(trigger_kind::cron, std::move(times), fired);
    last_ = fired;
    co_return now;
  }

 private:
  // `due` is the first since the last. What is late by no more than a busy machine makes it was not missed.
  std::vector<timestamp> due_times(timestamp due, timestamp now) const {
    if (now - due > on_time && trigger_.missed != config::missed_policy::skip) {
      return missed_firings(trigger_, last_, now, most_missed);
    }
    std::vector<timestamp> times;
    const auto following = [this](timestamp t) {
      return penstock::scheduler::next_firing(trigger_.expression, trigger_.timezone, t);
    };
    const auto missed_before = now - on_time - microseconds(1);
    for (auto t = due >= missed_before ? std::optional(due) : following(missed_before); t && *t <= now; t = following(*t)) times.push_back(*t);
    return times;
  }

  const config::cron_trigger trigger_;
  timestamp last_{};
};

class every_watch final : public schedule_watch {
 public:
  every_watch(surroundings& around, std::shared_ptr<job_runs> runs, const config::every_trigger& trigger)
      : schedule_watch(around, std::move(runs), trigger_key(trigger)), trigger_(trigger) {}

  asio::awaitable<void> open() override {
    const auto known = stored_firing();
    last_ = known.value_or(wall_now());
    if (!known) co_await store_firing(last_);
  }

  asio::awaitable<when> advance(timestamp now, bool quiet) override {
    next_.reset();
    if (quiet) co_return std::nullopt;
    if (last_ > now) last_ = now;  // the clock was set back
    const auto next = next_every(trigger_, last_, now);
    const auto due = next - std::chrono::duration_cast<microseconds>(trigger_.interval);
    next_ = next;
    if (due <= last_) co_return next;
    if (runs_->any_waiting(trigger_kind::every)) co_return std::nullopt;  // work is longer than the interval: back to back
    std::vector<timestamp> times{due};
    co_await fire(trigger_kind::every, std::move(times), due);
    last_ = due;
    co_return now;
  }

 private:
  const config::every_trigger trigger_;
  timestamp last_{};
};

class at_watch final : public schedule_watch {
 public:
  at_watch(surroundings& around, std::shared_ptr<job_runs> runs, const config::at_trigger& trigger)
      : schedule_watch(around, std::move(runs), trigger_key(trigger)), trigger_(trigger) {}

  asio::awaitable<void> open() override {
    fired_ = stored_firing();
    co_return;
  }

  asio::awaitable<when> advance(timestamp now, bool quiet) override {
    next_ = quiet ? std::nullopt : next_at(trigger_, fired_);
    if (!next_ || *next_ > now) co_return next_;
    std::vector<timestamp> times{*next_};
    co_await fire(trigger_kind::at, std::move(times), *next_);
    fired_ = trigger_.time;
    next_.reset();
    co_return std::nullopt;
  }

 private:
  const config::at_trigger trigger_;
  std::optional<timestamp> fired_;
};

}  // namespace

std::unique_ptr<trigger_watch> make_cron_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                               const config::cron_trigger& trigger) {
  return std::make_unique<cron_watch>(around, std::move(runs), trigger);
}

std::unique_ptr<trigger_watch> make_every_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                                const config::every_trigger& trigger) {
  return std::make_unique<every_watch>(around, std::move(runs), trigger);
}

std::unique_ptr<trigger_watch> make_at_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                             const config::at_trigger& trigger) {
  return std::make_unique<at_watch>(around, std::move(runs), trigger);
}

}  // namespace penstock::scheduler
