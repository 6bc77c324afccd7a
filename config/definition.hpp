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

// What is done when a sink does not take events now.
struct delivery_policy {
  enum class last_resort { hold, dead_letter };
  int attempts = 1;               // of one batch, before `then`
  nanoseconds backoff_first{};    // before the second attempt; doubles
  nanoseconds backoff_limit{};
  last_resort then = last_resort::hold;  // hold: the flow fails and is restarted with backoff, a run by its `retry`
  bool operator==(const delivery_policy&) const = default;
};

struct dataflow {
  std::optional<component_use> from;  // a job's may be absent: it reads the events its trigger claimed
  std::vector<component_use> steps;
  std::optional<component_use> to;  // absent only in a command's output, where it means "the log"
  std::vector<component_use> outputs{};  // sinks for what steps send to them by name; `name` is that of the output
  delivery_policy delivery{};
  int parallel = 1;  // how many parts of a batch go through the leading stateless steps at once
  bool operator==(const dataflow&) const = default;
};

// What a program may use at most. Absent: no limit of ours.
struct resource_limits {
  std::optional<std::int64_t> memory;     // bytes, of all its processes together
  std::optional<double> cpus;             // how many processors' time, e.g. 0.5
  std::optional<nanoseconds> cpu_time;    // of one process; whole seconds
  std::optional<std::int64_t> open_files;
  std::optional<std::int64_t> processes;
  std::optional<std::int64_t> file_size;  // bytes, of one file it writes
  bool operator==(const resource_limits&) const = default;
};

enum class io_class { inherit, best_effort, idle };

// As whom, where and within which bounds a program runs.
struct process_settings {
  std::string user, group;   // names or numbers; empty: the daemon's; a user without group: the user's own group
  std::string workdir;       // as pipeline::workdir; empty: the pipeline's
  std::optional<int> umask;  // 0 to 0777
  int nice = 0;              // added to what its lane has; 0 to 19
  io_class io = io_class::inherit;
  resource_limits limits;
  bool operator==(const process_settings&) const = default;
};

