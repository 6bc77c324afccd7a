// The records of a pipeline definition (design.md section 2). What they cannot say, because it spans several
// values, is in check_pipeline.cpp.
#include "config/field.hpp"

namespace penstock::config {
namespace {

using enum field_type;

constexpr double day = 86'400;

field grace(std::string goes_with) {
  return {.name = "grace",
          .type = duration,
          .doc = "How long a command may take to end after TERM before it is killed",
          .fallback = "10s",
          .maximum = day,
          .goes_with = std::move(goes_with)};
}

field timeout(std::string doc) {
  return {.name = "timeout", .type = duration, .doc = std::move(doc), .example = "15m", .minimum = 0.001};
}

// What flows, jobs and tasks have in common: one dataflow, or one command.
std::vector<field> work_fields(std::string steps_go_with) {
  return {
      {.name = "from",
       .type = from,
       .doc = "Where events come from; a job without it reads the events that its trigger claimed",
       .example = "{topic: orders}"},
      {.name = "steps",
       .type = list,
       .doc = "What happens to each event, in this order",
       .example = "[{filter: event.total > 5000}]",
       .children = {{.name = "step", .type = step}},
       .goes_with = std::move(steps_go_with)},
      {.name = "run",
       .type = list,
       .doc = "A command and its arguments; no shell unless it is named",
       .example = "[python3, extract.py]",
       .children = {{.name = "argument"}},
       .minimum = 1},
      {.name = "environment",
       .type = map,
       .doc = "Environment variables of the command",
       .example = "{REGION: eu, TOKEN: \"${env:TOKEN}\"}",
       .children = {{.name = "value"}},
       .goes_with = "run"},
      {.name = "to",
       .type = to,
       .doc = "Where events go: the dataflow's, or the lines that the command prints",
       .example = "{topic: orders}"},
  };
}

std::vector<field> with(std::vector<field> fields, std::vector<field> more) {
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

field topics() {
  const field dedupe{
      .name = "dedupe",
      .type = object,
      .doc = "Drop an event whose key was seen before",
      .example = "{key: event.order_id, within: 24h}",
      .children =
          {{.name = "key", .type = expression, .doc = "What makes two events the same", .required = true},
           {.name = "within",
            .type = duration,
            .doc = "How long a key is remembered",
            .fallback = "24h",
            .minimum = 0.001}},
  };
  const field topic{
      .name = "topic",
      .type = object,
      .children = {{.name = "retain",
                    .type = duration,
                    .doc = "How long events are kept once every consumer has read them; for ever when absent",
                    .example = "7d",
                    .minimum = 0.001},
                   {.name = "max_bytes",
                    .type = size,
                    .doc = "How large the topic may grow before it refuses events; no limit when absent",
                    .example = "10GiB",
                    .minimum = 1},
                   dedupe},
  };
  return {.name = "topics",
          .type = map,
          .doc = "Durable logs of events; their names are shared by all pipelines",
          .example = "{orders: {retain: 7d}}",
          .children = {topic},
          .keys_are_names = true};
}

field flows() {
  const field flow{.name = "flow", .type = object, .children = with(work_fields("from"), {grace("run")})};
  return {.name = "flows",
          .type = map,
          .doc = "Real-time: always live while the pipeline is active",
          .example = "{alerts: {from: {topic: orders}, to: {stdout: {}}}}",
          .children = {flow},
          .keys_are_names = true};
}

std::vector<field> topic_trigger_fields() {
  return {
      {.name = "topic", .type = name, .doc = "Start when events arrive in this topic", .example = "orders"},
      {.name = "max_events",
       .type = integer,
       .doc = "At most so many events in one run",
       .fallback = "10000",
       .minimum = 1,
       .maximum = 1'000'000,
       .goes_with = "topic"},
      {.name = "max_wait",
       .type = duration,
       .doc = "How long to wait for that many, counted from the oldest; 0s: start with what is there",
       .fallback = "0s",
       .maximum = 365 * day,
       .goes_with = "topic"},
      {.name = "grace_period",
       .type = duration,
       .doc = "How long a run stays open for more events after its last one; 0s: its input is fixed at the "
              "start",
       .fallback = "0s",
       .maximum = day,
       .goes_with = "topic"},
  };
}

std::vector<field> schedule_trigger_fields() {
  return {
      {.name = "cron",
       .type = string,
       .doc = "Start at these times: minute hour day month weekday, or six fields with the second first",
       .example = "\"0 6 * * *\""},
      {.name = "timezone",
       .type = string,
       .doc = "The IANA time zone of the cron expression",
       .fallback = "UTC",
       .example = "Europe/Madrid",
       .goes_with = "cron"},
      {.name = "missed",
       .type = choice,
       .doc = "What to do about times that passed while the daemon was down",
       .fallback = "skip",
       .choices = {"skip", "one", "all"},
       .goes_with = "cron"},
      {.name = "every",
       .type = duration,
       .doc = "Start again and again with this interval",
       .example = "5m",
       .minimum = 0.01},
  };
}

field after() {
  return {.name = "after",
          .type = object,
          .doc = "Start when a run of another job has ended: job, pipeline.job, or a mapping",
          .example = "load",
          .children = {{.name = "job", .doc = "The other job, or pipeline.job", .required = true},
                       {.name = "pipeline", .type = name, .doc = "Its pipeline, when it is not this one"},
                       {.name = "outcome",
                        .type = choice,
                        .doc = "How that run must have ended",
                        .fallback = "succeeded",
                        .choices = {"succeeded", "failed", "any"}}},
          .shorthand = "job"};
}

field triggers() {
  const field trigger{.name = "trigger",
                      .type = object,
                      .example = "{topic: orders}",
                      .children = with(with(topic_trigger_fields(), schedule_trigger_fields()), {after()}),
                      .exactly_one = {"topic", "cron", "every", "after"}};
  return {.name = "trigger",
          .type = list,
          .doc = "What starts a run, one or several; a job without it is started over REST only",
          .example = "{topic: orders, max_events: 500, max_wait: 5m}",
          .children = {trigger},
          .single_allowed = true};
}

field tasks() {
  const std::vector<field> own{
      {.name = "needs",
       .type = list,
       .doc = "The tasks that must have succeeded before",
       .example = "[extract]",
       .children = {{.name = "task", .type = name}},
       .single_allowed = true},
      timeout("How long one attempt of the task may take"),
  };
  const field task{.name = "task", .type = object, .children = with(work_fields(""), own)};
  return {.name = "tasks",
          .type = map,
          .doc = "Several commands or dataflows, ordered by what each needs",
          .example = "{extract: {run: [./extract]}, render: {run: [./render], needs: [extract]}}",
          .children = {task},
          .minimum = 1,
          .keys_are_names = true};
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
                        .example = "10s..5m"}},
          .shorthand = "attempts"};
}

