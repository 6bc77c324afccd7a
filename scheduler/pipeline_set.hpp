// All pipelines that live, by name: registering, replacing, removing, pausing them, and finding things in them.
//
// Control thread; owned by the supervisor. What always holds: a pipeline in `live` has a current revision, and that
// revision is the one the store calls current. Changes of one pipeline go through its gate, one after another.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/gate.hpp"
#include "runtime/topic.hpp"
#include "scheduler/live_pipeline.hpp"
#include "scheduler/shared_names.hpp"
#include "scheduler/surroundings.hpp"

namespace penstock::scheduler {

// errc::not_found with the nearest known name.
error not_found(const std::string& what, const std::string& name, const std::vector<std::string>& known);

class pipeline_set {
 public:
  // `activity` is notified when something happened that maintenance may have to clean up after.
  pipeline_set(surroundings& around, std::shared_ptr<runtime::wakeup> activity);

  // Before load_stored(): pipelines whose files were changed while the daemon was down begin with what these say now.
  asio::awaitable<void> take_up_files(std::filesystem::path folder);
  // Everything stored, as a change from nothing; its jobs wait for start_jobs().
  asio::awaitable<void> load_stored();
  void start_jobs();

  asio::awaitable<result<apply_answer>> apply(apply_request request);
  asio::awaitable<result<apply_answer>> rollback(rollback_request request);
  result<pipeline_record> revision(const std::string& name, std::int64_t revision) const;
  // Every definition file of the folder; those that are gone are no longer broken.
  asio::awaitable<void> load_folder(std::filesystem::path folder);
  // These files, where they exist.
  asio::awaitable<void> load_files(std::vector<std::filesystem::path> files);
  asio::awaitable<result<void>> remove(std::string name, std::string if_match);
  asio::awaitable<result<void>> pause(std::string name);
  asio::awaitable<result<void>> resume(std::string name);
  asio::awaitable<result<void>> start_flow(std::string pipeline, std::string flow);
  asio::awaitable<result<void>> stop_flow(std::string pipeline, std::string flow, unfinished_work what);
  // The daemon stops: lets changes that are on their way finish, and refuses all later ones.
  asio::awaitable<void> close();

  const std::map<std::string, std::shared_ptr<live_pipeline>, std::less<>>& live() const { return live_; }
  result<std::shared_ptr<live_pipeline>> find(const std::string& name) const;
  result<std::shared_ptr<job_supervisor>> find_job(const std::string& pipeline, const std::string& job) const;
  result<std::shared_ptr<flow_supervisor>> find_flow(const std::string& pipeline, const std::string& flow) const;
  std::vector<broken_file> broken_files() const;
  std::string hook_owner(const std::string& path) const;  // the pipeline that receives there; empty: none
  std::vector<std::shared_ptr<job_supervisor>> all_jobs() const;  // retired ones too

  // A run found unfinished at start goes back to its job, or to one made for it when its definition is gone.
  asio::awaitable<void> take_over(run_record record);
  // The runs that other jobs' `after` triggers make of a run that ends now.
  std::vector<prepared_run> dependents_of(const run_record& ended);
  // The same, and its alerts, of a run whose end is stored without them.
  asio::awaitable<void> follow(run_record ended);
  // Who reads the topic and how far.
  std::vector<consumer_view> consumers(const std::string& topic) const;
  void forget_idle_jobs();

 private:
  result<void> check_preconditions(const apply_request& request, const live_pipeline* live) const;
  // What apply() would do with the definition, as it would live; `live`: what is there, or null.
  plan plan_of(const config::pipeline& after, const apply_answer& answer, const live_pipeline* live) const;
  void share_pools(const config::pipeline& definition);  // those that it declares
  // Topics and hook paths are shared by all: two pipelines may not mean different things by one name.
  result<void> check_shared_names(const config::pipeline& next) const;
  asio::awaitable<std::optional<error>> apply_file(std::filesystem::path file);
  asio::awaitable<void> write_down(std::string file, pipeline_record taken);  // in the audit log
  asio::awaitable<void> load_file(std::filesystem::path file);
  asio::awaitable<void> load_each(std::vector<std::filesystem::path> files);
  bool is_loaded(const apply_request& from_file) const;
  std::optional<error> claimed_by_another_file(const std::string& name, const std::string& file) const;
  std::int64_t revision_before(const pipeline_record& current) const;
  void tell(const std::string& name, const char* what);
  void forget_unreadable(const std::string& name);
  asio::awaitable<void> bring_to_life(pipeline_record record, std::shared_ptr<const pipeline_revision> revision);
  std::vector<std::string> topics_only_of(const std::string& name) const;
  bool uses_topic(const live_pipeline& pipeline, const std::string& topic) const;
  std::shared_ptr<const pipeline_revision> revision_of(const run_record& run) const;
  std::shared_ptr<job_supervisor> retired_job(std::shared_ptr<const pipeline_revision> revision, const std::string& job);
  runtime::gate& gate_of(const std::string& name);

  surroundings& around_;
  const std::shared_ptr<runtime::wakeup> activity_;
  std::map<std::string, std::shared_ptr<live_pipeline>, std::less<>> live_;
  std::map<std::string, std::unique_ptr<runtime::gate>> gates_;
  // Of definitions that are checked but do not live yet, and of those that others take the place of: they have their topics and
  // hook paths already, or still.
  shared_names passing_;
  std::vector<std::shared_ptr<job_supervisor>> retired_jobs_;  // of pipelines that are gone
  shared_names names_;  // of what lives
  std::map<std::string, std::set<std::string>> of_file_;  // file -> pipelines that live and were last defined there
  std::map<std::string, std::shared_ptr<runtime::topic::subscription>> expiring_;  // topics whose appends are activity
  runtime::gate loading_;  // one load of files at a time
  std::map<std::string, std::vector<problem>> broken_;  // by file, or by a name for a stored revision
  std::map<std::string, pipeline_record> unreadable_;  // stored, but refused by this binary: can be replaced or removed
  std::vector<runtime::gate::pass> held_;              // once closed; ends before gates_
  bool closed_ = false;
};

// What is answered once the daemon stops.
error stopping_error();

// Is it the name of one: *.yaml, *.yml or *.json, and not hidden?
bool is_definition_file(const std::filesystem::path& file);

// "PIPELINE/flow/FLOW" or "PIPELINE/run/RUN/TASK", without what only tells two lives of a flow apart.
std::string shown_consumer(const std::string& consumer);

}  // namespace penstock::scheduler
