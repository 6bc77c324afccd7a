// One job: watches its triggers, and has its runs.
//
// Control thread; held by its live pipeline and by its own coroutine. That one coroutine lets each trigger look at what
// could be done, so no two decisions race; everything else (an event arrived, a run ended, there is room) only wakes it.
// Without anything to do it just waits. A retired job (its definition is gone) makes no new runs and ends when its last
// one has, and has been seen to.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/job_runs.hpp"
#include "scheduler/trigger_watch.hpp"

namespace penstock::scheduler {

class job_supervisor : public std::enable_shared_from_this<job_supervisor> {
 public:
  job_supervisor(surroundings& around, std::shared_ptr<const pipeline_revision> revision, std::string job);

  void start(bool paused);  // does nothing when it is alive already
  void redefine(std::shared_ptr<const pipeline_revision> revision);  // for triggers and new runs
  void clock_was_set();  // schedules, deadlines and pauses go by what it shows now
  void topics_declared();  // a topic that a trigger waits for may exist now
  void pause(bool paused);  // triggers do nothing; its pipeline's waiting runs are held by the dispatcher
  void retire();
  void stop();  // like retire, but queued runs stay queued in the store for the next start
  void let_go() { runs_->let_go(); }  // after stop(), once no run is executing any more
  bool idle() const { return runs_->idle(); }

  job_runs& runs() { return *runs_; }
  const config::job& definition() const { return runs_->definition(); }

  job_view view() const;
  // How far its trigger has claimed in that topic; nothing when it does not read it.
  std::optional<std::int64_t> cursor(const std::string& topic) const;

 private:
  using when = trigger_watch::when;

  asio::awaitable<void> watch_triggers();
  struct watched {
    std::unique_ptr<trigger_watch> watch;
    bool open = false;      // its open() has succeeded, and advance() has not failed since
    bool leaving = false;   // its trigger is gone or another one
    bool last_look = false; // what it waited for is over: it sees to that, and goes
    std::string trouble{};  // why it does not work now
  };

  asio::awaitable<when> advance();
  asio::awaitable<void> open(watched& w);
  asio::awaitable<when> advance(watched& w);
  void make_watches();
  asio::awaitable<void> close_unwatched();
  bool over() const;

  surroundings& around_;
  const std::string name_;  // PIPELINE/JOB
  const std::shared_ptr<runtime::wakeup> changed_;
  const std::shared_ptr<job_runs> runs_;
  std::vector<watched> watches_;
  bool redefined_ = true;  // watches_ must be made anew
  bool opened_ = false;    // all of them had their first look
  bool alive_ = false, paused_ = false, retired_ = false, stopping_ = false;
};

}  // namespace penstock::scheduler