struct command {
  std::vector<std::string> run;  // never empty
  std::map<std::string, std::string> environment;
  std::optional<component_use> to;  // where its NDJSON output goes; absent: the log
  process_settings process;
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

// How to know that a supervised command is ready: the first of `http`, `tcp`, `run` that is not empty.
struct readiness_probe {
  std::string http;              // a URL that answers 200 to 399
  std::string tcp;               // HOST:PORT that accepts a connection
  std::vector<std::string> run;  // a program that exits with 0
  nanoseconds interval{};        // between two tries, and the most that one may take
  nanoseconds timeout{};         // not ready by then: it is restarted
  bool operator==(const readiness_probe&) const = default;
};

struct flow {
  std::string name;
  work does;
  nanoseconds grace{};  // TERM to KILL, for a supervised command
  std::optional<readiness_probe> ready;  // of a supervised command; absent: it is ready when it has started
  bool operator==(const flow&) const = default;
};

struct topic_trigger {
  std::string topic;
  std::string where;            // expression; events for which it is not true are passed over. Empty: all count
  std::int64_t max_events = 0;  // at most so many events in a run; > 0
  nanoseconds max_wait{};       // how long to wait for that many; 0: start with what is there
  nanoseconds
      grace_period{};  // a run stays open so long after its last event; 0: its input is fixed at the start
  nanoseconds debounce{};  // start only when nothing came for so long (at the latest after max_wait, if set)
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
struct at_trigger {
  timestamp time{};  // once; also when it passed while the daemon was down
  bool operator==(const at_trigger&) const = default;
};
// Files that appear in a folder. One is complete when its writer closed it or it was moved there, and it has not
// changed for `settle`.
struct file_trigger {
  std::string path;  // the last part may be a pattern (* ? [a-z]); relative to the pipeline's workdir
  nanoseconds settle{};
  std::int64_t max_files = 0;  // at most so many in one run; > 0
  nanoseconds max_wait{};      // how long to wait for that many; 0: start with what is there
  // Where a file goes when its run has succeeded, and when it has not: a folder (relative: to the file's own).
  // Empty: it stays, marked as taken until it changes.
  std::string move_to, move_failed_to;
  bool remove = false;  // instead of moving it: deleted when its run has succeeded
  bool operator==(const file_trigger&) const = default;
};
// A POST to /hooks/PATH makes a run whose input is what was posted.
struct webhook_trigger {
  std::string path;       // begins with a slash
  value signature;        // null: anyone may post; else as the webhook source's `signature`
  bool operator==(const webhook_trigger&) const = default;
};
enum class after_outcome { succeeded, failed, any };
struct after_trigger {
  std::string pipeline;  // empty: this one
  std::string job;
  after_outcome outcome = after_outcome::succeeded;
  bool operator==(const after_trigger&) const = default;
};
using trigger = std::variant<topic_trigger, cron_trigger, every_trigger, at_trigger, after_trigger, file_trigger,
                             webhook_trigger>;

struct task {
  std::string name;
  work does;
  std::vector<std::string> needs;
  std::optional<nanoseconds> timeout;
  std::string condition;   // `if`: decides instead of "all needs succeeded", once they have ended. Empty: that rule
  bool allow_failure = false;  // its failure does not fail the run
  // Fan-out: one instance for each item of a list. `for_each_expression` or `for_each_items`, or neither.
  std::string for_each_expression;
  std::vector<value> for_each_items;
  bool fans_out = false;
  std::int64_t max_parallel = 0;  // instances at once; > 0 when it fans out
  bool operator==(const task&) const = default;
};

struct retry_budget {
  int retries = 0;  // of all runs of the job together
  nanoseconds within{};
  bool operator==(const retry_budget&) const = default;
};

struct retry_rule {
  int attempts = 1;             // in all, the first included
  nanoseconds backoff_first{};  // before the second attempt; doubles
  nanoseconds backoff_limit{};
  std::vector<int> exit_codes;      // not empty: only a task that exited with one of these is tried again
  std::vector<int> not_exit_codes;  // one that exited with one of these is not
  std::optional<retry_budget> budget;
  bool operator==(const retry_rule&) const = default;
};

enum class parameter_type { string, integer, number, boolean, list, object };
struct parameter {
  std::string name;
  parameter_type type = parameter_type::string;
  std::string doc;
  std::optional<value> fallback;  // absent: it must be given
  std::vector<value> choices;     // empty: any
  std::optional<double> minimum, maximum;  // of a number; of a string or list: its length
  bool operator==(const parameter&) const = default;
};

enum class alert_event { failure, late };
struct alert {
  std::vector<alert_event> on;  // never empty
  nanoseconds late_after{};     // on late: a run that has not ended so long after it was due or made
  component_use to;
  bool operator==(const alert&) const = default;
};

struct history_rule {
  std::optional<std::int64_t> runs;    // final runs kept; absent: the daemon's setting
  std::optional<nanoseconds> within;   // and for how long
  bool operator==(const history_rule&) const = default;
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
  std::string overlap_key;      // expression over params, run and event (the first of its input): only runs of the same
                                // key overlap. Empty: all do
  std::optional<std::int64_t> max_active;  // runs at once; absent: 1, with on_overlap allow no limit
  int priority = 5;             // 0 to 9, 9 goes first
  std::map<std::string, std::int64_t> pools;  // how many slots of each a run holds
  std::optional<nanoseconds> deadline;  // from when it was due (scheduled) or made, over all waiting and attempts
  bool free_params = true;      // no `params` are declared: any are taken, as they come
  std::vector<parameter> params;
  std::vector<alert> alerts;
  history_rule history;
  std::int64_t queue_limit = 0;  // waiting runs beyond which a trigger is refused
  nanoseconds grace{};           // TERM to KILL
  bool operator==(const job&) const = default;
};

// An event as a test gives or expects it. As expected, attributes that are not named may be anything.
struct test_event {
  std::map<std::string, std::string, std::less<>> attributes;  // of id, source, type, subject, time, key, topic, datacontenttype
  value data;
};

struct test_death {
  std::string step;           // empty: any
  std::string reason;         // stands somewhere in the reason
  std::optional<value> data;  // of the event, as it was where it died; absent: any
};

// Given events, and what one dataflow of the pipeline must make of them. The daemon has no use for tests.
struct pipeline_test {
  std::string name;
  mark at;                      // where it is written
  std::string flow, job, task;  // `flow`, or `job` with the name of its task, which is "main" where it has but one work
  std::string step;             // only this one; empty: all of them
  std::vector<test_event> given;
  std::optional<timestamp> now;  // where the clock stands; absent: at the time of the test
  value params;                  // of a job: complete, as a run has them
  std::optional<std::vector<test_event>> expect;  // what reaches `to`, in order; absent: not looked at
  std::map<std::string, std::vector<test_event>, std::less<>> outputs;  // those that are looked at
  std::vector<test_death> dead;  // in the order of the events; no other may die
  bool emit_at_end = true;       // what windows still hold then
};

struct pipeline {
  std::string name;
  std::string description;
  std::string workdir;  // as written, may hold ${dir}; empty: DATA/work/PIPELINE
  std::optional<std::int64_t> max_active;  // runs of all its jobs at once
  std::map<std::string, std::int64_t> pools;  // name -> slots; names are shared by all pipelines
  std::map<std::string, topic, std::less<>> topics;
  std::map<std::string, flow, std::less<>> flows;
  std::map<std::string, job, std::less<>> jobs;
  std::vector<pipeline_test> tests;  // in the order written
  // The whole definition with defaults filled in, as REST shows it: durations and sizes with their units,
  // secrets as references. Parsing it again gives an equal pipeline.
  value document;
  std::vector<problem> warnings;  // allowed, but likely a slip; by position
};

struct parse_options {
  std::string file{};  // for messages, e.g. "orders.yaml"; empty for a request body
  node_limits limits{};
  // It was accepted before and goes on: what its components say of their settings (component_spec::check) is not asked.
  bool stored = false;
};

// Text (YAML or JSON) to a checked pipeline (which may have warnings), or every problem of the text at once, sorted by position.
// errc::malformed: not YAML at all; errc::invalid: YAML, but not a pipeline.
result<pipeline> parse_pipeline(std::string_view text, const catalog& components,
                                const parse_options& options = {});

// "orders.yaml:12:5: /flows/intake/form: unknown key 'form'; did you mean 'from'?" One line, no newline.
std::string describe(const problem& p, std::string_view file);

}  // namespace penstock::config
