// The records of triggers: what starts a run of a job.
#include "config/signature_field.hpp"
#include "config/work_fields.hpp"

namespace penstock::config {
namespace {

using enum field_type;

constexpr double day = seconds_of_a_day;

std::vector<field> topic_trigger_fields() {
  return {
      {.name = "topic", .type = name, .doc = "Start when events arrive in this topic", .example = "orders"},
      {.name = "where",
       .type = expression,
       .doc = "Only events for which this is true count; the others are passed over",
       .example = "event.total > 5000",
       .goes_with = "topic"},
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
      {.name = "debounce",
       .type = duration,
       .doc = "Start only when nothing has come for so long, but no later than max_wait where that is set",
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
      {.name = "at",
       .type = time,
       .doc = "Start once, at this time; when the daemon was down then, as soon as it is up",
       .example = "2026-12-01T06:00:00Z"},
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

field file() {
  return {.name = "file",
          .type = object,
          .doc = "Start when a file is there and complete: its path, or a mapping",
          .example = "{path: \"inbox/*.csv\", move_to: done}",
          .children = {{.name = "path",
                        .doc = "The file; relative to the pipeline's workdir. The last part may be a pattern "
                               "with *, ? and [a-z]",
                        .required = true,
                        .example = "\"inbox/*.csv\""},
                       {.name = "settle",
                        .type = duration,
                        .doc = "A file is complete when it has not changed for so long",
                        .fallback = "1s",
                        .maximum = day},
                       {.name = "max_files",
                        .type = integer,
                        .doc = "At most so many files in one run",
                        .fallback = "1",
                        .minimum = 1,
                        .maximum = 10'000},
                       {.name = "max_wait",
                        .type = duration,
                        .doc = "How long to wait for that many, counted from the oldest; 0s: start with what is "
                               "there",
                        .fallback = "0s",
                        .maximum = 365 * day},
                       {.name = "move_to",
                        .doc = "The folder that files of a succeeded run go to; relative to the file's own. They "
                               "stay when absent, and count again when they change",
                        .example = "done"},
                       {.name = "move_failed_to",
                        .doc = "The folder that files of any other run go to",
                        .example = "failed"},
                       {.name = "remove",
                        .type = boolean,
                        .doc = "Files of a succeeded run are deleted, not moved",
                        .fallback = "false"}},
          .shorthand = "path"};
}

field webhook() {
  return {.name = "webhook",
          .type = object,
          .doc = "Start when something is posted to /hooks/PATH, which becomes the run's input: the path, or a "
                 "mapping",
          .example = "/deploy",
          .children = {{.name = "path",
                        .doc = "Where below /hooks; begins with a slash",
                        .required = true,
                        .example = "/deploy"},
                       signature_field()},
          .shorthand = "path"};
}

}  // namespace

field trigger_field() {
  const field one_trigger{
      .name = "trigger",
      .type = object,
      .example = "{topic: orders}",
      .children = with(with(topic_trigger_fields(), schedule_trigger_fields()), {after(), file(), webhook()}),
      .exactly_one = {"topic", "cron", "every", "at", "after", "file", "webhook"}};
  return {.name = "trigger",
          .type = list,
          .doc = "What starts a run, one or several; a job without it is started over REST only",
          .example = "{topic: orders, max_events: 500, max_wait: 5m}",
          .children = {one_trigger},
          .single_allowed = true};
}

}  // namespace penstock::config
