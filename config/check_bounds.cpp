#include "config/check_bounds.hpp"

#include <algorithm>
#include <optional>
#include <string>

#include "config/time.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

using optional_duration = std::optional<nanoseconds>;

optional_duration length_at(const node& mapping, std::string_view key) {
  const node* written = mapping.find(key);
  const auto parsed = written && written->type == node::kind::scalar ? parse_duration(written->text) : std::nullopt;
  return parsed ? optional_duration(*parsed) : std::nullopt;
}

// `what` names the bound in the message: "the run's deadline".
void check_at_most(const place& p, std::string_view key, const optional_duration& most, const std::string& what,
                   problem_list& problems) {
  const optional_duration given = length_at(p.what(), key);
  if (!given || !most || *given <= *most) return;
  look_at(p, key, [&](const place& found) {
    problems.wrong_value(found, "longer than " + what + " (" + format_duration(*most) + "), so it is never reached");
  });
}

void check_lengths(const place& job, problem_list& problems) {
  const optional_duration timeout = length_at(job.what(), "timeout"), deadline = length_at(job.what(), "deadline");
  check_at_most(job, "timeout", deadline, "the run's deadline", problems);
  look_at(job, "tasks", [&](const place& tasks) {
    for_each_entry(tasks, [&](const std::string&, const place& task) {
      if (timeout && (!deadline || *timeout <= *deadline)) {
        check_at_most(task, "timeout", timeout, "the timeout of the whole attempt", problems);
      } else {
        check_at_most(task, "timeout", deadline, "the run's deadline", problems);
      }
    });
  });
  if (!deadline) return;
  const nanoseconds grace = length_at(job.what(), "grace").value_or(std::chrono::seconds(10));
  look_at(job, "alerts", [&](const place& alerts) {
    for_each_item(alerts, [&](const place& alert) {
      check_at_most(alert, "late_after", *deadline + grace, "the run's deadline with its grace", problems);
    });
  });
}

bool has_topic_trigger(const node& job) {
  const node* trigger = job.find("trigger");
  if (!trigger) return false;
  return trigger->find("topic") || std::any_of(trigger->items.begin(), trigger->items.end(),
                                               [](const node& item) { return item.find("topic") != nullptr; });
}

}  // namespace

void check_bounds_of_job(const place& job, problem_list& problems) {
  check_lengths(job, problems);
  look_at(job, "on_overlap", [&](const place& overlap) {
    const node* rule = overlap.what().find("rule");
    // With a topic trigger, the key still says which events share a run.
    if (!rule || rule->text != "allow" || has_topic_trigger(job.what())) return;
    look_at(overlap, "key", [&](const place& key) {
      problems.wrong_key(key, "'key' means nothing with rule 'allow', where no run gets into another's way");
    });
  });
}

}  // namespace penstock::config
