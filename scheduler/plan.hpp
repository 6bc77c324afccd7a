// What registering a definition would do, before anything is done: which values differ, what becomes of each topic, flow
// and job, and when its schedules fire next. Pure but for the question when a schedule fired last; control thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "config/definition.hpp"
#include "config/diff.hpp"
#include "config/document_diff.hpp"
#include "config/time.hpp"
#include "scheduler/cron.hpp"

namespace penstock::scheduler {

enum class part_change { added, changed, removed };

// A topic, flow or job that is not as it was.
struct planned_part {
  std::string name;
  part_change change{};
  std::string effect;                       // one sentence, without its subject: "drains, then starts again ..."
  std::vector<std::string> losses;          // of a flow: a sentence for each step that will start empty
  std::vector<config::field_change> fields; // of one that is changed; paths begin below it
};

struct planned_schedule {
  std::string job;
  std::string trigger;           // in words, as in job_view
  std::string timezone;          // of cron; else UTC
  std::vector<firing> next;      // at most `planned_firings`
  std::string note;              // what else there is to know; empty: nothing
};

constexpr std::size_t planned_firings = 20;

struct plan {
  std::vector<planned_part> topics, flows, jobs;     // by name; what is the same is left out
  std::vector<config::field_change> settings;        // all else of the pipeline
  std::size_t same_topics = 0, same_flows = 0, same_jobs = 0;
  std::string diff;                                  // unified, of the canonical texts
  std::string effect;                                // of the whole, when nothing would be stored or only the text differs
  std::vector<planned_schedule> schedules;           // of all jobs of the new definition
};

struct plan_question {
  const config::pipeline* before = nullptr;  // as it lives; null: there is none
  const config::pipeline& after;             // as it would live
  const config::pipeline_diff& changes;
  const config::catalog& components;
  bool paused = false;
  bool same_text = false;                    // nothing would be stored
  std::string before_label, after_label;     // for the diff: "orders, revision 3"
  std::vector<std::string> shared_topics{};  // that another pipeline declares as well
  timestamp now{};
  // When the trigger of that key fired last, or was seen for the first time; nothing: not seen yet.
  std::function<std::optional<timestamp>(const std::string& job, const std::string& key)> last_firing;
};

plan make_plan(const plan_question& asked);

}  // namespace penstock::scheduler
