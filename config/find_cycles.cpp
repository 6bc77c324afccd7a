#include <algorithm>
#include <set>

#include "config/check_pipeline.hpp"

namespace penstock::config {
namespace {

// Takes away, again and again, what waits for nothing that is left (Kahn). What stays is on a cycle or waits
// for one.
class remaining {
 public:
  explicit remaining(const waits_for& graph) : graph_(graph) {
    for (const auto& [name, needs] : graph_) left_.insert(name);
    for (const auto& [name, needs] : graph_) {
      for (const auto& need : needs) {
        if (!left_.count(need)) continue;
        ++open_needs_[name];
        waiting_on_[need].push_back(name);
      }
    }
    std::vector<std::string> free;
    for (const auto& name : left_) {
      if (open_needs_[name] == 0) free.push_back(name);
    }
    remove(std::move(free));
  }

  bool empty() const { return left_.empty(); }
  const std::string& first() const { return *left_.begin(); }

  // Removes these and whatever has nothing left to wait for then.
  void remove(std::vector<std::string> names) {
    while (!names.empty()) {
      const std::string name = std::move(names.back());
      names.pop_back();
      if (left_.erase(name) == 0) continue;
      for (const auto& waiter : waiting_on_[name]) {
        if (--open_needs_[waiter] == 0) names.push_back(waiter);
      }
    }
  }

  const std::string& next(const std::string& name) const {
    const auto& needs = graph_.at(name);
    return *std::find_if(needs.begin(), needs.end(),
                         [this](const auto& need) { return left_.count(need) > 0; });
  }

 private:
  const waits_for& graph_;
  std::set<std::string> left_;
  std::map<std::string, std::size_t> open_needs_;
  std::map<std::string, std::vector<std::string>> waiting_on_;
};

// Follows the graph until it comes back to a name it has seen; the way between is a cycle.
std::vector<std::string> cycle_from(const remaining& graph) {
  std::vector<std::string> path;
  std::map<std::string, std::size_t> seen;
  std::string name = graph.first();
  while (seen.emplace(name, path.size()).second) {
    path.push_back(name);
    name = graph.next(name);
  }
  path.erase(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(seen[name]));
  std::rotate(path.begin(), std::min_element(path.begin(), path.end()), path.end());
  return path;
}

std::string path_text(const std::vector<std::string>& path) {
  std::string out;
  for (const auto& name : path) out += (out.empty() ? "" : " -> ") + name;
  return out;
}

}  // namespace

void dependencies::add(const std::string& waiter, const std::string& need, const place& where) {
  graph[waiter].push_back(need);
  const mark at = where.what().at;
  written_at.emplace(std::pair{waiter, need}, problem{where.pointer(), at.line, at.column, ""});
}

void report_cycles(const dependencies& all, const std::string& what, problem_list& problems) {
  for (const auto& cycle : find_cycles(all.graph)) {
    problem p = all.written_at.at({cycle[0], cycle[1]});
    p.detail = what + path_text(cycle);
    problems.add(std::move(p));
  }
}

std::vector<std::vector<std::string>> find_cycles(const waits_for& graph) {
  std::vector<std::vector<std::string>> cycles;
  remaining left(graph);
  while (!left.empty()) {
    std::vector<std::string> cycle = cycle_from(left);
    left.remove(cycle);
    cycle.push_back(cycle.front());
    cycles.push_back(std::move(cycle));
  }
  return cycles;
}

}  // namespace penstock::config
