// One trigger of one job, as it is watched: a topic, a schedule, a folder, a hook.
//
// Control thread; owned by the job's supervisor, which calls advance() again and again from one coroutine, so that no two
// decisions of a job race. A watch only wakes that coroutine (`wake`) when something happened; what is to be done it finds
// out when it is asked. Destroying a watch gives back the room that it asked for.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>

#include "runtime/wakeup.hpp"
#include "scheduler/job_runs.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class trigger_watch {
 public:
  // Nothing: when woken.
  using when = std::optional<timestamp>;

  virtual ~trigger_watch() = default;

  // Reads where it stands, or writes where it begins when it is seen for the first time. First, and again after
  // advance() has failed; gives back what it asked for.
  virtual asio::awaitable<void> open() { co_return; }
  // One look at what could be done at `now`; returns when to look again. `quiet`: the pipeline is paused or the job is
  // leaving, so nothing new is to be started.
  virtual asio::awaitable<when> advance(timestamp now, bool quiet) = 0;

  // What it watches, the same when triggers are reordered: what is kept of it is kept under this.
  virtual const std::string& key() const = 0;
  virtual std::optional<timestamp> next_firing() const { return std::nullopt; }
  // A topic that its trigger reads and how far it has claimed.
  virtual std::optional<std::int64_t> cursor(const std::string& topic) const {
    (void)topic;
    return std::nullopt;
  }
  // It waits for a topic that does not exist yet.
  virtual bool misses_topic() const { return false; }
  // Takes a run whose claim is still open, to extend and close it; false: it is not of this trigger.
  virtual bool watch_open(const std::shared_ptr<live_run>& run) {
    (void)run;
    return false;
  }
  // It still has to see to a run that it made, also when its job is leaving: to close what the run reads, or to put away
  // its files.
  virtual bool busy() const { return false; }
  // The same, also when only the trigger is gone or another one: nobody else would.
  virtual bool irreplaceable() const { return false; }
  // Events for which an expression failed, since it was made.
  virtual std::int64_t expression_failures() const { return 0; }
};

// What a trigger's cursor or last firing is kept under.
std::string trigger_key(const config::trigger& trigger);
// "topic orders, up to 500 events or 5m".
std::string in_words(const config::trigger& trigger);

// The watch of a trigger; null for `after`, which the end of the other run drives.
std::unique_ptr<trigger_watch> make_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                          const config::trigger& trigger, std::shared_ptr<runtime::wakeup> wake);

// Each in its own file.
std::unique_ptr<trigger_watch> make_topic_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                                const config::topic_trigger& trigger,
                                                std::shared_ptr<runtime::wakeup> wake);
std::unique_ptr<trigger_watch> make_cron_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                               const config::cron_trigger& trigger);
std::unique_ptr<trigger_watch> make_every_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                                const config::every_trigger& trigger);
std::unique_ptr<trigger_watch> make_at_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                             const config::at_trigger& trigger);
std::unique_ptr<trigger_watch> make_file_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                               const config::file_trigger& trigger, std::shared_ptr<runtime::wakeup> wake);
std::unique_ptr<trigger_watch> make_webhook_watch(surroundings& around, std::shared_ptr<job_runs> runs,
                                                  const config::webhook_trigger& trigger);

}  // namespace penstock::scheduler
