#include "scheduler/run_maker.hpp"

#include <algorithm>
#include <set>

#include "config/parameters.hpp"
#include "runtime/topic.hpp"
#include "scheduler/file_input.hpp"

namespace penstock::scheduler {

namespace {

constexpr std::size_t most_backfilled = 10'000;
constexpr std::size_t portion = 500;

// The tasks that need not be done again: those that succeeded and are still in the definition, with their instances.
std::vector<task_record> carried_over(std::vector<task_record> fresh, const std::vector<task_record>& earlier) {
  for (const auto& task : earlier) {
    const auto name = task.name.substr(0, task.name.find('['));
    const auto same = std::find_if(fresh.begin(), fresh.end(), [&name](const auto& t) { return t.name == name; });
    if (same == fresh.end() || (task.state != run_state::succeeded && task.item.empty())) continue;
    if (!task.item.empty()) {
      fresh.push_back(task);
      if (task.state != run_state::succeeded) fresh.back() = {.name = task.name, .item = task.item};
    } else {
      *same = task;
    }
  }
  return fresh;
}

}  // namespace

asio::awaitable<result<trigger_answer>> run_maker::trigger(std::string pipeline, std::string job, trigger_request request) {
  const auto found = pipelines_.find_job(pipeline, job);
  if (!found) co_return found.error();
  if (pipelines_.live().at(pipeline)->record().paused) co_return error{errc::conflict, "pipeline '" + pipeline + "' is paused"};
  const auto given = config::value::parse(request.params, nullptr, false);
  const auto params = config::check_parameters((*found)->definition(), given);
  if (!params) co_return params.error();
  auto run = (*found)->runs().draft(trigger_kind::rest);
  run.params = params->dump();
  run.trace = std::move(request.trace);
  if (request.priority) run.priority = *request.priority;
  if (request.events > 0) {
    run.input.type = run_input::kind::inline_events;
    run.input.ndjson = std::move(request.ndjson);
    run.input.events = request.events;
  }
  std::optional<idempotency> once;
  if (!request.idempotency_key.empty()) {
    once = idempotency{std::move(request.idempotency_key), pipeline + "/" + job, std::move(request.fingerprint)};
  }
  co_return co_await (*found)->runs().make(std::move(run), std::move(once));
}

asio::awaitable<result<trigger_answer>> run_maker::retry(std::string id, bool from_start, std::optional<idempotency> once,
                                                          trace_context trace) {
  const auto stored = around_.store.run(id);
  if (!stored) co_return error{errc::not_found, "no run '" + id + "'"};
  if (!is_final(stored->state)) co_return error{errc::conflict, "run " + id + " has not ended yet"};
  const auto job = pipelines_.find_job(stored->pipeline, stored->job);
  if (!job) co_return job.error();
  auto run = (*job)->runs().draft(trigger_kind::rest);
  run.retry_of = id;
  run.trace = std::move(trace);
  run.params = stored->params;
  run.priority = stored->priority;
  run.overlap_key = stored->overlap_key;
  run.scheduled_for = stored->scheduled_for;
  run.upstream_run = stored->upstream_run;
  run.input = stored->input;
  run.input.open = false;
  if (!from_start && stored->state != run_state::succeeded) run.tasks = carried_over(std::move(run.tasks), stored->tasks);
  if (run.input.type == run_input::kind::inline_events) {
    const auto ndjson = around_.store.load_input(id);
    const bool of_files = stored->trigger == trigger_kind::file || !stored->retry_of.empty();
    run.input.ndjson = of_files ? with_present_paths(ndjson, (*job)->definition().triggers) : ndjson;
  }
  if (run.input.type == run_input::kind::topic) {
    const auto topic = around_.offered.topics.find(run.input.topic);
    if (!topic) co_return error{errc::conflict, "its input topic '" + run.input.topic + "' no longer exists"};
    const auto kept = topic->status();
    if (kept.first_offset == 0 || kept.first_offset > run.input.after + 1 || kept.last_offset < run.input.until) {
      co_return error{errc::conflict, "its input events are no longer kept in topic '" + run.input.topic + "'"};
    }
  }
  co_return co_await (*job)->runs().make(std::move(run), std::move(once));
}

asio::awaitable<result<backfill_answer>> run_maker::backfill(std::string pipeline, std::string job, backfill_request request) {
  const auto found = pipelines_.find_job(pipeline, job);
  if (!found) co_return found.error();
  const auto& definition = (*found)->definition();
  const auto params = config::check_parameters(definition, config::value::parse(request.params, nullptr, false));
  if (!params) co_return params.error();
  request.until = std::min(request.until, wall_now());  // what is to come comes by itself
  std::vector<timestamp> times;
  bool scheduled = false;
  for (const auto& trigger : definition.triggers) {
    std::vector<timestamp> more;
    if (const auto* cron = std::get_if<config::cron_trigger>(&trigger)) {
      more = firings_between(*cron, request.from, request.until, most_backfilled);
      scheduled = true;
    } else if (const auto* every = std::get_if<config::every_trigger>(&trigger)) {
      more = firings_between(*every, request.from, request.until, most_backfilled);
      scheduled = true;
    }
    times.insert(times.end(), more.begin(), more.end());
  }
  if (!scheduled) co_return error{errc::conflict, "job '" + job + "' has no schedule (cron or every) to fill in"};
  std::sort(times.begin(), times.end());
  times.erase(std::unique(times.begin(), times.end()), times.end());
  if (times.size() > most_backfilled) {
    co_return error{errc::invalid, "there are more than " + std::to_string(most_backfilled) + " times between from and to; ask for less at once"};
  }

  backfill_answer answer;
  const std::string which = pipeline + "/" + job;
  if (!request.dry_run && !being_filled_.insert(which).second) {
    co_return error{errc::conflict, "job '" + job + "' is being backfilled by another request; ask again once that is answered"};
  }
  const auto forget = [this, which, counted = request.dry_run](void*) {
    if (!counted) being_filled_.erase(which);
  };
  const std::shared_ptr<void> until_here(nullptr, forget);
  const auto done = around_.store.scheduled_times(pipeline, job, request.from, request.until);
  const std::set<timestamp> known(done.begin(), done.end());
  std::vector<run_record> runs;
  for (const auto at : times) {
    if (!request.again && known.contains(at)) {
      ++answer.existing;
      continue;
    }
    runs.push_back((*found)->runs().draft(trigger_kind::backfill));
    runs.back().scheduled_for = at;
    runs.back().params = params->dump();
    answer.runs.push_back(runs.back().id);
  }
  if (request.dry_run || runs.empty()) {
    answer.made = static_cast<std::int64_t>(runs.size());
    answer.runs.clear();
    co_return answer;
  }
  // In portions, so that the commits of others come in between. After a crash the same request makes what is missing.
  const auto maker = (*found)->runs().shared_from_this();
  for (std::size_t i = 0; i < runs.size(); i += portion) {
    const auto end = std::min(runs.size(), i + portion);
    std::vector<run_record> some(std::make_move_iterator(runs.begin() + static_cast<std::ptrdiff_t>(i)), std::make_move_iterator(runs.begin() + static_cast<std::ptrdiff_t>(end)));
    co_await maker->make_all(std::move(some), std::nullopt);
    answer.made += static_cast<std::int64_t>(end - i);
  }
  co_return answer;
}

}  // namespace penstock::scheduler
