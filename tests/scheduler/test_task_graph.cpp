// The order of a run's tasks: the rules one by one, then random graphs against a model that looks at every task and
// every need each time, over several attempts.
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "scheduler/task_graph.hpp"

using namespace penstock;
using namespace penstock::scheduler;

namespace {

using enum run_state;
using action = task_step::action;

config::task task(const std::string& name, std::vector<std::string> needs = {}, std::int64_t max_parallel = 0) {
  config::task t;
  t.name = name;
  t.does = config::command{};
  t.needs = std::move(needs);
  t.fans_out = max_parallel > 0;
  t.max_parallel = max_parallel;
  return t;
}

config::job job_of(std::vector<config::task> tasks) {
  config::job j;
  j.tasks = std::move(tasks);
  return j;
}

std::vector<task_record> records_of(const config::job& j, const std::vector<run_state>& states = {}) {
  std::vector<task_record> all;
  for (std::size_t i = 0; i < j.tasks.size(); ++i) {
    all.push_back({.name = j.tasks[i].name, .state = states.empty() ? queued : states[i]});
  }
  return all;
}

// "start 0, skip 3: its need 'a' failed"
std::string words(const std::vector<task_step>& steps) {
  const std::map<action, std::string> names{{action::start, "start"},
                                            {action::skip, "skip"},
                                            {action::decide, "decide"},
                                            {action::expand, "expand"},
                                            {action::end, "end"}};
  std::string all;
  for (const auto& s : steps) {
    all += (all.empty() ? "" : ", ") + names.at(s.what) + " " + std::to_string(s.record);
    if (s.what == action::end) all += " " + std::string(token(s.state));
    if (!s.reason.empty()) all += ": " + s.reason;
  }
  return all;
}

}  // namespace

// ---- the rules ----

TEST_CASE("task graph: a task starts when all it needs has succeeded, and is told of once", "[task_graph]") {
  // Written backwards, on purpose.
  const auto j =
      job_of({task("report", {"left", "right"}), task("left", {"get"}), task("right", {"get"}), task("get")});
  task_graph g(j, records_of(j));
  CHECK_FALSE(g.idle());
  CHECK(words(g.next()) == "start 3");
  CHECK(g.next().empty());
  CHECK_FALSE(g.idle());
  g.ended(3, succeeded);
  CHECK(words(g.next()) == "start 1, start 2");
  g.ended(2, succeeded);
  CHECK(g.next().empty());
  g.ended(2, failed);  // it has ended
  g.ended(0, failed);  // it was not started
  g.ended(1, succeeded);
  CHECK(words(g.next()) == "start 0");
  CHECK_FALSE(g.idle());
  g.ended(0, succeeded);
  CHECK(g.next().empty());
  CHECK(g.idle());
  CHECK(g.task_of(2) == 2);
}

TEST_CASE("task graph: what needs a task that ended otherwise is skipped, all the way, and says why", "[task_graph]") {
  const auto j = job_of({task("d", {"c"}), task("c", {"b"}), task("b", {"ok", "a"}), task("a"), task("ok")});
  const std::vector<std::pair<run_state, std::string>> ends{
      {failed, "failed"}, {timed_out, "timed_out"}, {cancelled, "cancelled"}, {skipped, "was skipped"}};
  for (const auto& [how, said] : ends) {
    task_graph g(j, records_of(j));
    CHECK(words(g.next()) == "start 3, start 4");
    g.ended(3, how);
    CHECK(g.next().empty());  // `ok` has not ended
    g.ended(4, succeeded);
    CHECK(words(g.next()) == "skip 2: its need 'a' " + said +
                                 ", skip 1: its need 'b' was skipped, skip 0: its need 'c' was skipped");
    CHECK(g.idle());
  }
}

