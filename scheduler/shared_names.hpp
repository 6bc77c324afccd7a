// What pipelines share by name: topics, paths of webhooks, pools, and jobs that other jobs follow. An index over their
// definitions, so that a question about one name costs the same with one pipeline and with ten thousand.
//
// Control thread; owned by the pipeline set, which has one for the definitions that live and one for those on their way. What
// always holds: the index says what the definitions say that were given last.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/definition.hpp"

namespace penstock::scheduler {

using job_path = std::pair<std::string, std::string>;  // pipeline, job

class shared_names {
 public:
  // From now on the pipeline is defined so; null: it is gone.
  void define(const std::string& pipeline, std::shared_ptr<const config::pipeline> definition);

  // Where `next` means something else by a name than another pipeline does: a topic with other settings, a hook's path.
  std::vector<problem> conflicts(const config::pipeline& next) const;

  // The pipeline that receives at this path under /hooks; empty: none.
  std::string hook_owner(const std::string& path) const;
  bool declares_topic(const std::string& topic) const { return topics_.contains(topic); }
  // The fewest slots that a pipeline gives the pool; 0: none declares it.
  std::int64_t slots(const std::string& pool) const;
  // Jobs with an `after` trigger on this one.
  const std::set<job_path>& followers(const job_path& followed) const;
  // Jobs with a trigger on the topic.
  const std::set<job_path>& triggered_by(const std::string& topic) const;

 private:
  void index_topic(const std::string& pipeline, const config::topic& topic, bool add);
  void index(const std::string& pipeline, const config::pipeline& definition, bool add);

  std::map<std::string, std::shared_ptr<const config::pipeline>> definitions_;
  // Pipelines that declare a topic, by what they say of it: one entry unless a definition takes the place of another.
  struct declared {
    config::topic settings;
    std::set<std::string> by;
  };
  std::map<std::string, std::vector<declared>> topics_;
  std::map<std::string, std::map<std::string, std::string>> hooks_;  // path -> pipeline -> where in it: "/flows/intake", "/jobs/build"
  std::map<std::string, std::multiset<std::int64_t>> pools_;         // -> slots, one entry a pipeline
  std::map<job_path, std::set<job_path>> followers_;
  std::map<std::string, std::set<job_path>> triggered_;           // by topic
};

// The job that an `after` trigger of `pipeline` follows.
job_path followed_job(const config::after_trigger& trigger, const std::string& pipeline);

}  // namespace penstock::scheduler
