// The rules of triggers that no record can say: cron expressions and time zones, what starts the same job twice, jobs
// that start each other, paths of files and hooks. One checker for one definition; any thread (the time zone list is
// read from the system once).
#pragma once

#include <map>
#include <string>

#include "config/check_pipeline.hpp"
#include "config/place.hpp"

namespace penstock::config {

class trigger_checker {
 public:
  // Both must outlive it.
  trigger_checker(const place& document, problem_list& problems);

  // `trigger` of a job. Call it for each, after all check_source() calls.
  void check(const std::string& job, const place& triggers);
  // `from` of a flow: a hook that a flow receives at is no job's.
  void check_source(const std::string& flow, const place& from);
  // Call it last.
  void check_cycles();

 private:
  void check_schedule(const place& trigger_place);
  void check_debounce(const place& trigger_place);
  void check_after(const std::string& job, const place& after);
  void check_job_exists(const std::string& job, const place& where, const job_reference& target);
  void check_file(const place& file);
  void check_hook(const std::string& whose, const place& path);

  const place& document_;
  problem_list& problems_;
  dependencies starts_after_;                 // jobs of this pipeline
  std::map<std::string, std::string> hooks_;  // path, and whose it is
};

}  // namespace penstock::config