TEST_CASE("task graph: a failure that is allowed holds up nothing", "[task_graph]") {
  auto j = job_of({task("a"), task("b", {"a"})});
  j.tasks[0].allow_failure = true;
  for (const auto how : {failed, timed_out}) {
    task_graph g(j, records_of(j));
    g.next();
    g.ended(0, how);
    CHECK(words(g.next()) == "start 1");
  }
  for (const auto how : {cancelled, skipped}) {
    task_graph g(j, records_of(j));
    g.next();
    g.ended(0, how);
    CHECK(g.next().at(0).what == action::skip);
  }
}

TEST_CASE("task graph: a condition is asked for when all needs have ended, however they did", "[task_graph]") {
  auto j = job_of({task("a"), task("b"), task("alarm", {"a", "b"}), task("after", {"alarm"})});
  j.tasks[2].condition = "tasks.a.state == 'failed'";
  task_graph g(j, records_of(j));
  g.next();
  g.ended(0, failed);
  CHECK(g.next().empty());
  g.ended(1, succeeded);
  CHECK(words(g.next()) == "decide 2");
  CHECK_FALSE(g.idle());
  SECTION("it holds") {
    g.decided(2, true);
    g.decided(2, false);
    CHECK(words(g.next()) == "start 2");
    g.ended(2, succeeded);
    CHECK(words(g.next()) == "start 3");
  }
  SECTION("it does not") {
    g.decided(2, false);
    CHECK(words(g.next()) == "skip 2: its condition does not hold, skip 3: its need 'alarm' was skipped");
    CHECK(g.idle());
  }
  SECTION("it cannot be evaluated") {
    g.ended(2, failed);
    CHECK(words(g.next()) == "skip 3: its need 'alarm' failed");
    CHECK(g.idle());
  }
}

TEST_CASE("task graph: a task that fans out runs its instances a few at a time", "[task_graph]") {
  const auto j = job_of({task("list"), task("render", {"list"}, 2), task("join", {"render"})});
  task_graph g(j, records_of(j));
  g.next();
  g.ended(0, succeeded);
  CHECK(words(g.next()) == "expand 1");
  SECTION("and succeeds with them") {
    g.expanded(1, 3, 3);
    CHECK(words(g.next()) == "start 3, start 4");
    g.ended(5, failed);  // it was not started
    CHECK(g.task_of(5) == 1);
    g.ended(4, succeeded);
    g.ended(4, failed);
    CHECK(words(g.next()) == "start 5");
    g.ended(5, succeeded);
    CHECK(g.next().empty());
    g.ended(3, succeeded);
    CHECK(words(g.next()) == "end 1 succeeded, start 2");
  }
  SECTION("and fails when one has, after all have ended") {
    g.expanded(1, 3, 3);
    g.next();
    g.ended(4, timed_out);
    CHECK(words(g.next()) == "start 5");
    g.ended(3, succeeded);
    g.ended(5, failed);
    CHECK(words(g.next()) == "end 1 failed: 2 of 3 instances did not succeed, first render[1], "
                             "skip 2: its need 'render' failed");
    CHECK(g.idle());
  }
  SECTION("over nothing it has succeeded") {
    g.expanded(1, 3, 0);
    CHECK(words(g.next()) == "end 1 succeeded, start 2");
  }
  SECTION("and fails when its list cannot be made") {
    g.ended(1, failed);
    CHECK(words(g.next()) == "skip 2: its need 'render' failed");
  }
}

TEST_CASE("task graph: a condition comes before a fan-out", "[task_graph]") {
  auto j = job_of({task("render", {}, 2)});
  j.tasks[0].condition = "params.render";
  task_graph yes(j, records_of(j));
  CHECK(words(yes.next()) == "decide 0");
  yes.expanded(0, 1, 2);  // it was not asked for
  yes.decided(0, true);
  CHECK(words(yes.next()) == "expand 0");
  task_graph no(j, records_of(j));
  no.next();
  no.decided(0, false);
  CHECK(words(no.next()) == "skip 0: its condition does not hold");
}

