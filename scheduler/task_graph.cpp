// See task_graph.hpp. A task goes through its phases once in an attempt; each need that ends counts down in the tasks
// that have it, and the last one makes them due. What is due waits in a list until next() has told of it.
#include "scheduler/task_graph.hpp"

#include <algorithm>
#include <deque>
#include <stdexcept>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

namespace penstock::scheduler {
namespace {

enum class phase {
  waiting,    // some need has not ended
  deciding,   // the caller evaluates its `if`
  expanding,  // the caller evaluates its for_each
  fanned,     // its instances run
  started,    // the caller runs it
  over,
};

struct instance {
  std::size_t record = 0;
  run_state state = run_state::queued;
};

struct task_node {
  phase at = phase::waiting;
  run_state state = run_state::queued;  // once it is over
  std::vector<std::size_t> needs;       // as written
  std::size_t unmet = 0;                // needs that have not ended
  std::vector<std::size_t> dependents;
  // Of a task that fans out.
  bool expanded = false;
  std::vector<instance> instances;
  std::size_t next_instance = 0;  // the first that was not looked at
  std::size_t running = 0;        // instances started and not ended
  std::size_t left = 0;           // instances that have not ended
};

// "render[3]" -> "render"; nothing when it is no instance's name.
std::string_view task_name(std::string_view name) {
  const auto bracket = name.rfind('[');
  return bracket == std::string_view::npos ? std::string_view{} : name.substr(0, bracket);
}

std::string_view ended_how(run_state s) { return s == run_state::skipped ? "was skipped" : token(s); }

}  // namespace

struct task_graph::impl {
  explicit impl(const config::job& j) : job(j), tasks(j.tasks.size()) {}

  const config::job& job;
  std::vector<task_node> tasks;
  std::vector<std::size_t> owner;           // of each record: its task
  std::vector<std::size_t> place;           // of each instance's record: its index in `instances`
  std::vector<task_step> told;              // what next() tells
  std::deque<std::size_t> met;              // tasks whose last need has ended
  std::size_t busy = 0;                     // steps told that the caller has to answer

  void link();
  void adopt(const std::vector<task_record>& records);
  void own(std::size_t record, std::size_t task, std::size_t nth);
  void settle();

  void consider(std::size_t task);
  void begin(std::size_t task);
  void fan(std::size_t task);
  void close(std::size_t task);
  void skip(std::size_t task, const std::string& reason);
  void skip_instances(std::size_t task, const std::string& reason);
  void finish(std::size_t task, run_state how);
  void ask(task_step::action what, std::size_t record) {
    told.push_back({what, record});
    ++busy;
  }
  bool met_by(std::size_t task) const {
    const run_state s = tasks[task].state;
    return s == run_state::succeeded ||
           ((s == run_state::failed || s == run_state::timed_out) && job.tasks[task].allow_failure);
  }
};

void task_graph::impl::own(std::size_t record, std::size_t task, std::size_t nth) {
  if (owner.size() <= record) {
    owner.resize(record + 1);
    place.resize(record + 1);
  }
  owner[record] = task;
  place[record] = nth;
}

// Needs by index instead of by name.
void task_graph::impl::link() {
  std::unordered_map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < tasks.size(); ++i) index.emplace(job.tasks[i].name, i);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    for (const std::string& need : job.tasks[i].needs) {
      const std::size_t other = index.at(need);
      tasks[i].needs.push_back(other);
      tasks[other].dependents.push_back(i);
    }
    tasks[i].unmet = tasks[i].needs.size();
    own(i, i, 0);
  }
}

// What earlier attempts have left.
void task_graph::impl::adopt(const std::vector<task_record>& records) {
  std::unordered_map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < tasks.size(); ++i) index.emplace(job.tasks[i].name, i);
  for (std::size_t r = tasks.size(); r < records.size(); ++r) {
    const std::size_t i = index.at(task_name(records[r].name));
    task_node& t = tasks[i];
    own(r, i, t.instances.size());
    const bool done = records[r].state == run_state::succeeded;
    t.instances.push_back({r, done ? run_state::succeeded : run_state::queued});
    t.expanded = true;
    if (!done) ++t.left;
  }
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (records.at(i).state == run_state::succeeded) finish(i, run_state::succeeded);
  }
  met.clear();  // to be in the definition's order
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (tasks[i].unmet == 0) met.push_back(i);
  }
}

// Considers each task whose needs have ended; what that skips or ends may bring further ones.
void task_graph::impl::settle() {
  while (!met.empty()) {
    const std::size_t i = met.front();
    met.pop_front();
    if (tasks[i].at == phase::waiting) consider(i);
  }
}

void task_graph::impl::consider(std::size_t i) {
  const config::task& task = job.tasks[i];
  if (!task.condition.empty()) {
    tasks[i].at = phase::deciding;
    return ask(task_step::action::decide, i);
  }
  const auto& needs = tasks[i].needs;
  const auto bad = std::find_if(needs.begin(), needs.end(), [this](std::size_t n) { return !met_by(n); });
  if (bad == needs.end()) return begin(i);
  skip(i, fmt::format("its need '{}' {}", job.tasks[*bad].name, ended_how(tasks[*bad].state)));
}

