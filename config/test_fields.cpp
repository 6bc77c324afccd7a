// The record of `tests`: given events, and what a flow or a job must make of them.
#include "config/work_fields.hpp"

namespace penstock::config {
namespace {

using enum field_type;

field events(std::string name, std::string doc, std::string example) {
  return {.name = std::move(name),
          .type = list,
          .doc = std::move(doc),
          .example = std::move(example),
          .children = {{.name = "event", .type = any}},
          .single_allowed = true};
}

std::vector<field> subject_fields() {
  return {
      {.name = "flow", .type = name, .doc = "The flow that is tested", .example = "alerts"},
      {.name = "job", .type = name, .doc = "The job that is tested", .example = "load"},
      {.name = "task",
       .type = name,
       .doc = "Which of the job's tasks, where it has 'tasks'",
       .example = "clean",
       .goes_with = "job"},
      {.name = "params",
       .type = map,
       .doc = "Parameters of the run; those that are not given have their defaults",
       .example = "{region: eu}",
       .children = {{.name = "value", .type = any}},
       .goes_with = "job"},
      {.name = "step", .type = name, .doc = "Only this step; all of them when absent", .example = "filter_1"},
  };
}

field dead() {
  return {.name = "dead",
          .type = list,
          .doc = "Which events become dead letters, in the order of the events; when absent, none may",
          .example = "[{step: map_2, reason: attempt to compare}]",
          .children = {{.name = "letter",
                        .type = object,
                        .children = {{.name = "step", .type = name, .doc = "Where it died; anywhere when absent"},
                                     {.name = "reason", .doc = "A part of the reason"},
                                     {.name = "data",
                                      .type = any,
                                      .doc = "The payload, as it was where the event died; any when absent"}},
                        .shorthand = "reason"}},
          .single_allowed = true};
}

std::vector<field> expectation_fields() {
  return {
      events("expect", "What reaches 'to', in this order; written as in 'given'. Not looked at when absent", "[{id: 2, total: 250}]"),
      {.name = "outputs",
       .type = map,
       .doc = "What reaches named outputs; those that are not named are not looked at",
       .example = "{late: []}",
       .children = {events("events", "", "")},
       .keys_are_names = true},
      dead(),
  };
}

}  // namespace

field tests_field() {
  field given = events("given",
                       "The events that come in: payloads, or {event: {key: k7, time: …}, data: payload} where "
                       "attributes matter",
                       "[{id: 1, total: 80}, {id: 2, total: 250}]");
  given.required = true;
  const field at_end{.name = "at_end",
                     .type = choice,
                     .doc = "emit: windows and joins that are open after the last event give their results; keep: "
                            "they stay open, as when a flow is stopped",
                     .fallback = "emit",
                     .choices = {"emit", "keep"}};
  const field now{.name = "now",
                  .type = time,
                  .doc = "Where the clock stands during the test, and the time of given events that have none; the "
                         "time of the test when absent",
                  .example = "2026-01-01T00:00:00Z"};
  const field test{.name = "test",
                   .type = object,
                   .children = with(with(subject_fields(), {given, now}), with(expectation_fields(), {at_end})),
                   .exactly_one = {"flow", "job"}};
  return {.name = "tests",
          .type = map,
          .doc = "Given events and what must become of them, run by 'penstock test'; the daemon passes them over",
          .example = "{large: {flow: alerts, given: [{total: 80}], expect: []}}",
          .children = {test},
          .keys_are_names = true};
}

}  // namespace penstock::config