TEST_CASE("task graph: a further attempt keeps what has succeeded", "[task_graph]") {
  const auto j = job_of({task("a"), task("b", {"a"}), task("c", {"b"}), task("d", {"a"})});
  task_graph g(j, records_of(j, {succeeded, failed, skipped, succeeded}));
  CHECK(words(g.next()) == "start 1");
  g.ended(1, succeeded);
  CHECK(words(g.next()) == "start 2");
  g.ended(2, succeeded);
  CHECK(g.idle());

  const auto crossed = job_of({task("x", {"q"}), task("y", {"p"}), task("p"), task("q")});
  task_graph in_order(crossed, records_of(crossed, {queued, queued, succeeded, succeeded}));
  CHECK(words(in_order.next()) == "start 0, start 1");

  task_graph done(j, records_of(j, {succeeded, succeeded, succeeded, succeeded}));
  CHECK(done.idle());
  CHECK(done.next().empty());
}

TEST_CASE("task graph: a further attempt keeps instances, and makes none a second time", "[task_graph]") {
  auto j = job_of({task("a"), task("render", {"a"}, 1), task("join", {"render"})});
  auto records = records_of(j, {succeeded, failed, skipped});
  for (const auto s : {failed, succeeded, cancelled, running}) {
    records.push_back({.name = instance_name("render", records.size() - 3), .state = s});
  }
  CHECK(records.back().name == "render[3]");
  SECTION("those that had not succeeded are run") {
    task_graph g(j, records);
    CHECK(g.task_of(6) == 1);
    CHECK(words(g.next()) == "start 3");
    g.ended(3, succeeded);
    CHECK(words(g.next()) == "start 5");
    g.ended(5, succeeded);
    g.next();
    g.ended(6, succeeded);
    CHECK(words(g.next()) == "end 1 succeeded, start 2");
  }
  SECTION("all had succeeded") {
    for (std::size_t i = 3; i < records.size(); ++i) records[i].state = succeeded;
    task_graph g(j, records);
    CHECK(words(g.next()) == "end 1 succeeded, start 2");
  }
  SECTION("the task had, so they stay whatever they are") {
    records[1].state = succeeded;
    task_graph g(j, records);
    CHECK(words(g.next()) == "start 2");
  }
  SECTION("the task is skipped this time, and they with it") {
    records[0].state = queued;
    task_graph g(j, records);
    CHECK(words(g.next()) == "start 0");
    g.ended(0, failed);
    CHECK(words(g.next()) ==
          "skip 1: its need 'a' failed, skip 3: its need 'a' failed, skip 5: its need 'a' failed, "
          "skip 6: its need 'a' failed, skip 2: its need 'render' was skipped");
    CHECK(g.idle());
  }
  SECTION("the task fails before they run") {
    j.tasks[1].condition = "error()";
    task_graph g(j, records);
    CHECK(words(g.next()) == "decide 1");
    g.ended(1, failed);
    CHECK(words(g.next()) == "skip 3: its task failed, skip 5: its task failed, skip 6: its task failed, "
                             "skip 2: its need 'render' failed");
  }
}

TEST_CASE("task graph: a record that has ended has a final state", "[task_graph]") {
  const auto j = job_of({task("a")});
  task_graph g(j, records_of(j));
  CHECK_THROWS_AS(g.ended(0, running), std::logic_error);
}

// ---- against the model ----

namespace {

// Asks every rule of every task, again and again, until nothing changes.
class model_graph {
 public:
  model_graph(const config::job& j, const std::vector<task_record>& records) : job_(j), tasks_(j.tasks.size()) {
    for (std::size_t i = 0; i < tasks_.size(); ++i) {
      if (records[i].state == succeeded) tasks_[i] = {.over = true, .state = succeeded};
    }
    for (std::size_t r = tasks_.size(); r < records.size(); ++r) {
      auto& t = tasks_[index(records[r].name.substr(0, records[r].name.find('[')))];
      t.instances.push_back({r, records[r].state == succeeded, records[r].state == succeeded, true});
      t.expanded = true;
    }
  }

