// One job: watches its triggers, admits runs, and executes them as its overlap rule and the daemon's slots allow.
//
// Control thread; held by its live pipeline and by its own coroutine. One coroutine makes every decision that starts or
// claims something, so no two decisions race; everything else (an event arrived, a run ended, a slot is free) only wakes
// it, and it looks at the state as it is then. A run that is about to be stored holds a reservation, so that
// runs made by REST, by other jobs and by triggers see each other. Without triggers, queue and runs it just waits.
// A retired job (its definition is gone) makes no new runs and ends when its last one has.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/topic.hpp"
#include "scheduler/live_run.hpp"
#include "scheduler/pipeline_revision.hpp"
#include "scheduler/policy.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

// What a trigger's cursor or last firing is kept under: stable when triggers are reordered, new when it reads elsewhere.
std::string trigger_key(const config::trigger& trigger);

class job_supervisor : public std::enable_shared_from_this<job_supervisor> {
 public:
  job_supervisor(surroundings& around, std::shared_ptr<const pipeline_revision> revision, std::string job);

  void start(bool paused);  // does nothing when it is alive already
  void redefine(std::shared_ptr<const pipeline_revision> revision);  // for triggers and new runs
  void topics_declared();  // a topic that a trigger waits for may exist now
  void pause();            // no new runs start; running ones go on
  void resume();
  void retire();
  void stop();       // like retire, but queued runs stay queued in the store for the next start
  bool idle() const {
    return active_.empty() && queue_.empty() && reserved_running_ == 0 && reserved_queued_ == 0;
  }

  // A run found unfinished at start; it waits in the queue.
  void take_over(run_record record, std::shared_ptr<const pipeline_revision> revision);

  // A run to be made of this job, from a draft with trigger, input and params. overloaded: the queue is full.
  run_record draft(trigger_kind trigger) const;
  result<prepared_run> prepare(run_record run);

  job_view view() const;
  // How far its trigger has claimed in that topic; nothing when it does not read it.
  std::optional<std::int64_t> cursor(const std::string& topic) const;
  const config::job& definition() const { return revision_->definition->jobs.at(name_); }

 private:
  // What is remembered of a trigger between two looks at it.
  struct watch {
    std::string key;
    std::shared_ptr<runtime::topic> topic;                         // topic triggers
    std::shared_ptr<runtime::topic::subscription> subscription;
    std::int64_t cursor = 0;
    std::optional<std::pair<std::int64_t, timestamp>> oldest{};    // (cursor it was read for, receive time)
    std::shared_ptr<live_run> open{};                              // the run whose claim may still grow
    timestamp last_event{};                                        // when that claim last grew
    timestamp last_firing{};                                       // schedules
    std::optional<timestamp> next_firing{};
  };
  using when = std::optional<timestamp>;  // when to look again; nothing: when woken

  asio::awaitable<void> watch_triggers();
  asio::awaitable<when> advance();
  asio::awaitable<bool> start_next_queued();
  asio::awaitable<when> advance(const config::topic_trigger& trigger, watch& w, timestamp now);
  asio::awaitable<when> advance_open(const config::topic_trigger& trigger, watch& w, timestamp now);
  asio::awaitable<void> claim(const config::topic_trigger& trigger, watch& w, std::int64_t until, timestamp now);
  asio::awaitable<when> advance(const config::cron_trigger& trigger, watch& w, timestamp now);
  asio::awaitable<when> advance(const config::every_trigger& trigger, watch& w, timestamp now);
  asio::awaitable<void> fire(trigger_kind kind, watch& w, std::vector<timestamp> times, timestamp fired);
  asio::awaitable<void> make_watches();

  bool watch_open(const std::shared_ptr<live_run>& run);
  bool may_start_now() const;
  std::string waiting_reason() const;
  std::shared_ptr<live_run> adopt(run_record record, std::shared_ptr<const pipeline_revision> revision);
  void settle(run_record run, admission how, std::shared_ptr<const pipeline_revision> revision, bool stored);
  void on_ended(const std::shared_ptr<live_run>& run);
  bool over() const;

  surroundings& around_;
  std::shared_ptr<const pipeline_revision> revision_;
  const std::string name_;
  std::shared_ptr<runtime::wakeup> changed_;

  std::vector<watch> watches_;  // as definition().triggers; `after` ones stay empty
  bool redefined_ = true;       // watches_ must be made anew
  std::deque<std::shared_ptr<live_run>> queue_;
  std::map<std::string, std::shared_ptr<live_run>> active_;
  std::int64_t reserved_running_ = 0, reserved_queued_ = 0;
  bool alive_ = false, paused_ = false, retired_ = false, stopping_ = false;
};

}  // namespace penstock::scheduler
