// The control plane's words as types: states of runs, tasks and flows, and the records that the store keeps.
// Plain values. The tokens are those of design.md section 1, the same in REST, database, logs and metrics.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/time.hpp"
#include "scheduler/trace_context.hpp"

namespace penstock::scheduler {

// Of a run, and of a task in it.
enum class run_state { queued, running, retrying, succeeded, failed, cancelled, timed_out, skipped };
enum class flow_state { starting, running, backing_off, paused, draining, stopped, failed };
enum class trigger_kind { topic, cron, every, at, after, file, webhook, backfill, rest };

std::string_view token(run_state s);
std::string_view token(flow_state s);
std::string_view token(trigger_kind k);
std::optional<run_state> parse_run_state(std::string_view token);
std::optional<trigger_kind> parse_trigger_kind(std::string_view token);

// succeeded, failed, cancelled, timed_out and skipped never change again (a retry by REST makes a new run).
bool is_final(run_state s);
// The complete table of legal transitions; the store refuses (throws) any other.
bool may_become(run_state from, run_state to);

// What a run reads. Fixed when the run is made; a topic claim with grace_period may grow until it is closed.
struct run_input {
  enum class kind { none, topic, inline_events };
  kind type = kind::none;
  std::string topic;  // kind::topic: offsets (after, until]
  std::int64_t after = 0;
  std::int64_t until = 0;
  bool open = false;        // kind::topic: may still grow
  std::string ndjson;       // kind::inline_events
  std::int64_t events = 0;  // how many
  std::string where{};      // kind::topic: expression; only events for which it is true are read. Empty: all
};

struct task_record {
  std::string name;
  run_state state = run_state::queued;
  int attempt = 0;  // how often it was started
  std::optional<int> exit_code{};
  std::string reason{};  // in words; empty when it succeeded
  std::string output{};  // JSON object: what it wrote to $PENSTOCK_OUTPUT. Empty: nothing
  std::string item{};    // an instance of a task that fans out: its item as JSON. Empty: it is none
  std::optional<timestamp> started_at{}, ended_at{};
};

struct run_record {
  std::string id;  // ULID
  std::string pipeline;
  std::string job;
  std::int64_t revision = 0;
  run_state state = run_state::queued;
  trigger_kind trigger = trigger_kind::rest;
  std::string waiting_reason{};  // why a queued or retrying run does not run now
  std::string reason{};          // why it ended as it did
  int attempt = 0;               // attempts started
  int interruptions = 0;  // attempts cut off by a daemon stop or crash; they are not counted in `attempt`
  std::optional<timestamp> scheduled_for{};  // cron, every, at, backfill: the time it stands for
  std::string upstream_run{};                // after: the run whose end made this one
  std::string retry_of{};                    // the run that this one repeats
  int priority = 5;                          // 0 to 9
  std::string overlap_key{};
  std::optional<timestamp> deadline_at{};    // timed_out when it has not ended by then
  run_input input{};                         // `ndjson` only filled by store::load_input
  std::string params = "{}";                 // JSON object
  trace_context trace{};                     // what asked for it
  timestamp created_at{};
  std::optional<timestamp> started_at{}, ended_at{};
  std::optional<timestamp> retry_at{};  // retrying: not before
  std::vector<task_record> tasks{};     // in the definition's order
};

// What happened to a run, in order; kept by the store, which writes each entry with the change it tells of.
struct timeline_entry {
  timestamp at{};
  std::string what;    // a state token, or "interrupted"
  std::string detail;  // in words; may be empty
  bool operator==(const timeline_entry&) const = default;
};

// An alert that was not delivered yet.
struct alert_record {
  std::string id;  // ULID
  std::string pipeline, job, run;
  std::int64_t revision = 0;  // whose job.alerts[index] says where it goes
  int index = 0;
  std::string kind;      // "failure" or "late"
  std::string payload;   // JSON object
  timestamp created_at{};
  int attempts = 0;      // deliveries tried
  std::string failure{}; // of the last one
};

// A file that a run has taken.
struct file_claim {
  std::string pipeline, job;
  std::string trigger;  // its key
  std::string path;     // absolute
  std::string stamp;    // tells this content from a later one under the same name
  std::string run{};    // that took it
};

struct pipeline_record {
  std::string name;
  std::int64_t revision = 0;  // from 1, one more at each change
  std::string text;           // as it was sent
  std::string media_type;     // application/yaml or application/json
  std::string origin;         // "rest", or the file's path
  std::string etag;           // "\"REVISION-HASH\""
  bool paused = false;
  timestamp created_at{};
  timestamp updated_at{};  // of this revision
};

}  // namespace penstock::scheduler
