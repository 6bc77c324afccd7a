// The records of a pipeline definition (design.md section 2), but for jobs (job_fields.cpp). What they
// cannot say, because it spans several values, is in check_pipeline.cpp.
#include "config/work_fields.hpp"

namespace penstock::config {
namespace {

using enum field_type;

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

field readiness() {
  return {.name = "ready",
          .type = object,
          .doc = "How to know that the command is ready; when absent, it is as soon as it has started",
          .example = "{http: \"http://127.0.0.1:9000/healthz\"}",
          .children = {{.name = "http",
                        .doc = "A URL that answers with a status from 200 to 399",
                        .example = "\"http://127.0.0.1:9000/healthz\""},
                       {.name = "tcp",
                        .doc = "HOST:PORT that accepts a connection",
                        .example = "\"127.0.0.1:9000\""},
                       {.name = "run",
                        .type = list,
                        .doc = "A program that exits with 0",
                        .example = "[./is_ready]",
                        .children = {{.name = "argument"}},
                        .minimum = 1},
                       {.name = "interval",
                        .type = duration,
                        .doc = "Between two tries, and how long one may take",
                        .fallback = "1s",
                        .minimum = 0.01,
                        .maximum = seconds_of_a_day},
                       {.name = "timeout",
                        .type = duration,
                        .doc = "When it is not ready by then, it is restarted",
                        .fallback = "30s",
                        .minimum = 0.01,
                        .maximum = seconds_of_a_day}},
          .goes_with = "run",
          .exactly_one = {"http", "tcp", "run"}};
}

field flows() {
  const field flow{.name = "flow",
                   .type = object,
                   .children = with(work_fields("from"), {grace_field("run"), readiness()})};
  return {.name = "flows",
          .type = map,
          .doc = "Real-time: always live while the pipeline is active",
          .example = "{alerts: {from: {topic: orders}, to: {stdout: {}}}}",
          .children = {flow},
          .keys_are_names = true};
}

std::vector<field> capacity_fields() {
  return {
      {.name = "max_active",
       .type = integer,
       .doc = "Runs of all its jobs at once; no limit of its own when absent",
       .example = "8",
       .minimum = 1,
       .maximum = 100'000},
      {.name = "pools",
       .type = map,
       .doc = "Slots that runs hold while they are active; their names are shared by all pipelines",
       .example = "{db: 2}",
       .children = {{.name = "slots", .type = integer, .minimum = 1, .maximum = 1'000'000}},
       .keys_are_names = true},
  };
}

}  // namespace

const field& pipeline_fields() {
  const std::vector<field> first{
      {.name = "name", .type = name, .doc = "The pipeline's name", .required = true, .example = "orders"},
      {.name = "description", .doc = "What it is for", .example = "Shop orders"},
      {.name = "workdir",
       .doc = "Where commands start and relative paths begin; DATA/work/PIPELINE when absent. ${dir} is the "
              "folder of the definition file",
       .example = "\"${dir}\""},
  };
  static const field all{
      .name = "pipeline",
      .type = object,
      .doc = "Topics, flows and jobs that belong together",
      .children = with(with(first, capacity_fields()), {topics(), flows(), jobs_field(), tests_field()}),
  };
  return all;
}

}  // namespace penstock::config
