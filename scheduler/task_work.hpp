// One task of a run, or one instance of a task that fans out, while it runs: a program or a bounded dataflow.
//
// Made on the control thread, which owns it and calls cancel(); the work itself is on a strand of the batch pool, and so is all
// that can be put together there: the control thread's time is everybody's. run() returns the task's outcome and never
// throws. One that hangs in a sink cannot be killed, only left behind (abandoned); its coroutine keeps it alive until it
// returns after all.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>

#include "runtime/command_run.hpp"
#include "runtime/dataflow_run.hpp"
#include "runtime/inputs.hpp"
#include "scheduler/pipeline_revision.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

// Makes a source of the run's input on the given strand; null when the run has none.
using task_input = std::function<std::unique_ptr<runtime::source>(const asio::any_io_executor& strand)>;

class task_work : public std::enable_shared_from_this<task_work> {
 public:
  enum class beginning { at_once, when_permitted };

  // `task` is the record as it stands, with its item. Everything is copied. when_permitted: only of a program.
  task_work(surroundings& around, std::shared_ptr<const pipeline_revision> revision, const run_record& run,
            const config::job& job, const config::task& definition, const task_record& task, beginning begins);

  // Call once.
  asio::awaitable<task_record> run(task_input input);
  void cancel();
  // What lets it begin; null: it does so at once.
  const std::shared_ptr<runtime::start_permit>& permit() const { return permit_; }
  // After the end: it has, or may have, left positions that its next attempt would go on from.
  bool leaves_positions() const { return leaves_positions_; }

  bool abandoned = false;

 private:
  asio::awaitable<void> run_dataflow(const config::dataflow& what, task_input input);
  asio::awaitable<void> run_command(std::shared_ptr<task_work> self, task_input input);
  asio::awaitable<runtime::command_outcome> execute(std::shared_ptr<task_work> self, std::unique_ptr<runtime::source> input);
  void fill_in(const run_record& run);
  std::map<std::string, std::string> environment() const;
  std::filesystem::path log_file() const;
  std::string consumer() const { return run_.pipeline + "/run/" + run_.id + "/" + task_.name; }

  surroundings& around_;
  const asio::any_io_executor strand_;  // of the batch pool
  const std::shared_ptr<runtime::start_permit> permit_;
  const std::shared_ptr<const pipeline_revision> revision_;
  const run_record run_;    // as it was when the task started; without its tasks and input
  const std::string file_;  // the one file that a file trigger handed to the run, or empty
  const config::task& definition_;  // in *revision_
  const std::chrono::nanoseconds grace_;
  task_record task_;
  config::command command_line_;  // filled in; its environment is filled_environment_
  std::map<std::string, std::string> filled_environment_;
  std::string trouble_;           // why it could not be
  std::shared_ptr<runtime::dataflow_run> dataflow_;
  std::shared_ptr<runtime::command_run> command_;  // strand
  std::atomic<bool> cancelled_{false};
  bool leaves_positions_ = false;
};

}  // namespace penstock::scheduler
