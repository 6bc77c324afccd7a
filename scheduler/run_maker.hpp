// Runs made on request: by REST, as a retry of an earlier run, or for a dead letter.
// Control thread; owned by the supervisor.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "scheduler/pipeline_set.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class run_maker {
 public:
  run_maker(surroundings& around, pipeline_set& pipelines) : around_(around), pipelines_(pipelines) {}

  // See supervisor.
  asio::awaitable<result<trigger_answer>> trigger(std::string pipeline, std::string job, trigger_request request);
  asio::awaitable<result<trigger_answer>> retry(std::string id, bool from_start, std::optional<idempotency> once,
                                               trace_context trace);
  asio::awaitable<result<backfill_answer>> backfill(std::string pipeline, std::string job, backfill_request request);

 private:
  surroundings& around_;
  pipeline_set& pipelines_;
  std::set<std::string> being_filled_;  // "PIPELINE/JOB" of backfills that are on their way
};

}  // namespace penstock::scheduler
