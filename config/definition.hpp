// A pipeline as checked, plain values: what one YAML definition means (design.md section 2).
//
// Made by parse_pipeline only, so whatever holds here was checked: names are well-formed and unique, every
// `needs` names a task and the tasks form a DAG, every component's settings fit its record, durations are
// positive. Constant after construction and shared as shared_ptr<const pipeline>; any thread may read.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/cron_expression.hpp"
#include "config/field.hpp"
#include "config/node.hpp"
#include "config/time.hpp"

namespace penstock::config {

// One component with its checked settings. Secrets are still references.
struct component_use {
  std::string component;  // its registered name
  std::string name;  // a step: the writer's `name:` or component plus position ("filter_1"); else "from" or
                     // "to". Unique in a dataflow
  value settings;
  bool operator==(const component_use&) const = default;
};

struct dataflow {
  std::optional<component_use> from;  // a job's may be absent: it reads the events its trigger claimed
  std::vector<component_use> steps;
  std::optional<component_use> to;  // absent only in a command's output, where it means "the log"
  bool operator==(const dataflow&) const = default;
};

struct command {
  std::vector<std::string> run;  // never empty
  std::map<std::string, std::string> environment;
  std::optional<component_use> to;  // where its NDJSON output goes; absent: the log
  bool operator==(const command&) const = default;
};

using work = std::variant<dataflow, command>;

struct dedupe_rule {
  std::string key;  // expression
  nanoseconds within{};
  bool operator==(const dedupe_rule&) const = default;
};

struct topic {
  std::string name;
  std::optional<nanoseconds> retain;      // absent: for ever
  std::optional<std::int64_t> max_bytes;  // absent: no limit
  std::optional<dedupe_rule> dedupe;
  bool operator==(const topic&) const = default;
};

struct flow {
  std::string name;
  work does;
  nanoseconds grace{};  // TERM to KILL, for a supervised command
  bool operator==(const flow&) const = default;
};

struct topic_trigger {
  std::string topic;
  std::int64_t max_events = 0;  // at most so many events in a run; > 0
  nanoseconds max_wait{};       // how long to wait for that many; 0: start with what is there
  nanoseconds
      grace_period{};  // a run stays open so long after its last event; 0: its input is fixed at the start
  bool operator==(const topic_trigger&) const = default;
};
enum class missed_policy { skip, one, all };
struct cron_trigger {
  cron_expression expression;
  std::string timezone;  // IANA name; known to the time zone library
  missed_policy missed = missed_policy::skip;
  bool operator==(const cron_trigger&) const = default;
};
struct every_trigger {
  nanoseconds interval{};
  bool operator==(const every_trigger&) const = default;
};
enum class after_outcome { succeeded, failed, any };
struct after_trigger {
  std::string pipeline;  // empty: this one
  std::string job;
  after_outcome outcome = after_outcome::succeeded;
  bool operator==(const after_trigger&) const = default;
};
using trigger = std::variant<topic_trigger, cron_trigger, every_trigger, after_trigger>;

struct task {
  std::string name;
  work does;
  std::vector<std::string> needs;
  std::optional<nanoseconds> timeout;
  bool operator==(const task&) const = default;
};

struct retry_rule {
  int attempts = 1;             // in all, the first included
  nanoseconds backoff_first{};  // before the second attempt; doubles
  nanoseconds backoff_limit{};
  bool operator==(const retry_rule&) const = default;
};

enum class overlap_rule { queue, skip, allow, replace };

struct job {
  std::string name;
  std::vector<trigger> triggers;  // none: by REST only
  std::vector<task>
      tasks;  // in the order written; a job that is one dataflow or command has one task, "main"
  std::optional<nanoseconds> timeout;
  retry_rule retry;
  overlap_rule on_overlap = overlap_rule::queue;
  std::int64_t queue_limit = 0;  // waiting runs beyond which a trigger is refused
  nanoseconds grace{};           // TERM to KILL
  bool operator==(const job&) const = default;
};

struct pipeline {
  std::string name;
  std::string description;
  std::string workdir;  // as written, may hold ${dir}; empty: DATA/work/PIPELINE
  std::map<std::string, topic, std::less<>> topics;
  std::map<std::string, flow, std::less<>> flows;
  std::map<std::string, job, std::less<>> jobs;
  // The whole definition with defaults filled in, as REST shows it: durations and sizes with their units,
  // secrets as references. Parsing it again gives an equal pipeline.
  value document;
};

struct parse_options {
  std::string file{};  // for messages, e.g. "orders.yaml"; empty for a request body
  node_limits limits{};
};

// Text (YAML or JSON) to a checked pipeline, or every problem of the text at once, sorted by position.
// errc::malformed: not YAML at all; errc::invalid: YAML, but not a pipeline.
result<pipeline> parse_pipeline(std::string_view text, const catalog& components,
                                const parse_options& options = {});

// "orders.yaml:12:5: /flows/intake/form: unknown key 'form'; did you mean 'from'?" One line, no newline.
std::string describe(const problem& p, std::string_view file);

}  // namespace penstock::config