  std::vector<task_step> next() {
    std::vector<task_step> steps;
    for (std::size_t before = 1; before != steps.size() || changed_;) {
      before = steps.size();
      changed_ = false;
      for (std::size_t i = 0; i < tasks_.size(); ++i) look(i, steps);
    }
    return steps;
  }
  void decided(std::size_t i, bool holds) {
    tasks_[i].asked = false;
    tasks_[i].holds = holds ? 1 : 0;
  }
  void expanded(std::size_t i, std::size_t first, std::size_t count) {
    tasks_[i].asked = false;
    tasks_[i].expanded = true;
    for (std::size_t k = 0; k < count; ++k) tasks_[i].instances.push_back({first + k, false, false, false});
  }
  void ended(std::size_t record, run_state how) {
    if (record < tasks_.size()) {
      auto& t = tasks_[record];
      if (how != succeeded) t.skip_instances = "its task " + std::string(token(how));
      t.over = true;
      t.state = how;
      return;
    }
    for (auto& t : tasks_) {
      for (auto& x : t.instances) {
        if (x.record == record) x.over = true, x.good = how == succeeded;
      }
    }
  }

 private:
  struct one {
    std::size_t record = 0;
    bool over = false, good = false, old = false;
    bool started = false;
  };
  struct state_of {
    bool over = false;
    run_state state = queued;
    bool asked = false, started = false, expanded = false;
    int holds = -1;  // unknown
    std::vector<one> instances{};
    std::string skip_instances{};
  };

  std::size_t index(const std::string& name) const {
    for (std::size_t i = 0; i < job_.tasks.size(); ++i) {
      if (job_.tasks[i].name == name) return i;
    }
    throw std::logic_error(name);
  }

  void over(std::size_t i, run_state how) {
    tasks_[i].over = true;
    tasks_[i].state = how;
    changed_ = true;
  }

  void skip(std::size_t i, const std::string& reason, std::vector<task_step>& steps) {
    steps.push_back({action::skip, i, reason});
    tasks_[i].skip_instances = reason;
    over(i, skipped);
  }

  void look(std::size_t i, std::vector<task_step>& steps) {
    auto& t = tasks_[i];
    const auto& def = job_.tasks[i];
    if (!t.skip_instances.empty()) {
      for (const auto& x : t.instances) {
        if (x.old && !x.good && !x.started) steps.push_back({action::skip, x.record, t.skip_instances});
      }
      t.skip_instances.clear();
    }
    if (t.over || t.asked) return;
    for (const auto& need : def.needs) {
      if (!tasks_[index(need)].over) return;
    }
    if (def.condition.empty()) {
      for (const auto& need : def.needs) {
        const auto& n = tasks_[index(need)];
        const bool allowed = (n.state == failed || n.state == timed_out) && job_.tasks[index(need)].allow_failure;
        if (n.state == succeeded || allowed) continue;
        const std::string how = n.state == skipped ? "was skipped" : std::string(token(n.state));
        return skip(i, "its need '" + need + "' " + how, steps);
      }
    } else if (t.holds == -1) {
      t.asked = true;
      steps.push_back({action::decide, i});
      return;
    } else if (t.holds == 0) {
      return skip(i, "its condition does not hold", steps);
    }
    if (!def.fans_out) {
      if (!t.started) steps.push_back({action::start, i});
      t.started = true;
    } else if (!t.expanded) {
      t.asked = true;
      steps.push_back({action::expand, i});
    } else {
      fan(i, steps);
    }
  }