field jobs() {
  const std::vector<field> own{
      triggers(),
      tasks(),
      timeout("How long one attempt of a run may take"),
      retry(),
      {.name = "on_overlap",
       .type = choice,
       .doc = "What happens when a trigger fires while a run is active",
       .fallback = "queue",
       .choices = {"queue", "skip", "allow", "replace"}},
      {.name = "queue_limit",
       .type = integer,
       .doc = "How many runs may wait before a trigger is refused",
       .fallback = "1000",
       .minimum = 1,
       .maximum = 1'000'000},
      grace(""),
  };
  const field job{.name = "job", .type = object, .children = with(work_fields(""), own)};
  return {.name = "jobs",
          .type = map,
          .doc = "Batch: started by a trigger, ended when done",
          .example = "{report: {trigger: {cron: \"0 6 * * *\"}, run: [./report]}}",
          .children = {job},
          .keys_are_names = true};
}

}  // namespace

const field& pipeline_fields() {
  static const field all{
      .name = "pipeline",
      .type = object,
      .doc = "Topics, flows and jobs that belong together",
      .children =
          {{.name = "name",
            .type = name,
            .doc = "The pipeline's name",
            .required = true,
            .example = "orders"},
           {.name = "description", .doc = "What it is for", .example = "Shop orders"},
           {.name = "workdir",
            .doc = "Where commands start and relative paths begin; DATA/work/PIPELINE when absent. ${dir} is "
                   "the folder of the definition file",
            .example = "\"${dir}\""},
           topics(),
           flows(),
           jobs()},
  };
  return all;
}

}  // namespace penstock::config
