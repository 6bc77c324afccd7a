// Which waiting run starts next: priorities, fairness between pipelines, pools and limits. Pure: no clock, no I/O.
//
// Owned by the dispatcher; control thread. Everything that wants to start is an entry; an entry is waiting, then active
// until it ends. It may start when every resource it needs has room: the daemon, its pipeline, its job, its job's overlap
// key, its pools. Among those that may, the order is: first whoever has waited for `ageing` or longer, oldest first;
// then higher priority; then the pipeline that was served longest ago; then first come, first served. Inside one job
// and overlap key nothing overtakes except by priority or age, not even what needs other pools.
//
// Who has waited for `ageing` or longer and lacks nothing but slots of its pools keeps them: the oldest such entry is
// not overtaken at any of its pools. Without that, an entry that needs several slots would wait for ever behind a
// stream of entries that need one.
//
// What costs: adding, starting and ending an entry take logarithmic time in the number of waiting entries, jobs and
// pipelines, times the number of different sets of pools that are waited for. An entry is not looked at again before
// it is the best of its job and key, and these have room; so thousands of waiting runs cost nothing until it is their
// turn. A change of a job's limits looks at all its overlap keys.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "config/time.hpp"

namespace penstock::scheduler {

struct queue_entry {
  std::string id;        // unique among all entries
  std::string pipeline, job;
  std::string key;       // overlap key; entries of the same job and key share `key_limit`
  int priority = 5;      // 0 to 9, 9 goes first
  timestamp since{};     // waiting since
  std::map<std::string, std::int64_t> pools{};  // slots needed of each
};

class run_queue {
 public:
  // `most` active entries at once in all. `ageing`: who has waited that long goes before all priorities.
  run_queue(std::int64_t most, nanoseconds ageing);
  ~run_queue();

  // Limits may change at any time; nobody that is active is ended by it. Absent: no limit. A pool that was never set has
  // no room at all. `key_limit`: at most so many active entries of the same job and overlap key.
  void limit_pipeline(const std::string& pipeline, std::optional<std::int64_t> most);
  void limit_job(const std::string& pipeline, const std::string& job, std::optional<std::int64_t> most,
                 std::optional<std::int64_t> key_limit);
  void limit_pool(const std::string& pool, std::optional<std::int64_t> slots);  // absent: the pool is gone
  // While a pipeline is held, none of its entries starts.
  void hold_pipeline(const std::string& pipeline, bool held);
  // While all is held (the daemon stops), nothing starts.
  void hold_all();
  // The pipeline is gone: its limits, those of its jobs, its hold and when it was served last. Entries that are left of
  // it stay, without these limits.
  void forget_pipeline(const std::string& pipeline);

  // Makes it active at once, if it may start and nobody who could start too waits before it. Else false, and it is not
  // in the queue. Here and in wait() an entry whose id is known (an attempt that ended) is removed first.
  bool start_now(const queue_entry& entry, timestamp now);
  void wait(queue_entry entry);
  // The next one that may start now; it is active from here on. Nothing: none may. A `now` that is earlier than one
  // before counts as that one.
  std::optional<std::string> next(timestamp now);
  // It ended, or waits no longer. Unknown ids are ignored.
  void remove(const std::string& id);

  // Why a waiting entry does not start, in words: "pool 'db' has no free slot (2 of 2 taken)", "another run of this job
  // is active", "3 runs of this job are active, its max_active", "3 runs of this pipeline are active, its max_active",
  // "the pipeline is paused", "all 64 run slots of the daemon are taken", "runs that go before it are waiting". With an
  // overlap key "this job and overlap key" stands for "this job". Empty: it is not waiting.
  std::string why_waiting(const std::string& id) const;

  std::int64_t active() const;
  std::int64_t waiting() const;
  std::int64_t free_slots(const std::string& pool) const;  // 0 when more are taken than there are
  std::uint64_t steps() const;  // memberships changed and looked at so far: what it all has cost

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace penstock::scheduler