  void fan(std::size_t i, std::vector<task_step>& steps) {
    auto& t = tasks_[i];
    std::int64_t running = 0;
    std::size_t bad = 0;
    std::string first;
    bool all = true;
    for (const auto& x : t.instances) running += x.started && !x.over;
    for (std::size_t k = 0; k < t.instances.size(); ++k) {
      auto& x = t.instances[k];
      if (!x.over && !x.started && running < job_.tasks[i].max_parallel) {
        x.started = true;
        ++running;
        steps.push_back({action::start, x.record});
      }
      all = all && x.over;
      if (x.over && !x.good && ++bad == 1) first = instance_name(job_.tasks[i].name, k);
    }
    if (!all) return;
    std::string reason;
    if (bad > 0) {
      reason = std::to_string(bad) + " of " + std::to_string(t.instances.size()) +
               " instances did not succeed, first " + first;
    }
    steps.push_back({action::end, i, reason, bad ? failed : succeeded});
    over(i, bad ? failed : succeeded);
  }

  const config::job& job_;
  std::vector<state_of> tasks_;
  bool changed_ = false;
};

bool by_record(const task_step& a, const task_step& b) {
  return std::pair(a.record, words({a})) < std::pair(b.record, words({b}));
}

// A run with its records, through as many attempts as asked for.
class random_run {
 public:
  explicit random_run(std::uint32_t seed, int most_tasks) : random_(seed) {
    const int count = number(1, most_tasks);
    std::vector<config::task> tasks;
    for (int i = 0; i < count; ++i) {
      auto t = task("t" + std::to_string(i), {}, number(0, 4) ? 0 : number(1, 4));
      std::set<int> needs;
      for (int k = i == 0 ? 0 : number(0, 3); k > 0; --k) needs.insert(number(std::max(0, i - 5), i - 1));
      for (const int n : needs) t.needs.push_back("t" + std::to_string(n));
      std::shuffle(t.needs.begin(), t.needs.end(), random_);
      if (number(0, 5) == 0) t.condition = "maybe";
      t.allow_failure = number(0, 4) == 0;
      tasks.push_back(std::move(t));
    }
    std::shuffle(tasks.begin(), tasks.end(), random_);
    job_ = job_of(std::move(tasks));
    records_ = records_of(job_);
  }

  void attempt(bool to_the_end) {
    graph_ = std::make_unique<task_graph>(job_, records_);
    model_ = std::make_unique<model_graph>(job_, records_);
    for (auto& r : records_) {
      if (r.state != succeeded) r.state = queued;
    }
    open_.clear();
    kept_ = states();
    told_.clear();
    int left = to_the_end ? 1'000'000 : number(0, 30);
    for (listen(); !open_.empty() && left > 0; --left) {
      answer();
      if (number(0, 2)) listen();
      if (open_.empty()) listen();
    }
    if (!to_the_end) return;
    CHECK(graph_->idle());
    for (const auto& r : records_) CHECK(is_final(r.state));
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      if (kept_[i] == succeeded) CHECK(records_[i].state == succeeded);
    }
  }

  std::size_t steps = 0;

 private:
  int number(int low, int high) { return std::uniform_int_distribution<>(low, high)(random_); }
  std::vector<run_state> states() const {
    std::vector<run_state> all;
    for (const auto& r : records_) all.push_back(r.state);
    return all;
  }

  void listen() {
    auto said = graph_->next();
    auto expected = model_->next();
    steps += said.size();
    std::sort(said.begin(), said.end(), by_record);
    std::sort(expected.begin(), expected.end(), by_record);
    REQUIRE(words(said) == words(expected));
    for (const auto& s : said) {
      CHECK(told_.insert({s.what, s.record}).second);
      auto& r = records_[s.record];
      CHECK(r.state == queued);
      if (s.what == action::skip) {
        r.state = skipped;
      } else if (s.what == action::end) {
        r.state = s.state;
      } else {
        open_.push_back(s);
      }
    }
    CHECK(graph_->idle() == open_.empty());
  }

