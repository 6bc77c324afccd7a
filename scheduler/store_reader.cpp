// See store_reader.hpp.
#include "scheduler/store_reader.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <set>

#include "scheduler/store_rows.hpp"
#include "scheduler/store_timeline.hpp"

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
};

// "~" is beyond all ids.
page page_of(const run_filter& f) {
  page p{"", "~", f.since, f.until};
  if (f.since) p.from = id_prefix(*f.since);
  if (f.until) p.below = id_prefix(*f.until + std::chrono::seconds{1});  // ids may be that far ahead of their run: ulid.hpp
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
      tasks_(db_, select_tasks_in_order),
      timeline_(db_, "SELECT timeline FROM runs WHERE id = ?1"),
      input_(db_, "SELECT ndjson FROM run_inputs WHERE run = ?1"),
      request_(db_, select_request),
      ids_(db_, select_ids("")),
      ids_in_state_(db_, select_ids("state = ?6 AND ")),
      ids_of_job_(db_, select_ids("pipeline = ?6 AND job = ?7 AND state = ?8 AND ")),
      ended_ids_of_job_name_(db_, select_ids("ended_at IS NOT NULL AND job = ?6 AND state = ?7 AND ")),
      all_groups_(db_, select_groups),
      groups_of_pipeline_(db_, select_groups + " AND pipeline = ?1"),
      groups_of_job_(db_, select_groups + " AND job = ?1"),
      unfinished_groups_of_job_(
          db_, select_groups + " AND job = ?1 AND state IN ('queued', 'running', 'retrying')"),
      cursor_(db_,
              "SELECT position FROM trigger_cursors WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3"),
      last_firing_(db_, "SELECT fired FROM schedules WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3"),
      cursors_(db_,
               "SELECT pipeline || '/job/' || job || '/' || trigger_key, position FROM trigger_cursors"
               " ORDER BY pipeline, job, trigger_key"),
      scheduled_times_(db_,
                       "SELECT DISTINCT scheduled_for FROM runs WHERE pipeline = ?1 AND job = ?2"
                       " AND scheduled_for >= ?3 AND scheduled_for < ?4"
                       " AND trigger_kind IN ('cron', 'every', 'at', 'backfill') ORDER BY scheduled_for"),
      dead_(db_, select_runs("WHERE id IN (SELECT run FROM dead_runs WHERE run > ?1"
                             " ORDER BY run LIMIT ?2) ORDER BY id")),
      dead_of_pipeline_(db_,
                        select_runs("WHERE id IN (SELECT run FROM dead_runs WHERE run > ?1 AND pipeline = ?3"
                                    " ORDER BY run LIMIT ?2) ORDER BY id")),
      count_dead_(db_, "SELECT count(*) FROM dead_runs"),
      taken_files_(db_, "SELECT " + std::string(claim_columns) +
                            " FROM taken_files WHERE pipeline = ?1 AND job = ?2 AND trigger_key = ?3 ORDER BY path"),
      files_of_run_(db_, "SELECT " + std::string(claim_columns) + " FROM taken_files WHERE run = ?1"),
      alerts_(db_, "SELECT " + std::string(alert_columns) +
                       " FROM alerts WHERE settled = 0 ORDER BY id LIMIT ?1"),
      security_(db_) {}

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

std::vector<timeline_entry> store_reader::timeline(const std::string& run) {
  return timeline_from(one(with(timeline_, run), first_text).value_or(""));
}

std::vector<run_record> store_reader::runs(const run_filter& filter) {
  const snapshot moment(*this);
  std::vector<run_record> found;
  for (const std::string& id : page_ids(filter)) found.push_back(one(with(run_, id), run_from).value());
  return found;
}

// Each filter is a union of ranges of one index, every range newest first: the page is the newest of all of
// them. Most ranges give few or none, so each is read a little at a time, and further only while it leads.
std::vector<std::string> store_reader::page_ids(const run_filter& filter) {
  struct reading {
    find_below find;
    std::size_t at_once;
    std::vector<std::string> ids;  // newest first
    std::size_t next = 0;
    const std::string& head() const { return ids[next]; }
  };
  const auto older = [](const reading& a, const reading& b) { return a.head() < b.head(); };
  auto ranges = ranges_of(filter);
  const std::size_t at_once = ranges.size() < 2 ? filter.limit : filter.limit / ranges.size() + 1;
  std::vector<reading> heap;
  for (find_below& find : ranges) {
    auto ids = find(page_of(filter).below, at_once);
    if (!ids.empty()) heap.push_back({std::move(find), at_once, std::move(ids)});
  }
  std::make_heap(heap.begin(), heap.end(), older);
  std::vector<std::string> page;
  while (!heap.empty() && page.size() < filter.limit) {
    std::pop_heap(heap.begin(), heap.end(), older);
    reading& first = heap.back();
    page.push_back(first.head());
    ++first.next;
    if (first.next == first.ids.size() && first.ids.size() == first.at_once) {
      first.at_once = std::min(2 * first.at_once, filter.limit);
      first.ids = first.find(page.back(), first.at_once);
      first.next = 0;
    }
    if (first.next < first.ids.size()) {
      std::push_heap(heap.begin(), heap.end(), older);
    } else {
      heap.pop_back();
    }
  }
  return page;
}

std::vector<store_reader::find_below> store_reader::ranges_of(const run_filter& filter) {
  std::vector<find_below> ranges;
  const auto add = [&](sqlite::statement& s, const auto&... part) {
    ranges.push_back([&s, p = page_of(filter), part...](const std::string& below, std::size_t limit) {
      return all(with(s, p.from, below, p.since, p.until, limit, part...), first_text);
    });
  };
  const std::set<run_state> states(filter.states.begin(), filter.states.end());
  const auto wanted = [&states](run_state s) { return states.empty() || states.contains(s); };
  if (filter.pipeline.empty() && filter.job.empty()) {
    if (states.empty()) add(ids_);
    for (const run_state s : states) add(ids_in_state_, s);
    return ranges;
  }
  const bool job_everywhere = filter.pipeline.empty();
  if (job_everywhere) {
    using enum run_state;
    for (const run_state s : {succeeded, failed, cancelled, timed_out, skipped}) {
      if (wanted(s)) add(ended_ids_of_job_name_, filter.job, s);
    }
  }
  const auto parts = job_everywhere ? all(with(unfinished_groups_of_job_, filter.job), group_from)
                                    : groups(filter.pipeline, filter.job);
  for (const run_group& g : parts) {
    if (wanted(g.state)) add(ids_of_job_, g.pipeline, g.job, g.state);
  }
  return ranges;
}

store_reader::run_group store_reader::group_from(const sqlite::statement& s) {
  return {text(s, 0), text(s, 1), state_from(s, 2), s.integer(3)};
}

std::vector<store_reader::run_group> store_reader::groups(const std::string& pipeline,
                                                          const std::string& job) {
  if (pipeline.empty() && job.empty()) return all(all_groups_, group_from);
  if (pipeline.empty()) return all(with(groups_of_job_, job), group_from);
  auto found = all(with(groups_of_pipeline_, pipeline), group_from);
  if (!job.empty()) std::erase_if(found, [&](const run_group& g) { return g.job != job; });
  return found;
}

std::string store_reader::load_input(const std::string& run) {
  return one(with(input_, run), [](const sqlite::statement& s) { return std::string(s.blob(0)); })
      .value_or("");
}

std::optional<result<store::created>> store_reader::known_request(const idempotency& once) {
  return one(with(request_, once.scope, once.key),
             [&once](const sqlite::statement& s) { return answer_from(s, once); });
}

std::map<std::string, std::int64_t> store_reader::count_by_state(const std::string& pipeline,
                                                                 const std::string& job) {
  std::map<std::string, std::int64_t> counts;
  for (const run_group& g : groups(pipeline, job)) counts[std::string(token(g.state))] += g.runs;
  return counts;
}

// ---- triggers, dead letters, files, alerts ----

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

std::vector<timestamp> store_reader::scheduled_times(const std::string& pipeline, const std::string& job,
                                                     timestamp from, timestamp until) {
  return all(with(scheduled_times_, pipeline, job, from, until),
             [](const sqlite::statement& s) { return time(s, 0); });
}

std::vector<run_record> store_reader::dead_runs(const std::string& pipeline, const std::string& after_id,
                                                std::size_t limit) {
  if (pipeline.empty()) return all(with(dead_, after_id, limit), run_from);
  return all(with(dead_of_pipeline_, after_id, limit, pipeline), run_from);
}

std::int64_t store_reader::count_dead_runs() { return one(count_dead_, first_integer).value(); }

std::vector<file_claim> store_reader::taken_files(const std::string& pipeline, const std::string& job,
                                                  const std::string& trigger) {
  return all(with(taken_files_, pipeline, job, trigger), claim_from);
}

std::vector<file_claim> store_reader::files_of(const std::string& run) {
  return all(with(files_of_run_, run), claim_from);
}

std::vector<alert_record> store_reader::alerts(std::size_t limit) { return all(with(alerts_, limit), alert_from); }

}  // namespace penstock::scheduler
