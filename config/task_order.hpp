// Which tasks of a job have ended when another starts, by what each needs. Pure; one checker uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/node.hpp"

namespace penstock::config {

class task_order {
 public:
  // `tasks`: the mapping of a job's tasks, which must outlive it.
  explicit task_order(const node& tasks);

  bool has(std::string_view task) const { return index_.count(task) > 0; }
  std::vector<std::string> names() const;
  // `waiter` needs `target`, itself or through others. Also true when that cannot be told: a name among the needs is
  // unknown (which is reported where it stands), or the definition is so large that looking would take long.
  bool needs(std::string_view waiter, std::string_view target);

 private:
  std::map<std::string_view, std::size_t> index_;
  std::vector<std::vector<std::size_t>> needs_;
  std::vector<bool> unknown_need_;
  std::vector<std::size_t> seen_in_;  // the search that came by last
  std::size_t search_ = 0;
  std::int64_t steps_left_ = 20'000'000;  // of all searches together
};

}  // namespace penstock::config
