// Dead letters of both kinds as one list, replayed or discarded: events that a flow or task could not process (kept by
// the flow_store) and runs that ended failed with input (kept by the store). Control thread; owned by the supervisor.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>
#include <vector>

#include "runtime/flow_store.hpp"
#include "scheduler/pipeline_set.hpp"
#include "scheduler/run_maker.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

class dead_letter_desk {
 public:
  dead_letter_desk(surroundings& around, pipeline_set& pipelines, run_maker& runs)
      : around_(around), pipelines_(pipelines), runs_(runs) {}

  // See the methods of the same names of supervisor.
  std::vector<dead_letter_view> list(const std::string& pipeline, const std::string& after_id, std::size_t limit);
  std::int64_t count();
  asio::awaitable<result<settled>> replay(std::vector<std::string> ids);
  asio::awaitable<result<settled>> discard(std::vector<std::string> ids);

 private:
  asio::awaitable<void> replay_flow(std::string consumer, std::vector<runtime::dead_letter> letters, settled& outcome);
  asio::awaitable<void> replay_task(std::string consumer, std::vector<runtime::dead_letter> letters, settled& outcome);
  asio::awaitable<void> replay_run(std::string id, settled& outcome);

  surroundings& around_;
  pipeline_set& pipelines_;
  run_maker& runs_;
};

}  // namespace penstock::scheduler
