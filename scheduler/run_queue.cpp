// See run_queue.hpp. The waiting entries stand in a tournament of five levels, each with its members in two orders
// (by age, and by rank) and showing only its best of each to the level above:
//
//   lane            entries of one job and overlap key     shown while the key has room
//   job_lanes       lanes of a job, of the same pools      shown while the job has room
//   pipeline_share  jobs of a pipeline, of the same pools  shown while the pipeline has room and is not held
//   pool_set        all who need the same pools            shown in `ready` while these pools have room for one of them
//   ready           the root
//
// So each limit is looked at where it is the same for all, and changes exactly one membership when its room comes or
// goes. Whatever `ready` shows may start. A pool_set without room is shown in `blocked` instead: there stands who has
// waited longest for pools and nothing else.
//
// The head of a lane is its oldest entry once that has aged, before that its first by rank. Entries of one lane may
// need different pools (they are of different revisions of the job); `turning` knows the lanes whose head, and with
// it whose pools, will change by mere passing of time.
#include "scheduler/run_queue.hpp"

#include <algorithm>
#include <chrono>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace penstock::scheduler {
namespace {

using std::chrono::microseconds;
using limit = std::optional<std::int64_t>;
using pool_needs = std::map<std::string, std::int64_t>;

// What decides between two entries. Unique: no two have the same arrival.
struct standing {
  int priority = 0;
  std::uint64_t served = 0;  // when its pipeline was; 0: never. Only filled in above the pipeline's level
  timestamp since{};
  std::uint64_t arrival = 0;
  bool operator==(const standing&) const = default;
};

struct older {
  bool operator()(const standing& a, const standing& b) const {
    return std::tie(a.since, a.arrival) < std::tie(b.since, b.arrival);
  }
};

struct goes_first {
  bool operator()(const standing& a, const standing& b) const {
    return std::tie(b.priority, a.served, a.since, a.arrival) < std::tie(a.priority, b.served, b.since, b.arrival);
  }
};

struct item;

// A member of the tournament.
struct node {
  struct best {
    standing oldest, first;
    bool operator==(const best&) const = default;
  };

  node() = default;
  node(const node&) = delete;
  node& operator=(const node&) = delete;

  node* parent = nullptr;     // who shows it further on; null: it is not shown
  std::optional<best> shown;  // what the parent knows of it; absent: nothing, because it is empty
  item* leaf = nullptr;       // an entry; else one of the levels
  const std::uint64_t* served = nullptr;  // of a pipeline_share: its pipeline's
  std::map<standing, node*, older> by_age;
  std::map<standing, node*, goes_first> by_rank;

