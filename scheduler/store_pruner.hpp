// Retention: which runs are no longer kept, and their deletion in portions.
//
// Lives on the store thread beside the commit queue's connection, owned by store. A pass over all jobs is an object
// that store makes and hands in again for each portion, so that the commits of others come in between; each portion is
// one piece of a transaction of that queue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/sqlite.hpp"
#include "scheduler/store.hpp"

namespace penstock::scheduler {

namespace sqlite = runtime::sqlite;

class store_pruner {
 public:
  class pass {
   public:
    pass(timestamp before, std::int64_t keep, const std::vector<history>& own_rules);
    bool over() const { return step_ == step::over; }

   private:
    friend class store_pruner;

    enum class step { begin, by_age, by_number, keys, over };
    // One range of an index: the final runs of a job in one state, or in all.
    struct range {
      std::string pipeline, job;
      std::string state;      // by age
      std::int64_t runs = 0;  // by age: how many there are; by number: how many are too many
    };

    timestamp before_of(const range& r) const;
    std::int64_t keep_of(const range& r) const;
    void go_to(step next, std::vector<range> ranges);

    timestamp before_;
    std::int64_t keep_;
    std::map<std::pair<std::string, std::string>, history> own_rules_;  // by pipeline and job
    step step_ = step::begin;
    std::vector<range> ranges_;
    std::size_t at_ = 0;     // in ranges_
    std::string after_id_;  // how far that range was looked through
  };

  explicit store_pruner(sqlite::connection& db);

  // Goes on with the pass; the ids of the runs that it deleted. None does not mean that it is over.
  std::vector<std::string> portion(pass& p);

 private:
  std::vector<pass::range> final_ranges();
  std::vector<pass::range> crowded_jobs(const pass& p);
  std::vector<std::string> by_age(pass& p);
  std::vector<std::string> by_number(pass& p);
  void expired_keys(pass& p);

  sqlite::statement ranges_, old_, oldest_, remove_, keys_, forget_counts_;
};

}  // namespace penstock::scheduler
