#include "config/diff.hpp"

#include <nlohmann/json.hpp>

namespace penstock::config {
namespace {

template <class T>
changes changes_between(const std::map<std::string, T, std::less<>>& from,
                        const std::map<std::string, T, std::less<>>& to, bool all_changed) {
  changes out;
  for (const auto& [name, old] : from) {
    const auto now = to.find(name);
    if (now == to.end()) {
      out.removed.push_back(name);
    } else if (all_changed || !(now->second == old)) {
      out.changed.push_back(name);
    }
  }
  for (const auto& [name, now] : to) {
    if (!from.count(name)) out.added.push_back(name);
  }
  return out;
}

value tests_of(const pipeline& p) { return p.document.is_object() ? p.document.value("tests", value()) : value(); }

}  // namespace

pipeline_diff diff(const pipeline* from, const pipeline* to) {
  static const pipeline nothing{};
  const pipeline& before = from ? *from : nothing;
  const pipeline& after = to ? *to : nothing;
  const bool moved = before.workdir != after.workdir;
  return {.topics = changes_between(before.topics, after.topics, false),
          .flows = changes_between(before.flows, after.flows, moved),
          .jobs = changes_between(before.jobs, after.jobs, moved),
          .settings_changed = moved || before.description != after.description ||
                              before.max_active != after.max_active || before.pools != after.pools ||
                              tests_of(before) != tests_of(after)};
}

}  // namespace penstock::config