  std::optional<best> current() const;
};

struct pool_set;

struct pool {
  limit slots;  // absent: there is no such pool
  std::int64_t taken = 0;
  std::set<pool_set*> users;
  std::int64_t free() const { return slots ? *slots - taken : 0; }
};

struct pool_set : node {
  const pool_needs* needs = nullptr;
  std::vector<std::pair<pool*, std::int64_t>> pools;
  std::size_t users = 0;  // waiting entries and shares
};

struct pipeline_state;
struct job_state;

struct pipeline_share : node {
  pipeline_state* pipeline = nullptr;
  pool_set* set = nullptr;
  std::size_t users = 0;  // job_lanes
};

struct job_lanes : node {
  job_state* job = nullptr;
  pipeline_share* share = nullptr;
  std::size_t users = 0;  // lanes
};

struct lane : node {
  job_state* job = nullptr;
  std::string key;
  std::int64_t used = 0;        // active entries
  job_lanes* among = nullptr;   // null: nobody waits here
  std::optional<standing> turns;  // its place in `turning`
};

struct job_state {
  pipeline_state* pipeline = nullptr;
  std::string name;
  limit most, key_limit;
  std::int64_t used = 0;
  std::map<std::string, lane> lanes;
  std::map<pool_set*, job_lanes> by_pools;
};

struct pipeline_state {
  limit most;
  bool held = false;
  std::int64_t used = 0;
  std::uint64_t served = 0;
  std::map<std::string, job_state> jobs;
  std::map<pool_set*, pipeline_share> shares;
};

struct item {
  queue_entry entry;
  standing place;
  bool active = false;
  lane* in = nullptr;
  pool_set* set = nullptr;  // null while active
  node leaf{};
};

std::optional<node::best> node::current() const {
  if (leaf != nullptr) return best{leaf->place, leaf->place};
  if (by_age.empty()) return std::nullopt;
  best b{by_age.begin()->first, by_rank.begin()->first};
  if (served != nullptr) b.oldest.served = b.first.served = *served;
  return b;
}

bool has_room(const limit& most, std::int64_t used) { return !most || used < *most; }

item* oldest_of(const node* n) {
  while (n->leaf == nullptr) n = n->by_age.begin()->second;
  return n->leaf;
}

item* first_of(const node* n) {
  while (n->leaf == nullptr) n = n->by_rank.begin()->second;
  return n->leaf;
}

// Whether one of `set` can start and leave enough of its pools for one of `longest`.
bool spares(const pool_set& set, const pool_set& longest) {
  return std::all_of(longest.pools.begin(), longest.pools.end(), [&set](const auto& kept) {
    const auto same = std::find_if(set.pools.begin(), set.pools.end(),
                                   [&kept](const auto& mine) { return mine.first == kept.first; });
    return same == set.pools.end() || kept.first->free() - kept.second >= same->second;
  });
}

// "another run of X is active", "3 runs of X are active, its max_active"
std::string full(std::int64_t used, std::int64_t most, const std::string& of_what) {
  if (used == 1 && most == 1) return "another run of " + of_what + " is active";
  const std::string is = used == 1 ? "run of " + of_what + " is" : "runs of " + of_what + " are";
  if (used == most) return fmt::format("{} {} active, its max_active", used, is);
  return fmt::format("{} {} active, its max_active is {}", used, is, most);
}

std::string lacking(const std::string& name, const pool& p, std::int64_t need) {
  if (!p.slots) return fmt::format("there is no pool '{}'", name);
  const auto slots = *p.slots == 1 ? "slot" : "slots";
  if (need > *p.slots) return fmt::format("pool '{}' has {} {}, {} needed", name, *p.slots, slots,
                                          need == 1 ? "1 is" : fmt::format("{} are", need));
  if (p.free() <= 0) return fmt::format("pool '{}' has no free slot ({} of {} taken)", name, p.taken, *p.slots);
  return fmt::format("pool '{}' has {} of {} slots free, {} are needed", name, p.free(), *p.slots, need);
}

}  // namespace

struct run_queue::impl {
  impl(std::int64_t slots, nanoseconds age)
      : most(slots), ageing(std::max(std::chrono::ceil<microseconds>(age), microseconds{0})) {}

  const std::int64_t most;
  const microseconds ageing;
  bool held = false;
  timestamp latest{};  // time does not run backwards here
  std::uint64_t arrivals = 0, servings = 0, steps = 0;
  std::int64_t active = 0;
  std::unordered_map<std::string, std::unique_ptr<item>> items;
  std::map<std::string, pipeline_state> pipelines;
  std::map<std::string, pool> pools;
  std::map<pool_needs, pool_set> pool_sets;
  std::map<standing, lane*, older> turning;
  node ready, blocked;  // of pool_sets

  bool aged(const standing& s) const { return latest - s.since >= ageing; }
  void pass_time(timestamp now);
  item* pick();
  item& add(queue_entry entry);
  void start(item& i);
  void remove(const std::string& id);

  // ---- showing: members go to the parent given, and the levels above learn of it ----
  void show(node& n, node* parent);
  void place(lane& l) { show(l, has_room(l.job->key_limit, l.used) ? l.among : nullptr); }
  void place(job_lanes& j) { show(j, has_room(j.job->most, j.job->used) ? j.share : nullptr); }
  void place(pipeline_share& s) {
    show(s, !s.pipeline->held && has_room(s.pipeline->most, s.pipeline->used) ? s.set : nullptr);
  }
  void place(pool_set& s);
  void place_users(pool& p) {
    for (pool_set* s : p.users) place(*s);
  }
  void place_all(pipeline_state& p) {
    for (auto& [_, share] : p.shares) place(share);
  }
  void place_all(job_state& j) {
    for (auto& [_, lanes] : j.by_pools) place(lanes);
  }
  void settle(lane& l);
  void use(item& i, int sign);

