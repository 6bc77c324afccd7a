// See store_pruner.hpp.
#include "scheduler/store_pruner.hpp"

#include <algorithm>
#include <chrono>
#include <optional>

#include "scheduler/store_rows.hpp"

namespace penstock::scheduler {

using namespace rows;

namespace {

// Others wait for no more than a portion: so many rows looked at to be deleted, in so many ranges.
constexpr std::size_t rows_at_once = 500;
constexpr std::size_t ranges_at_once = 200;

// A final run, as the search by number finds it.
struct candidate {
  std::string id;
  bool dead;  // a dead letter: counts, but stays
};

const std::string not_dead = "NOT EXISTS (SELECT 1 FROM dead_runs WHERE run = id)";

std::string final_runs_of_job(std::string_view state) {
  return "SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2 AND state = '" + std::string(state) + "' AND id > ?3";
}

}  // namespace

// ---- a pass ----

store_pruner::pass::pass(timestamp before, std::int64_t keep, const std::vector<history>& own_rules)
    : before_(before), keep_(keep) {
  for (const history& h : own_rules) own_rules_.insert_or_assign({h.pipeline, h.job}, h);
}

timestamp store_pruner::pass::before_of(const range& r) const {
  const auto own = own_rules_.find({r.pipeline, r.job});
  return own == own_rules_.end() ? before_ : own->second.before.value_or(before_);
}

std::int64_t store_pruner::pass::keep_of(const range& r) const {
  const auto own = own_rules_.find({r.pipeline, r.job});
  return own == own_rules_.end() ? keep_ : own->second.runs.value_or(keep_);
}

void store_pruner::pass::go_to(step next, std::vector<range> ranges) {
  step_ = next;
  ranges_ = std::move(ranges);
  at_ = 0;
  after_id_.clear();
}

// ---- portions ----

store_pruner::store_pruner(sqlite::connection& db)
    : ranges_(db,
              "SELECT pipeline, job, state, runs FROM run_counts WHERE runs > 0"
              " AND state NOT IN ('queued', 'running', 'retrying')"),
      old_(db,
           "SELECT id FROM runs WHERE pipeline = ?1 AND job = ?2 AND state = ?3 AND id > ?4 AND id < ?5"
           " AND ended_at < ?6 AND " +
               not_dead + " ORDER BY id LIMIT ?7"),
      // Five ascending ranges of runs_of_job, merged by SQLite until the wanted row.
      oldest_(db, "SELECT id, NOT " + not_dead + " FROM (" + final_runs_of_job("succeeded") + " UNION ALL " +
                      final_runs_of_job("failed") + " UNION ALL " + final_runs_of_job("cancelled") +
                      " UNION ALL " + final_runs_of_job("timed_out") + " UNION ALL " +
                      final_runs_of_job("skipped") + " ORDER BY id LIMIT ?4)"),
      remove_(db, "DELETE FROM runs WHERE id = ?1"),
      keys_(db,
            "DELETE FROM idempotency_keys WHERE (scope, key) IN (SELECT scope, key FROM idempotency_keys AS k"
            " WHERE k.created_at < ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE id = k.run) LIMIT ?2)"
            " RETURNING 1"),
      forget_counts_(db, "DELETE FROM run_counts WHERE runs = 0") {}

std::vector<std::string> store_pruner::portion(pass& p) {
  using step = pass::step;
  switch (p.step_) {
    case step::begin:
      p.go_to(step::by_age, final_ranges());
      return {};
    case step::by_age:
      if (p.at_ < p.ranges_.size()) return by_age(p);
      p.go_to(step::by_number, crowded_jobs(p));
      return {};
    case step::by_number:
      if (p.at_ < p.ranges_.size()) return by_number(p);
      p.go_to(step::keys, {});
      return {};
    case step::keys:
      expired_keys(p);
      return {};
    case step::over:
      break;
  }
  return {};
}

std::vector<store_pruner::pass::range> store_pruner::final_ranges() {
  return all(ranges_, [](const sqlite::statement& s) {
    return pass::range{text(s, 0), text(s, 1), text(s, 2), s.integer(3)};
  });
}

std::vector<store_pruner::pass::range> store_pruner::crowded_jobs(const pass& p) {
  std::vector<pass::range> jobs;  // the table is ordered by pipeline and job
  for (pass::range& r : final_ranges()) {
    if (jobs.empty() || jobs.back().pipeline != r.pipeline || jobs.back().job != r.job) {
      jobs.push_back({std::move(r.pipeline), std::move(r.job), "", 0});
    }
    jobs.back().runs += r.runs;
  }
  for (pass::range& job : jobs) job.runs -= p.keep_of(job);
  std::erase_if(jobs, [](const pass::range& job) { return job.runs <= 0; });
  return jobs;
}

std::vector<std::string> store_pruner::by_age(pass& p) {
  std::vector<std::string> gone;
  for (std::size_t looked = 0; looked < ranges_at_once && p.at_ < p.ranges_.size(); ++looked) {
    const pass::range& r = p.ranges_[p.at_];
    const timestamp before = p.before_of(r);
    // What ended before that time was made before it, so the search ends where ids of that time begin.
    const std::string bound = id_prefix(before + std::chrono::milliseconds{1});
    const std::size_t room = rows_at_once - gone.size();
    const auto ids =
        all(with(old_, r.pipeline, r.job, r.state, p.after_id_, bound, before, room), first_text);
    for (const std::string& id : ids) with(remove_, id).run();
    gone.insert(gone.end(), ids.begin(), ids.end());
    if (ids.size() == room) {
      p.after_id_ = ids.back();
      return gone;
    }
    p.after_id_.clear();
    ++p.at_;
  }
  return gone;
}

// The oldest ones go. Those that stay, being dead letters, are among the ones that are too many.
std::vector<std::string> store_pruner::by_number(pass& p) {
  std::vector<std::string> gone;
  std::size_t looked = 0;
  while (looked < rows_at_once && p.at_ < p.ranges_.size()) {
    pass::range& r = p.ranges_[p.at_];
    const auto most = std::min(r.runs, static_cast<std::int64_t>(rows_at_once - looked));
    const auto oldest = all(with(oldest_, r.pipeline, r.job, p.after_id_, most), [](const sqlite::statement& s) {
      return candidate{text(s, 0), s.integer(1) != 0};
    });
    for (const candidate& c : oldest) {
      if (c.dead) continue;
      with(remove_, c.id).run();
      gone.push_back(c.id);
    }
    looked += oldest.size();
    r.runs -= std::ssize(oldest);
    if (r.runs > 0 && !oldest.empty()) {
      p.after_id_ = oldest.back().id;
    } else {
      p.after_id_.clear();
      ++p.at_;
    }
  }
  return gone;
}

void store_pruner::expired_keys(pass& p) {
  const auto removed = all(with(keys_, p.before_, rows_at_once), first_integer).size();
  if (removed == rows_at_once) return;
  forget_counts_.run();
  p.go_to(pass::step::over, {});
}

}  // namespace penstock::scheduler