// Its needs have ended and its `if` holds, or it has none.
void task_graph::impl::begin(std::size_t i) {
  task_node& t = tasks[i];
  if (!job.tasks[i].fans_out) {
    t.at = phase::started;
    return ask(task_step::action::start, i);
  }
  if (!t.expanded) {
    t.at = phase::expanding;
    return ask(task_step::action::expand, i);
  }
  t.at = phase::fanned;
  fan(i);
}

// Starts as many instances as may run, or ends the task after the last one.
void task_graph::impl::fan(std::size_t i) {
  task_node& t = tasks[i];
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(job.tasks[i].max_parallel, 1));
  for (; t.next_instance < t.instances.size() && t.running < most; ++t.next_instance) {
    const instance& next = t.instances[t.next_instance];
    if (next.state == run_state::succeeded) continue;
    ++t.running;
    ask(task_step::action::start, next.record);
  }
  if (t.left == 0) close(i);
}

void task_graph::impl::close(std::size_t i) {
  const task_node& t = tasks[i];
  const auto failed = [](const instance& x) { return x.state != run_state::succeeded; };
  const auto bad = std::find_if(t.instances.begin(), t.instances.end(), failed);
  const run_state how = bad == t.instances.end() ? run_state::succeeded : run_state::failed;
  std::string reason;
  if (bad != t.instances.end()) {
    const auto count = std::count_if(bad, t.instances.end(), failed);
    const auto nth = static_cast<std::size_t>(bad - t.instances.begin());
    reason = fmt::format("{} of {} instances did not succeed, first {}", count, t.instances.size(),
                         instance_name(job.tasks[i].name, nth));
  }
  told.push_back({task_step::action::end, i, reason, how});
  finish(i, how);
}

void task_graph::impl::skip(std::size_t i, const std::string& reason) {
  told.push_back({task_step::action::skip, i, reason});
  skip_instances(i, reason);
  finish(i, run_state::skipped);
}

// Those that it has from an earlier attempt.
void task_graph::impl::skip_instances(std::size_t i, const std::string& reason) {
  for (instance& x : tasks[i].instances) {
    if (x.state == run_state::succeeded) continue;
    x.state = run_state::skipped;
    told.push_back({task_step::action::skip, x.record, reason});
  }
}

void task_graph::impl::finish(std::size_t i, run_state how) {
  tasks[i].at = phase::over;
  tasks[i].state = how;
  for (const std::size_t d : tasks[i].dependents) {
    if (--tasks[d].unmet == 0) met.push_back(d);
  }
}

task_graph::task_graph(const config::job& job, const std::vector<task_record>& records)
    : impl_(std::make_unique<impl>(job)) {
  impl_->link();
  impl_->adopt(records);
  impl_->settle();
}

task_graph::~task_graph() = default;

std::vector<task_step> task_graph::next() { return std::exchange(impl_->told, {}); }

void task_graph::decided(std::size_t record, bool holds) {
  const std::size_t i = impl_->owner.at(record);
  if (impl_->tasks[i].at != phase::deciding) return;
  --impl_->busy;
  if (holds) {
    impl_->begin(i);
  } else {
    impl_->skip(i, "its condition does not hold");
  }
  impl_->settle();
}

void task_graph::expanded(std::size_t record, std::size_t first, std::size_t count) {
  const std::size_t i = impl_->owner.at(record);
  task_node& t = impl_->tasks[i];
  if (t.at != phase::expanding) return;
  --impl_->busy;
  t.expanded = true;
  for (std::size_t k = 0; k < count; ++k) {
    impl_->own(first + k, i, k);
    t.instances.push_back({first + k});
  }
  t.left = count;
  t.at = phase::fanned;
  impl_->fan(i);
  impl_->settle();
}

void task_graph::ended(std::size_t record, run_state how) {
  if (!is_final(how)) throw std::logic_error("task_graph: a record has ended, but its state is not final");
  impl& g = *impl_;
  const std::size_t i = g.owner.at(record);
  task_node& t = g.tasks[i];
  if (record < g.tasks.size()) {
    if (t.at != phase::started && t.at != phase::deciding && t.at != phase::expanding) return;
    --g.busy;
    if (how != run_state::succeeded) g.skip_instances(i, fmt::format("its task {}", ended_how(how)));
    g.finish(i, how);
  } else {
    instance& x = t.instances.at(g.place[record]);
    if (t.at != phase::fanned || g.place[record] >= t.next_instance || is_final(x.state)) return;
    x.state = how;
    --g.busy;
    --t.running;
    --t.left;
    g.fan(i);
  }
  g.settle();
}

bool task_graph::idle() const { return impl_->busy == 0 && impl_->told.empty(); }

std::size_t task_graph::task_of(std::size_t record) const { return impl_->owner.at(record); }

std::string instance_name(const std::string& task, std::size_t index) { return fmt::format("{}[{}]", task, index); }

}  // namespace penstock::scheduler
