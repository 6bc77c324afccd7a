// One pipeline as it lives: its current revision and the supervisors of its flows and jobs.
// Control thread; owned by the supervisor. Moving from one revision to another is one function, also from and to nothing.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/diff.hpp"
#include "config/error.hpp"
#include "scheduler/flow_supervisor.hpp"
#include "scheduler/job_supervisor.hpp"
#include "scheduler/pipeline_revision.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

// "PIPELINE/FLOW" -> the flow.
using flow_list = std::map<std::string, std::shared_ptr<flow_supervisor>>;

// Drains all of them at once. Returns a sentence for each that did not end within `limit`.
asio::awaitable<std::vector<std::string>> stop_flows(surroundings& around, flow_list flows,
                                                     std::chrono::nanoseconds limit, flow_state end_state,
                                                     unfinished_work what = unfinished_work::keep);

class live_pipeline {
 public:
  live_pipeline(surroundings& around, std::string name);

  // Declares the topics of `next` and redefines the changed ones. Before any flow of any pipeline that reads them.
  void declare_topics(const config::pipeline& next);

  // Puts the changed flows of `next` in the place of those that are there and waits until they have opened all that they
  // need; nothing is read or stored by them before become(). When one does not start whose predecessor was at work, all
  // are put back, and it is said why. Only where the revision removes no flow, for a removed one may emit what cannot be
  // taken back. To be followed by become() or put_back(). One that takes longer than `start_patience` counts as started.
  asio::awaitable<std::vector<problem>> try_changed(std::shared_ptr<const pipeline_revision> next,
                                                    std::chrono::nanoseconds limit);
  asio::awaitable<void> put_back(std::chrono::nanoseconds limit);

  // From the current revision to `next`: what is gone or changed drains first, then what is new or changed starts. What is
  // the same goes on untouched; new jobs wait for start_jobs(). Returns what had to be left behind, one sentence each.
  asio::awaitable<std::vector<std::string>> become(pipeline_record record, std::shared_ptr<const pipeline_revision> next,
                                                   std::chrono::nanoseconds limit);
  void start_jobs();
  flow_list all_flows() const;

  asio::awaitable<void> pause(std::chrono::nanoseconds limit);
  void resume();
  void retire_jobs();

  const pipeline_record& record() const { return record_; }
  const std::shared_ptr<const pipeline_revision>& current() const { return current_; }
  const std::map<std::string, std::shared_ptr<flow_supervisor>>& flows() const { return flows_; }
  const std::map<std::string, std::shared_ptr<job_supervisor>>& jobs() const { return jobs_; }
  // Jobs whose definition is gone but whose runs are not.
  const std::vector<std::shared_ptr<job_supervisor>>& retired_jobs() const { return retired_jobs_; }
  pipeline_view view() const;

 private:
  static constexpr std::chrono::seconds start_patience{5};  // the others of the pipeline are held as long

  // Of changed flows that are on trial: what they have replaced, and which of these were alive.
  struct trial {
    std::map<std::string, std::shared_ptr<flow_supervisor>> replaced;
    std::set<std::string> alive;
  };
  void change_jobs(const config::pipeline_diff& changed, const std::shared_ptr<const pipeline_revision>& next);

  surroundings& around_;
  const std::string name_;
  pipeline_record record_;
  std::shared_ptr<const pipeline_revision> current_;  // null: nothing yet
  std::map<std::string, std::shared_ptr<flow_supervisor>> flows_;
  std::optional<trial> trial_;
  std::map<std::string, std::shared_ptr<job_supervisor>> jobs_;
  std::vector<std::shared_ptr<job_supervisor>> retired_jobs_;
};

}  // namespace penstock::scheduler