  // ---- finding or making the levels, and dropping them when nobody uses them ----
  pipeline_state& pipeline(const std::string& name) { return pipelines[name]; }
  job_state& job(const std::string& pipeline, const std::string& name);
  lane& lane_of(const queue_entry& e);
  pool_set& set_of(const pool_needs& needs);
  job_lanes& lanes_of(job_state& j, pool_set& s);
  void drop_use(pool_set& s);
  void drop_use(pipeline_share& s);
  void drop_use(job_lanes& j);
  void drop_unused(job_state& j);
  void drop_unused(const std::string& pool_name);
};

void run_queue::impl::show(node& n, node* parent) {
  std::optional<node::best> now;
  if (parent != nullptr) now = n.current();
  if (n.parent == parent && n.shown == now) return;
  node* const before = n.parent;
  if (n.shown) {
    before->by_age.erase(n.shown->oldest);
    before->by_rank.erase(n.shown->first);
    ++steps;
  }
  n.parent = parent;
  n.shown = now;
  if (now) {
    parent->by_age.emplace(now->oldest, &n);
    parent->by_rank.emplace(now->first, &n);
    ++steps;
  }
  if (before != nullptr && before != parent) show(*before, before->parent);
  if (parent != nullptr) show(*parent, parent->parent);
}

void run_queue::impl::place(pool_set& s) {
  bool room = true;
  bool possible = true;
  for (const auto& [p, need] : s.pools) {
    room = room && p->free() >= need;
    possible = possible && p->slots.value_or(0) >= need;
  }
  node* const where = room ? &ready : possible ? &blocked : nullptr;
  show(s, where);
}

// After its entries or `latest` have changed: which pools its head needs, and where it is shown.
void run_queue::impl::settle(lane& l) {
  if (l.turns) turning.erase(*std::exchange(l.turns, std::nullopt));
  job_lanes* const before = l.among;
  if (l.by_age.empty()) {
    l.among = nullptr;
  } else {
    const item& oldest = *oldest_of(&l);
    const item& first = *first_of(&l);
    const bool by_age = aged(oldest.place);
    if (oldest.set != first.set && !by_age) {
      l.turns = oldest.place;
      turning.emplace(oldest.place, &l);
    }
    l.among = &lanes_of(*l.job, by_age ? *oldest.set : *first.set);
    ++l.among->users;
  }
  place(l);
  if (before != nullptr) drop_use(*before);
  if (l.among == nullptr && l.used == 0) {
    job_state& j = *l.job;
    j.lanes.erase(std::string(l.key));
    drop_unused(j);
  }
}

// It takes (+1) or gives back (-1) what it needs.
void run_queue::impl::use(item& i, int sign) {
  lane& l = *i.in;
  job_state& j = *l.job;
  pipeline_state& p = *j.pipeline;
  active += sign;
  l.used += sign;
  j.used += sign;
  p.used += sign;
  if (sign > 0) p.served = ++servings;
  place_all(j);
  place_all(p);
  for (const auto& [name, need] : i.entry.pools) {
    pool& taken = pools[name];
    taken.taken += sign * need;
    place_users(taken);
    drop_unused(name);
  }
  settle(l);  // last: it may drop the lane and its job
}

void run_queue::impl::pass_time(timestamp now) {
  latest = std::max(latest, now);
  while (!turning.empty() && aged(turning.begin()->first)) settle(*turning.begin()->second);
}

// The one that goes next, if any may. Who has waited longest for pools, beyond `ageing`, is not overtaken there.
item* run_queue::impl::pick() {
  if (held || active >= most) return nullptr;
  const std::pair<const standing, node*>* longest = nullptr;
  if (!blocked.by_age.empty() && aged(blocked.by_age.begin()->first)) longest = &*blocked.by_age.begin();
  const auto may = [&](node* set) {
    ++steps;
    return longest == nullptr ||
           spares(*static_cast<pool_set*>(set), *static_cast<const pool_set*>(longest->second));
  };
  for (const auto& [place, set] : ready.by_age) {
    if (!aged(place)) break;
    if ((longest != nullptr && older{}(place, longest->first)) || may(set)) return oldest_of(set);
  }
  for (const auto& [place, set] : ready.by_rank) {
    if (may(set)) return first_of(set);
  }
  return nullptr;
}

