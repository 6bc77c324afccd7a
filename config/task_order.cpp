#include "config/task_order.hpp"

#include <algorithm>

namespace penstock::config {

task_order::task_order(const node& tasks)
    : needs_(tasks.fields.size()), unknown_need_(tasks.fields.size()), seen_in_(tasks.fields.size()) {
  for (std::size_t i = 0; i < tasks.fields.size(); ++i) index_.emplace(tasks.fields[i].key, i);
  for (std::size_t i = 0; i < tasks.fields.size(); ++i) {
    const node* written = tasks.fields[i].value.find("needs");
    if (!written) continue;
    const auto add = [&](const node& need) {
      const auto found = index_.find(need.text);
      if (found == index_.end()) {
        unknown_need_[i] = true;
      } else {
        needs_[i].push_back(found->second);
      }
    };
    if (written->type == node::kind::scalar) add(*written);
    for (const node& need : written->items) add(need);
  }
}

std::vector<std::string> task_order::names() const {
  std::vector<std::string> out;
  for (const auto& [name, index] : index_) out.emplace_back(name);
  return out;
}

bool task_order::needs(std::string_view waiter, std::string_view target) {
  const std::size_t wanted = index_.at(target);
  std::vector<std::size_t> open{index_.at(waiter)};
  ++search_;
  while (!open.empty()) {
    const std::size_t task = open.back();
    open.pop_back();
    if (unknown_need_[task]) return true;
    for (const std::size_t need : needs_[task]) {
      if (need == wanted || --steps_left_ < 0) return true;
      if (seen_in_[need] == search_) continue;
      seen_in_[need] = search_;
      open.push_back(need);
    }
  }
  return false;
}

}  // namespace penstock::config
