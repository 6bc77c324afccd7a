// What run_queue promises, said as plainly as possible: a list of entries, all of which is looked at for each decision.
// For tests that compare the two.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/run_queue.hpp"

namespace penstock::scheduler {

inline bool has_room(const std::optional<std::int64_t>& most, std::int64_t used) { return !most || used < *most; }

struct model_queue {
  struct waiting {
    queue_entry e;
    std::uint64_t arrival;
  };

  std::int64_t most;
  nanoseconds ageing;
  std::vector<waiting> line{};
  std::vector<queue_entry> active{};
  std::map<std::string, std::optional<std::int64_t>> pipelines{}, pools{};
  std::map<std::pair<std::string, std::string>, std::pair<std::optional<std::int64_t>, std::optional<std::int64_t>>>
      jobs{};
  std::set<std::string> held{};
  std::map<std::string, std::uint64_t> served{};
  std::uint64_t arrivals = 0, servings = 0;

  template <class Which>
  std::int64_t count(Which which) const {
    return std::count_if(active.begin(), active.end(), which);
  }
  std::int64_t free(const std::string& pool) const {
    const auto limit = pools.count(pool) ? pools.at(pool) : std::nullopt;
    if (!limit) return 0;
    std::int64_t left = *limit;
    for (const auto& a : active) left -= a.pools.count(pool) ? a.pools.at(pool) : 0;
    return left;
  }
  bool aged(const waiting& w, timestamp now) const { return now - w.e.since >= ageing; }
  static bool older(const waiting& a, const waiting& b) {
    return std::pair(a.e.since, a.arrival) < std::pair(b.e.since, b.arrival);
  }
  bool before(const waiting& a, const waiting& b, timestamp now) const {
    if (aged(a, now) != aged(b, now)) return aged(a, now);
    if (aged(a, now)) return older(a, b);
    if (a.e.priority != b.e.priority) return a.e.priority > b.e.priority;
    const auto sa = served.count(a.e.pipeline) ? served.at(a.e.pipeline) : 0;
    const auto sb = served.count(b.e.pipeline) ? served.at(b.e.pipeline) : 0;
    if (sa != sb) return sa < sb;
    return older(a, b);
  }
  static bool same_lane(const queue_entry& a, const queue_entry& b) {
    return a.pipeline == b.pipeline && a.job == b.job && a.key == b.key;
  }
  bool heads_lane(const waiting& w, timestamp now) const {
    return std::none_of(line.begin(), line.end(), [&](const waiting& o) {
      return same_lane(o.e, w.e) && o.arrival != w.arrival && before(o, w, now);
    });
  }
  bool room_but_for_pools(const queue_entry& e) const {
    const auto of_job = [&e](const queue_entry& a) { return a.pipeline == e.pipeline && a.job == e.job; };
    const auto limits = jobs.count({e.pipeline, e.job}) ? jobs.at({e.pipeline, e.job}) : decltype(jobs)::mapped_type{};
    const auto all = pipelines.count(e.pipeline) ? pipelines.at(e.pipeline) : std::nullopt;
    return !held.count(e.pipeline) && has_room(limits.first, count(of_job)) &&
           has_room(limits.second, count([&e](const queue_entry& a) { return same_lane(a, e); })) &&
           has_room(all, count([&e](const queue_entry& a) { return a.pipeline == e.pipeline; }));
  }
  bool pools_have_room(const queue_entry& e, const queue_entry* besides = nullptr) const {
    return std::all_of(e.pools.begin(), e.pools.end(), [&](const auto& need) {
      const auto kept = besides && besides->pools.count(need.first) ? besides->pools.at(need.first) : 0;
      return free(need.first) - kept >= need.second;
    });
  }
  bool possible(const queue_entry& e) const {
    return std::all_of(e.pools.begin(), e.pools.end(), [&](const auto& need) {
      return pools.count(need.first) && pools.at(need.first).value_or(-1) >= need.second;
    });
  }

  const waiting* pick(timestamp now) const {
    if (std::ssize(active) >= most) return nullptr;
    std::vector<const waiting*> able;
    const waiting* longest = nullptr;
    for (const auto& w : line) {
      if (!heads_lane(w, now) || !room_but_for_pools(w.e)) continue;
      if (pools_have_room(w.e)) {
        able.push_back(&w);
      } else if (possible(w.e) && aged(w, now) && (!longest || older(w, *longest))) {
        longest = &w;
      }
    }
    std::erase_if(able, [&](const waiting* w) {
      return longest && before(*longest, *w, now) && !pools_have_room(w->e, &longest->e);
    });
    const auto best =
        std::min_element(able.begin(), able.end(), [&](const auto* a, const auto* b) { return before(*a, *b, now); });
    return best == able.end() ? nullptr : *best;
  }

  void wait(const queue_entry& e) { line.push_back({e, ++arrivals}); }
  queue_entry take(std::uint64_t arrival) {
    const auto at = std::find_if(line.begin(), line.end(), [&](const auto& w) { return w.arrival == arrival; });
    queue_entry e = at->e;
    line.erase(at);
    return e;
  }
  std::optional<std::string> next(timestamp now) {
    const waiting* w = pick(now);
    if (!w) return std::nullopt;
    active.push_back(take(w->arrival));
    served[active.back().pipeline] = ++servings;
    return active.back().id;
  }
  bool start_now(const queue_entry& e, timestamp now) {
    wait(e);
    const waiting* w = pick(now);
    if (w && w->arrival == arrivals) return next(now).has_value();
    take(arrivals);
    return false;
  }
  void remove(const std::string& id) {
    std::erase_if(line, [&id](const waiting& w) { return w.e.id == id; });
    std::erase_if(active, [&id](const queue_entry& e) { return e.id == id; });
  }
  // The beginning of what why_waiting has to say.
  std::string why(const queue_entry& e) const {
    if (held.count(e.pipeline)) return "the pipeline is paused";
    if (!room_but_for_pools(e)) return "";
    if (!pools_have_room(e)) return possible(e) ? "pool '" : "";
    if (std::ssize(active) >= most) return "all " + std::to_string(most) + " run slots of the daemon are taken";
    return "runs that go before it are waiting";
  }
};

}  // namespace penstock::scheduler
