// The records of jobs and their tasks, but for work (work_fields.cpp) and triggers (trigger_fields.cpp).
#include "config/work_fields.hpp"

namespace penstock::config {
namespace {

using enum field_type;

field timeout(std::string doc) {
  return {.name = "timeout", .type = duration, .doc = std::move(doc), .example = "15m", .minimum = 0.001};
}

std::vector<field> order_fields() {
  return {
      {.name = "needs",
       .type = list,
       .doc = "The tasks that must have succeeded before",
       .example = "[extract]",
       .children = {{.name = "task", .type = name}},
       .single_allowed = true},
      {.name = "if",
       .type = expression,
       .doc = "Decides once the needed tasks have ended, however they did: true runs the task, else it is "
              "skipped. When absent, all of them must have succeeded",
       .example = "tasks.extract.output.rows > 0"},
      {.name = "for_each",
       .type = any,
       .doc = "One instance of the task for each item of this list, or of the list that this expression gives; "
              "${item} is the item",
       .example = "[eu, us]"},
      {.name = "max_parallel",
       .type = integer,
       .doc = "At most so many instances at once",
       .fallback = "4",
       .minimum = 1,
       .maximum = 10'000,
       .goes_with = "for_each"},
      {.name = "allow_failure",
       .type = boolean,
       .doc = "Its failure does not fail the run, and what needs it goes on",
       .fallback = "false"},
  };
}

field tasks() {
  const field task{.name = "task",
                   .type = object,
                   .children = with(with(work_fields(""), order_fields()),
                                    {timeout("How long one attempt of the task may take")})};
  return {.name = "tasks",
          .type = map,
          .doc = "Several commands or dataflows, ordered by what each needs",
          .example = "{extract: {run: [./extract]}, render: {run: [./render], needs: [extract]}}",
          .children = {task},
          .minimum = 1,
          .keys_are_names = true};
}

field exit_codes(std::string name, std::string doc, std::string example, std::string excludes) {
  return {.name = std::move(name),
          .type = list,
          .doc = std::move(doc),
          .example = std::move(example),
          .children = {{.name = "code", .type = integer, .minimum = 0, .maximum = 255}},
          .minimum = 1,
          .single_allowed = true,
          .excludes = std::move(excludes)};
}

field retry_budget_field() {
  return {.name = "budget",
          .type = object,
          .doc = "How often runs of the job are tried again in all, so that a lasting fault is not hammered",
          .example = "{retries: 20, within: 1h}",
          .children = {{.name = "retries",
                        .type = integer,
                        .doc = "So many second and further attempts of all runs together",
                        .required = true,
                        .example = "20",
                        .minimum = 1,
                        .maximum = 1'000'000},
                       {.name = "within",
                        .type = duration,
                        .doc = "in any stretch of time of this length",
                        .required = true,
                        .example = "1h",
                        .minimum = 1,
                        .maximum = 365 * seconds_of_a_day}}};
}

field retry() {
  return {.name = "retry",
          .type = object,
          .doc = "What happens when a run fails",
          .fallback = "{}",
          .example = "{attempts: 3, backoff: 10s..5m}",
          .children = {{.name = "attempts",
                        .type = integer,
                        .doc = "Attempts in all, the first included",
                        .fallback = "1",
                        .minimum = 1,
                        .maximum = 1'000},
                       {.name = "backoff",
                        .type = duration_range,
                        .doc = "The wait before the second attempt, doubling up to the limit",
                        .fallback = "1s..1m",
                        .example = "10s..5m"},
                       exit_codes("exit_codes", "Only a task that exited with one of these is tried again", "[75]",
                                  "not_exit_codes"),
                       exit_codes("not_exit_codes", "A task that exited with one of these is not tried again",
                                  "[2]", ""),
                       retry_budget_field()},
          .shorthand = "attempts"};
}

field params() {
  const field parameter{
      .name = "parameter",
      .type = object,
      .children = {{.name = "type",
                    .type = choice,
                    .doc = "What it must be; when absent, what its default or its first choice is, else a string",
                    .example = "integer",
                    .choices = {"string", "integer", "number", "boolean", "list", "object"}},
                   {.name = "default",
                    .type = any,
                    .doc = "What it is when it is not given; without a default it must be given",
                    .example = "eu"},
                   {.name = "choices",
                    .type = list,
                    .doc = "The values it may have",
                    .example = "[eu, us]",
                    .children = {{.name = "choice", .type = any}},
                    .minimum = 1},
                   {.name = "minimum",
                    .type = number,
                    .doc = "Of a number; of a string its characters, of a list its items",
                    .example = "1"},
                   {.name = "maximum", .type = number, .doc = "Likewise", .example = "100"},
                   {.name = "doc", .doc = "What it is for", .example = "Where the orders come from"}},
      .shorthand = "default"};
  return {.name = "params",
          .type = map,
          .doc = "What a run may be told: name and default, or a mapping. Without this key any parameters are "
                 "taken as they come",
          .example = "{region: eu, count: {type: integer, minimum: 1}}",
          .children = {parameter},
          .keys_are_names = true};
}

field on_overlap() {
  return {.name = "on_overlap",
          .type = object,
          .doc = "What happens when a trigger fires while as many runs are active as may be: the rule, or a mapping",
          .fallback = "queue",
          .example = "{rule: replace, key: params.region}",
          .children = {{.name = "rule",
                        .type = choice,
                        .doc = "queue: the new run waits. skip: it is recorded as skipped. allow: both run. "
                               "replace: the old one is cancelled",
                        .fallback = "queue",
                        .choices = {"queue", "skip", "allow", "replace"}},
                       {.name = "key",
                        .type = expression,
                        .doc = "Only runs with the same key get into each other's way; of params, run and event, "
                               "the first of the run's input",
                        .example = "params.region"}},
          .shorthand = "rule"};
}

field alerts() {
  const field alert{
      .name = "alert",
      .type = object,
      .children = {{.name = "on",
                    .type = list,
                    .doc = "failure: a run has failed or timed out. late: it has not ended in time",
                    .required = true,
                    .example = "[failure, late]",
                    .children = {{.name = "event", .type = choice, .choices = {"failure", "late"}}},
                    .minimum = 1,
                    .single_allowed = true},
                   {.name = "late_after",
                    .type = duration,
                    .doc = "A run is late when it has not ended so long after it was due or made",
                    .example = "10m",
                    .minimum = 0.001},
                   {.name = "to",
                    .type = to,
                    .doc = "Where the alert goes, an event with the run, the reason and the end of its log",
                    .required = true,
                    .example = "{http: {url: \"https://alerts.example/hook\"}}"}}};
  return {.name = "alerts",
          .type = list,
          .doc = "Who is told when a run fails or is late",
          .example = "{on: failure, to: {http: {url: \"https://alerts.example/hook\"}}}",
          .children = {alert},
          .single_allowed = true};
}

field history() {
  return {.name = "history",
          .type = object,
          .doc = "Which ended runs are kept; the daemon's settings when absent",
          .example = "{runs: 100, for: 30d}",
          .children = {{.name = "runs",
                        .type = integer,
                        .doc = "So many of the newest",
                        .example = "100",
                        .minimum = 1,
                        .maximum = 1'000'000'000},
                       {.name = "for",
                        .type = duration,
                        .doc = "And none older than this",
                        .example = "30d",
                        .minimum = 1}}};
}

std::vector<field> admission_fields() {
  return {
      on_overlap(),
      {.name = "max_active",
       .type = integer,
       .doc = "Runs at once; 1 when absent, or with on_overlap allow no limit",
       .example = "2",
       .minimum = 1,
       .maximum = 100'000},
      {.name = "priority",
       .type = integer,
       .doc = "From 0 to 9; of waiting runs the one with the highest goes first",
       .fallback = "5",
       .minimum = 0,
       .maximum = 9},
      {.name = "pools",
       .type = map,
       .doc = "The pools, declared by the pipeline, of which a run holds a slot; or how many of each",
       .example = "{db: 2}",
       .children = {{.name = "slots", .type = integer, .minimum = 1}},
       .keys_are_names = true,
       .names_stand_for = "1"},
      {.name = "queue_limit",
       .type = integer,
       .doc = "How many runs may wait before a trigger is refused",
       .fallback = "1000",
       .minimum = 1,
       .maximum = 1'000'000},
  };
}

}  // namespace

field jobs_field() {
  const std::vector<field> own{
      trigger_field(),
      params(),
      tasks(),
      timeout("How long one attempt of a run may take"),
      {.name = "deadline",
       .type = duration,
       .doc = "How long a run may take in all, waiting and every attempt included, from when it was due or made",
       .example = "1h",
       .minimum = 0.001},
      retry(),
  };
  const std::vector<field> last{grace_field(""), alerts(), history()};
  const field job{.name = "job",
                  .type = object,
                  .children = with(with(with(work_fields(""), own), admission_fields()), last)};
  return {.name = "jobs",
          .type = map,
          .doc = "Batch: started by a trigger, ended when done",
          .example = "{report: {trigger: {cron: \"0 6 * * *\"}, run: [./report]}}",
          .children = {job},
          .keys_are_names = true};
}

}  // namespace penstock::config
