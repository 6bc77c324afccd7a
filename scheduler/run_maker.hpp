// Runs made on request: by REST, as a retry of an earlier run, or for a dead letter.
// Control thread; owned by the supervisor.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>

#include "scheduler/pipeline_set.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class run_maker {
 public:
  run_maker(surroundings& around, pipeline_set& pipelines) : around_(around), pipelines_(pipelines) {}

  // Admits, stores and starts (or queues) a drafted run. overloaded: the job's queue is full; conflict: the idempotency key
  // came with another request before.
  asio::awaitable<result<trigger_answer>> make(std::shared_ptr<job_supervisor> job, run_record run,
                                               std::optional<idempotency> once);
  // See supervisor::trigger and supervisor::retry.
  asio::awaitable<result<trigger_answer>> trigger(std::string pipeline, std::string job, trigger_request request);
  asio::awaitable<result<trigger_answer>> retry(std::string id, std::optional<idempotency> once);

 private:
  surroundings& around_;
  pipeline_set& pipelines_;
};

}  // namespace penstock::scheduler