  void answer() {
    std::swap(open_[static_cast<std::size_t>(number(0, static_cast<int>(open_.size()) - 1))], open_.back());
    const auto s = open_.back();
    open_.pop_back();
    if (s.what == action::start || number(0, 9) == 0) {
      constexpr std::array ends{failed, timed_out, cancelled};
      const auto how = s.what == action::start && number(0, 4)
                           ? succeeded
                           : ends[static_cast<std::size_t>(number(0, 2))];
      records_[s.record].state = how;
      graph_->ended(s.record, how);
      model_->ended(s.record, how);
    } else if (s.what == action::decide) {
      const bool holds = number(0, 2) != 0;
      graph_->decided(s.record, holds);
      model_->decided(s.record, holds);
    } else {
      const auto first = records_.size();
      const auto count = static_cast<std::size_t>(number(0, 9));
      for (std::size_t k = 0; k < count; ++k) records_.push_back({.name = instance_name(records_[s.record].name, k)});
      graph_->expanded(s.record, first, count);
      model_->expanded(s.record, first, count);
      for (std::size_t k = 0; k < count; ++k) CHECK(graph_->task_of(first + k) == s.record);
    }
  }

  std::mt19937 random_;
  config::job job_;
  std::vector<task_record> records_;
  std::vector<run_state> kept_;
  std::set<std::pair<action, std::size_t>> told_;
  std::vector<task_step> open_;
  std::unique_ptr<task_graph> graph_;
  std::unique_ptr<model_graph> model_;
};

}  // namespace

TEST_CASE("task graph: random graphs over several attempts agree with asking everything each time",
          "[task_graph][slow]") {
  std::size_t steps = 0;
  for (std::uint32_t seed = 1; seed <= 400; ++seed) {
    INFO("seed " << seed);
    random_run r(seed, seed % 20 == 0 ? 60 : 15);
    if (seed % 3 == 0) r.attempt(false);  // cut off in the middle
    for (int attempt = 0; attempt < 3; ++attempt) r.attempt(true);
    steps += r.steps;
  }
  CHECK(steps > 10'000);
}

// ---- sizes ----

TEST_CASE("task graph: a thousand tasks and ten thousand instances", "[task_graph]") {
  std::vector<config::task> tasks;
  for (int i = 0; i < 1'000; ++i) {
    std::vector<std::string> needs;
    for (int n = std::max(0, i - 20); n < i; n += 7) needs.push_back("t" + std::to_string(n));
    tasks.push_back(task("t" + std::to_string(i), needs, i % 100 == 50 ? 8 : 0));
  }
  std::reverse(tasks.begin(), tasks.end());
  const auto j = job_of(std::move(tasks));
  auto records = records_of(j);
  task_graph g(j, records);
  std::size_t started = 0;
  for (auto steps = g.next(); !steps.empty(); steps = g.next()) {
    for (const auto& s : steps) {
      if (s.what == action::expand) {
        const auto first = records.size();
        for (std::size_t k = 0; k < 1'000; ++k) records.push_back({.name = instance_name(records[s.record].name, k)});
        g.expanded(s.record, first, 1'000);
      } else if (s.what == action::start) {
        ++started;
        g.ended(s.record, succeeded);
      } else {
        CHECK(words({s}) == "end " + std::to_string(s.record) + " succeeded");
      }
    }
  }
  CHECK(g.idle());
  CHECK(started == 990 + 10'000);
}

TEST_CASE("task graph: a chain of a hundred thousand tasks is skipped without end", "[task_graph]") {
  std::vector<config::task> tasks{task("t0")};
  for (int i = 1; i < 100'000; ++i) tasks.push_back(task("t" + std::to_string(i), {tasks.back().name}));
  const auto j = job_of(std::move(tasks));
  task_graph g(j, records_of(j));
  g.next();
  g.ended(0, failed);
  CHECK(g.next().size() == 99'999);
  CHECK(g.idle());
}
