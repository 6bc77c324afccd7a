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

namespace penstock::scheduler {

// Of a run, and of a task in it.
enum class run_state { queued, running, retrying, succeeded, failed, cancelled, timed_out, skipped };
enum class flow_state { starting, running, backing_off, paused, draining, stopped, failed };
enum class trigger_kind { topic, cron, every, after, rest };

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
};

struct task_record {
  std::string name;
  run_state state = run_state::queued;
  int attempt = 0;  // how often it was started
  std::optional<int> exit_code{};
  std::string reason{};  // in words; empty when it succeeded
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
  std::optional<timestamp> scheduled_for{};  // cron, every: the time it stands for
  std::string upstream_run{};                // after: the run whose end made this one
  run_input input{};                         // `ndjson` only filled by store::load_input
  std::string params = "{}";                 // JSON object
  timestamp created_at{};
  std::optional<timestamp> started_at{}, ended_at{};
  std::optional<timestamp> retry_at{};  // retrying: not before
  std::vector<task_record> tasks{};     // in the definition's order
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