item& run_queue::impl::add(queue_entry entry) {
  remove(entry.id);
  std::erase_if(entry.pools, [](const auto& need) { return need.second <= 0; });
  auto made = std::make_unique<item>();
  item& i = *made;
  i.place = {entry.priority, 0, entry.since, ++arrivals};
  i.leaf.leaf = &i;
  i.in = &lane_of(entry);
  i.set = &set_of(entry.pools);
  ++i.set->users;
  i.entry = std::move(entry);
  items.emplace(i.entry.id, std::move(made));
  show(i.leaf, i.in);
  settle(*i.in);
  return i;
}

void run_queue::impl::start(item& i) {
  show(i.leaf, nullptr);
  i.active = true;
  pool_set& set = *std::exchange(i.set, nullptr);
  use(i, +1);
  drop_use(set);
}

void run_queue::impl::remove(const std::string& id) {
  const auto found = items.find(id);
  if (found == items.end()) return;
  item& i = *found->second;
  if (i.active) {
    use(i, -1);
  } else {
    show(i.leaf, nullptr);
    settle(*i.in);
    drop_use(*i.set);
  }
  items.erase(found);
}

job_state& run_queue::impl::job(const std::string& pipeline_name, const std::string& name) {
  pipeline_state& p = pipeline(pipeline_name);
  job_state& j = p.jobs[name];
  j.pipeline = &p;
  j.name = name;
  return j;
}

lane& run_queue::impl::lane_of(const queue_entry& e) {
  job_state& j = job(e.pipeline, e.job);
  lane& l = j.lanes[e.key];
  l.job = &j;
  l.key = e.key;
  return l;
}

pool_set& run_queue::impl::set_of(const pool_needs& needs) {
  const auto [at, is_new] = pool_sets.try_emplace(needs);
  pool_set& s = at->second;
  if (!is_new) return s;
  s.needs = &at->first;
  for (const auto& [name, need] : needs) {
    pool& p = pools[name];
    p.users.insert(&s);
    s.pools.emplace_back(&p, need);
  }
  place(s);
  return s;
}

job_lanes& run_queue::impl::lanes_of(job_state& j, pool_set& s) {
  const auto [at, is_new] = j.by_pools.try_emplace(&s);
  job_lanes& lanes = at->second;
  if (!is_new) return lanes;
  pipeline_state& p = *j.pipeline;
  pipeline_share& share = p.shares[&s];
  if (share.set == nullptr) {
    share.pipeline = &p;
    share.set = &s;
    share.served = &p.served;
    ++s.users;
    place(share);
  }
  ++share.users;
  lanes.job = &j;
  lanes.share = &share;
  place(lanes);
  return lanes;
}

void run_queue::impl::drop_use(job_lanes& j) {
  if (--j.users > 0) return;
  show(j, nullptr);
  pipeline_share& share = *j.share;
  j.job->by_pools.erase(share.set);
  drop_use(share);
}

void run_queue::impl::drop_use(pipeline_share& s) {
  if (--s.users > 0) return;
  show(s, nullptr);
  pool_set& set = *s.set;
  s.pipeline->shares.erase(&set);
  drop_use(set);
}

void run_queue::impl::drop_use(pool_set& s) {
  if (--s.users > 0) return;
  show(s, nullptr);
  for (const auto& [p, need] : s.pools) p->users.erase(&s);
  const pool_needs needs = *s.needs;
  pool_sets.erase(needs);
  for (const auto& [name, need] : needs) drop_unused(name);
}

void run_queue::impl::drop_unused(job_state& j) {
  if (j.lanes.empty() && !j.most && !j.key_limit) j.pipeline->jobs.erase(std::string(j.name));
}

void run_queue::impl::drop_unused(const std::string& pool_name) {
  const auto at = pools.find(pool_name);
  if (at == pools.end()) return;
  const pool& p = at->second;
  if (!p.slots && p.taken == 0 && p.users.empty()) pools.erase(at);
}

