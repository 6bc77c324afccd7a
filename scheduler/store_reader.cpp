// See store_reader.hpp.
#include "scheduler/store_reader.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <set>

#include "scheduler/store_rows.hpp"

namespace penstock::scheduler {

using namespace rows;

namespace {

// Of `revisions`; that of a pipeline that exists now is joined in for `paused`.
const std::string select_pipeline =
    "SELECT pipeline, revisions.revision, text, media_type, origin, etag, coalesce(paused, 0), created_at, "
    "updated_at"
    " FROM revisions LEFT JOIN pipelines ON name = pipeline AND pipelines.revision = revisions.revision";

pipeline_record pipeline_from(const sqlite::statement& s) {
  return {.name = text(s, 0),
          .revision = s.integer(1),
          .text = text(s, 2),
          .media_type = text(s, 3),
          .origin = text(s, 4),
          .etag = text(s, 5),
          .paused = s.integer(6) != 0,
          .created_at = time(s, 7),
          .updated_at = time(s, 8)};
}

// What a page of runs may hold, as bounds of ids (and of created_at within the outermost milliseconds).
struct page {
  std::string from, below;  // ids in [from, below)
  std::optional<timestamp> since, until;
  std::int64_t limit;
};

// "~" is beyond all ids.
page page_of(const run_filter& f) {
  page p{"", "~", f.since, f.until, static_cast<std::int64_t>(f.limit)};
  if (f.since) p.from = id_prefix(*f.since);
  if (f.until) p.below = id_prefix(*f.until + std::chrono::milliseconds{1});
  if (!f.before_id.empty()) p.below = std::min(p.below, f.before_id);
  return p;
}

// The ids of a page: `part` narrows the range of an index that it is read from. Only pages bounded by time
// look at the table at all.
std::string select_ids(const std::string& part) {
  return "SELECT id FROM runs WHERE " + part +
         "id >= ?1 AND id < ?2 AND (?3 IS NULL OR created_at >= ?3) AND (?4 IS NULL OR created_at < ?4)"
         " ORDER BY id DESC LIMIT ?5";
}

const std::string select_groups = "SELECT pipeline, job, state, runs FROM run_counts WHERE runs > 0";

}  // namespace

store_reader::store_reader(const std::filesystem::path& file)
    : store_reader(sqlite::connection(file, sqlite::open_mode::read_only)) {}

store_reader::store_reader(sqlite::connection db)
    : db_(std::move(db)),
      begin_(db_, "BEGIN"),
      end_(db_, "COMMIT"),
      instance_(db_, "SELECT instance FROM data_folder"),
      pipelines_(db_, select_pipeline + " WHERE name IS NOT NULL ORDER BY pipeline"),
      revision_(db_, select_pipeline + " WHERE pipeline = ?1 AND revisions.revision = ?2"),
      revisions_(db_, select_pipeline + " WHERE pipeline = ?1 ORDER BY revisions.revision DESC"),
      run_(db_, select_runs("WHERE id = ?1")),
      tasks_(db_, select_tasks),
      input_(db_, "SELECT ndjson FROM run_inputs WHERE run = ?1"),
      ids_(db_, select_ids("")),
      ids_in_state_(db_, select_ids("state = ?6 AND ")),
      ids_of_job_(db_, select_ids("pipeline = ?6 AND job = ?7 AND state = ?8 AND ")),
      all_groups_(db_, select_groups),
      groups_of_pipeline_(db_, select_groups + " AND pipeline = ?1"),
      groups_of_job_(db_, select_groups + " AND job = ?1"),
      cursor_(db_,
              "SELECT position FROM trigger_cursors WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3"),
      last_firing_(db_, "SELECT fired FROM schedules WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3"),
      cursors_(db_,
               "SELECT pipeline || '/job/' || job || '/' || trigger_key, position FROM trigger_cursors"
               " ORDER BY pipeline, job, trigger_key"),
      dead_(db_, select_runs("WHERE id IN (SELECT run FROM dead_runs WHERE run > ?1"
                             " ORDER BY run LIMIT ?2) ORDER BY id")),
      dead_of_pipeline_(db_,
                        select_runs("WHERE id IN (SELECT run FROM dead_runs WHERE run > ?1 AND pipeline = ?3"
                                    " ORDER BY run LIMIT ?2) ORDER BY id")),
      count_dead_(db_, "SELECT count(*) FROM dead_runs") {}

std::string store_reader::instance() { return one(instance_, first_text).value(); }

// ---- pipelines ----

std::vector<pipeline_record> store_reader::pipelines() { return all(pipelines_, pipeline_from); }

std::optional<pipeline_record> store_reader::revision(const std::string& pipeline, std::int64_t revision) {
  return one(with(revision_, pipeline, revision), pipeline_from);
}

std::vector<pipeline_record> store_reader::revisions(const std::string& pipeline) {
  auto records = all(with(revisions_, pipeline), pipeline_from);
  for (pipeline_record& r : records) r.text.clear();
  return records;
}

// ---- runs ----

std::optional<run_record> store_reader::run(const std::string& id) {
  const snapshot moment(*this);
  auto found = one(with(run_, id), run_from);
  if (found) found->tasks = all(with(tasks_, id), task_from);
  return found;
}

std::vector<run_record> store_reader::runs(const run_filter& filter) {
  const snapshot moment(*this);
  std::vector<run_record> found;
  for (const std::string& id : page_ids(filter)) found.push_back(one(with(run_, id), run_from).value());
  return found;
}

// Each filter is a union of ranges of one index, every range newest first: the page is the newest of all of
// them.
std::vector<std::string> store_reader::page_ids(const run_filter& filter) {
  const page p = page_of(filter);
  std::vector<std::string> ids;
  const auto collect = [&](sqlite::statement& s, const auto&... part) {
    auto some = all(with(s, p.from, p.below, p.since, p.until, p.limit, part...), first_text);
    ids.insert(ids.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
  };
  const std::set<run_state> states(filter.states.begin(), filter.states.end());
  if (filter.pipeline.empty() && filter.job.empty()) {
    if (states.empty()) collect(ids_);
    for (const run_state s : states) collect(ids_in_state_, s);
  } else {
    for (const run_group& g : groups(filter.pipeline, filter.job)) {
      if (states.empty() || states.contains(g.state)) collect(ids_of_job_, g.pipeline, g.job, g.state);
    }
  }
  std::sort(ids.begin(), ids.end(), std::greater<>());
  if (ids.size() > filter.limit) ids.resize(filter.limit);
  return ids;
}

std::vector<store_reader::run_group> store_reader::groups(const std::string& pipeline,
                                                          const std::string& job) {
  const auto read = [](const sqlite::statement& s) {
    return run_group{text(s, 0), text(s, 1), state_from(s, 2), s.integer(3)};
  };
  if (pipeline.empty() && job.empty()) return all(all_groups_, read);
  if (pipeline.empty()) return all(with(groups_of_job_, job), read);
  auto found = all(with(groups_of_pipeline_, pipeline), read);
  if (!job.empty()) std::erase_if(found, [&](const run_group& g) { return g.job != job; });
  return found;
}

std::string store_reader::load_input(const std::string& run) {
  return one(with(input_, run), [](const sqlite::statement& s) { return std::string(s.blob(0)); })
      .value_or("");
}

std::map<std::string, std::int64_t> store_reader::count_by_state(const std::string& pipeline,
                                                                 const std::string& job) {
  std::map<std::string, std::int64_t> counts;
  for (const run_group& g : groups(pipeline, job)) counts[std::string(token(g.state))] += g.runs;
  return counts;
}

// ---- triggers, dead letters ----

std::optional<std::int64_t> store_reader::cursor(const std::string& pipeline, const std::string& job,
                                                 const std::string& trigger) {
  return one(with(cursor_, pipeline, job, trigger), first_integer);
}

std::optional<timestamp> store_reader::last_firing(const std::string& pipeline, const std::string& job,
                                                   const std::string& trigger) {
  return one(with(last_firing_, pipeline, job, trigger),
             [](const sqlite::statement& s) { return time(s, 0); });
}

std::vector<std::pair<std::string, std::int64_t>> store_reader::cursors() {
  return all(cursors_, [](const sqlite::statement& s) { return std::pair(text(s, 0), s.integer(1)); });
}

std::vector<run_record> store_reader::dead_runs(const std::string& pipeline, const std::string& after_id,
                                                std::size_t limit) {
  if (pipeline.empty()) return all(with(dead_, after_id, limit), run_from);
  return all(with(dead_of_pipeline_, after_id, limit, pipeline), run_from);
}

std::int64_t store_reader::count_dead_runs() { return one(count_dead_, first_integer).value(); }

}  // namespace penstock::scheduler
