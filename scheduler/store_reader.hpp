// Everything that only looks at state.db. Lives on the control thread with a read-only connection of its own,
// owned by store; sees what was committed before each call.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/sqlite.hpp"
#include "scheduler/store.hpp"
#include "scheduler/store_security.hpp"

namespace penstock::scheduler {

namespace sqlite = runtime::sqlite;

class store_reader {
 public:
  explicit store_reader(const std::filesystem::path& file);

  std::string instance();
  std::vector<pipeline_record> pipelines();
  std::optional<pipeline_record> revision(const std::string& pipeline, std::int64_t revision);
  std::vector<pipeline_record> revisions(const std::string& pipeline);

  std::optional<run_record> run(const std::string& id);
  std::vector<timeline_entry> timeline(const std::string& run);
  std::vector<run_record> runs(const run_filter& filter);
  std::string load_input(const std::string& run);
  std::optional<result<store::created>> known_request(const idempotency& once);
  std::map<std::string, std::int64_t> count_by_state(const std::string& pipeline, const std::string& job);

  std::optional<std::int64_t> cursor(const std::string& pipeline, const std::string& job,
                                     const std::string& trigger);
  std::optional<timestamp> last_firing(const std::string& pipeline, const std::string& job,
                                       const std::string& trigger);
  std::vector<std::pair<std::string, std::int64_t>> cursors();
  std::vector<timestamp> scheduled_times(const std::string& pipeline, const std::string& job, timestamp from,
                                         timestamp until);

  std::vector<file_claim> taken_files(const std::string& pipeline, const std::string& job,
                                      const std::string& trigger);
  std::vector<file_claim> files_of(const std::string& run);
  std::vector<alert_record> alerts(std::size_t limit);

  std::vector<run_record> dead_runs(const std::string& pipeline, const std::string& after_id,
                                    std::size_t limit);
  std::int64_t count_dead_runs();

  security_reader& security() { return security_; }

 private:
  // A part of the index runs_of_job, and how many runs are in it.
  struct run_group {
    std::string pipeline, job;
    run_state state;
    std::int64_t runs;
  };

  // Several statements that see the file at one moment.
  class snapshot {
   public:
    explicit snapshot(store_reader& of) : of_(of) { of_.begin_.run(); }
    ~snapshot() {
      if (of_.db_.in_transaction()) of_.end_.run();
    }
    snapshot(const snapshot&) = delete;
    snapshot& operator=(const snapshot&) = delete;

   private:
    store_reader& of_;
  };

  explicit store_reader(sqlite::connection db);

  using find_below = std::function<std::vector<std::string>(const std::string& below, std::size_t limit)>;

  std::vector<std::string> page_ids(const run_filter& filter);
  std::vector<find_below> ranges_of(const run_filter& filter);
  static run_group group_from(const sqlite::statement& s);
  std::vector<run_group> groups(const std::string& pipeline, const std::string& job);

  sqlite::connection db_;
  sqlite::statement begin_, end_, instance_, pipelines_, revision_, revisions_;
  sqlite::statement run_, tasks_, timeline_, input_, request_, ids_, ids_in_state_, ids_of_job_, ended_ids_of_job_name_;
  sqlite::statement all_groups_, groups_of_pipeline_, groups_of_job_, unfinished_groups_of_job_;
  sqlite::statement cursor_, last_firing_, cursors_, scheduled_times_, dead_, dead_of_pipeline_, count_dead_;
  sqlite::statement taken_files_, files_of_run_, alerts_;
  security_reader security_;
};

}  // namespace penstock::scheduler