// ---- the public face ----

run_queue::run_queue(std::int64_t most, nanoseconds ageing) : impl_(std::make_unique<impl>(most, ageing)) {}
run_queue::~run_queue() = default;

void run_queue::limit_pipeline(const std::string& pipeline, std::optional<std::int64_t> most) {
  pipeline_state& p = impl_->pipeline(pipeline);
  p.most = most;
  impl_->place_all(p);
}

void run_queue::limit_job(const std::string& pipeline, const std::string& job, std::optional<std::int64_t> most,
                          std::optional<std::int64_t> key_limit) {
  job_state& j = impl_->job(pipeline, job);
  j.most = most;
  j.key_limit = key_limit;
  impl_->place_all(j);
  for (auto& [_, l] : j.lanes) impl_->place(l);
  impl_->drop_unused(j);
}

void run_queue::limit_pool(const std::string& name, std::optional<std::int64_t> slots) {
  pool& p = impl_->pools[name];
  p.slots = slots;
  impl_->place_users(p);
  impl_->drop_unused(name);
}

void run_queue::hold_pipeline(const std::string& pipeline, bool held) {
  pipeline_state& p = impl_->pipeline(pipeline);
  p.held = held;
  impl_->place_all(p);
}

void run_queue::forget_pipeline(const std::string& pipeline) {
  const auto at = impl_->pipelines.find(pipeline);
  if (at == impl_->pipelines.end()) return;
  pipeline_state& p = at->second;
  p.most.reset();
  p.held = false;
  p.served = 0;
  impl_->place_all(p);
  std::vector<std::string> jobs;
  for (const auto& [name, _] : p.jobs) jobs.push_back(name);
  for (const auto& name : jobs) limit_job(pipeline, name, std::nullopt, std::nullopt);
  if (p.jobs.empty()) impl_->pipelines.erase(at);
}

void run_queue::hold_all() { impl_->held = true; }

bool run_queue::start_now(const queue_entry& entry, timestamp now) {
  impl_->pass_time(now);
  item& i = impl_->add(entry);
  if (impl_->pick() == &i) {
    impl_->start(i);
    return true;
  }
  impl_->remove(entry.id);
  return false;
}

void run_queue::wait(queue_entry entry) { impl_->add(std::move(entry)); }

std::optional<std::string> run_queue::next(timestamp now) {
  impl_->pass_time(now);
  item* const i = impl_->pick();
  if (i == nullptr) return std::nullopt;
  impl_->start(*i);
  return i->entry.id;
}

void run_queue::remove(const std::string& id) { impl_->remove(id); }

std::string run_queue::why_waiting(const std::string& id) const {
  const auto found = impl_->items.find(id);
  if (found == impl_->items.end() || found->second->active) return "";
  const item& i = *found->second;
  const lane& l = *i.in;
  const job_state& j = *l.job;
  const pipeline_state& p = *j.pipeline;
  if (impl_->held) return "the daemon is stopping";
  if (p.held) return "the pipeline is paused";
  if (!has_room(j.key_limit, l.used)) {
    return full(l.used, *j.key_limit, l.key.empty() ? "this job" : "this job and overlap key");
  }
  if (!has_room(j.most, j.used)) return full(j.used, *j.most, "this job");
  if (!has_room(p.most, p.used)) return full(p.used, *p.most, "this pipeline");
  for (const auto& [name, need] : i.entry.pools) {
    const pool& needed = impl_->pools.at(name);
    if (needed.free() < need) return lacking(name, needed, need);
  }
  if (impl_->active >= impl_->most) return fmt::format("all {} run slots of the daemon are taken", impl_->most);
  return "runs that go before it are waiting";
}

std::int64_t run_queue::active() const { return impl_->active; }
std::int64_t run_queue::waiting() const { return std::ssize(impl_->items) - impl_->active; }

std::int64_t run_queue::free_slots(const std::string& pool) const {
  const auto at = impl_->pools.find(pool);
  return at == impl_->pools.end() ? 0 : std::max<std::int64_t>(at->second.free(), 0);
}

std::uint64_t run_queue::steps() const { return impl_->steps; }

}  // namespace penstock::scheduler
