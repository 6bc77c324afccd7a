#include "scheduler/run_maker.hpp"

#include "runtime/topic.hpp"

namespace penstock::scheduler {

asio::awaitable<result<trigger_answer>> run_maker::make(std::shared_ptr<job_supervisor> job, run_record run,
                                                                   std::optional<idempotency> once) {
  auto prepared = job->prepare(std::move(run));
  if (!prepared) co_return prepared.error();
  prepared->made.once = std::move(once);
  const std::string id = prepared->made.run.id;
  bool settled = false;
  std::exception_ptr failure;
  result<trigger_answer> answer = error{};
  try {
    const auto created = co_await around_.store.create_run(prepared->made);
    settled = created && !created->existed;
    if (created) {
      answer = trigger_answer{created->existed ? created->id : id, created->existed};
    } else {
      answer = created.error();
    }
  } catch (...) {
    failure = std::current_exception();
  }
  prepared->settle(settled);
  if (failure) std::rethrow_exception(failure);
  co_return answer;
}

asio::awaitable<result<trigger_answer>> run_maker::trigger(std::string pipeline, std::string job, trigger_request request) {
  const auto found = pipelines_.find_job(pipeline, job);
  if (!found) co_return found.error();
  if (pipelines_.live().at(pipeline)->record().paused) co_return error{errc::conflict, "pipeline '" + pipeline + "' is paused"};
  auto run = (*found)->draft(trigger_kind::rest);
  run.params = std::move(request.params);
  if (request.events > 0) {
    run.input.type = run_input::kind::inline_events;
    run.input.ndjson = std::move(request.ndjson);
    run.input.events = request.events;
  }
  std::optional<idempotency> once;
  if (!request.idempotency_key.empty()) {
    once = idempotency{std::move(request.idempotency_key), pipeline + "/" + job, std::move(request.fingerprint)};
  }
  co_return co_await make(*found, std::move(run), std::move(once));
}

asio::awaitable<result<trigger_answer>> run_maker::retry(std::string id, std::optional<idempotency> once) {
  const auto stored = around_.store.run(id);
  if (!stored) co_return error{errc::not_found, "no run '" + id + "'"};
  if (!is_final(stored->state)) co_return error{errc::conflict, "run " + id + " has not ended yet"};
  const auto job = pipelines_.find_job(stored->pipeline, stored->job);
  if (!job) co_return job.error();
  auto run = (*job)->draft(trigger_kind::rest);
  run.params = stored->params;
  run.input = stored->input;
  run.input.open = false;
  if (run.input.type == run_input::kind::inline_events) run.input.ndjson = around_.store.load_input(id);
  if (run.input.type == run_input::kind::topic) {
    const auto topic = around_.offered.topics.find(run.input.topic);
    if (!topic) co_return error{errc::conflict, "its input topic '" + run.input.topic + "' no longer exists"};
    const auto first = topic->status().first_offset;
    if (first == 0 || first > run.input.after + 1) {
      co_return error{errc::conflict, "its input events are no longer kept in topic '" + run.input.topic + "'"};
    }
  }
  co_return co_await make(*job, std::move(run), std::move(once));
}

}  // namespace penstock::scheduler
