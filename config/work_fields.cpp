// The records of work: a dataflow's keys, and a command's with as whom, where and within which bounds it runs.
#include "config/work_fields.hpp"

namespace penstock::config {
namespace {

using enum field_type;

constexpr double gibibyte = 1024.0 * 1024 * 1024;

field limits() {
  return {.name = "limits",
          .type = object,
          .doc = "What the command may use at most",
          .example = "{memory: 512MiB, cpus: 0.5}",
          .children = {{.name = "memory",
                        .type = size,
                        .doc = "Memory of all its processes together",
                        .example = "512MiB",
                        .minimum = 1024.0 * 1024},
                       {.name = "cpus",
                        .type = number,
                        .doc = "How many processors' time all its processes get together",
                        .example = "0.5",
                        .minimum = 0.01,
                        .maximum = 4'096},
                       {.name = "cpu_time",
                        .type = duration,
                        .doc = "Processor time of one process, in whole seconds; beyond it the process is killed",
                        .example = "60s",
                        .minimum = 1},
                       {.name = "open_files",
                        .type = integer,
                        .doc = "Open files of one process",
                        .example = "256",
                        .minimum = 3,
                        .maximum = 1'048'576},
                       {.name = "processes",
                        .type = integer,
                        .doc = "Processes and threads at once",
                        .example = "64",
                        .minimum = 1,
                        .maximum = 4'194'304},
                       {.name = "file_size",
                        .type = size,
                        .doc = "The largest file that it may write",
                        .example = "1GiB",
                        .minimum = 1,
                        .maximum = 1024.0 * 1024 * gibibyte}},
          .goes_with = "run"};
}

std::vector<field> process_fields() {
  return {
      {.name = "user",
       .doc = "The user, by name or number, that the command runs as; the daemon's own when absent",
       .example = "nobody",
       .goes_with = "run"},
      {.name = "group",
       .doc = "The group, by name or number; the user's own when absent",
       .example = "nogroup",
       .goes_with = "run"},
      {.name = "workdir",
       .doc = "Where the command starts: absolute, below ${dir}, or relative to the pipeline's workdir",
       .example = "scripts",
       .goes_with = "run"},
      {.name = "umask",
       .doc = "Which permissions new files do not get, in octal digits; the daemon's when absent",
       .example = "\"027\"",
       .goes_with = "run"},
      {.name = "nice",
       .type = integer,
       .doc = "How far the command steps back for others when processors are busy, beyond what its lane does",
       .example = "10",
       .minimum = 0,
       .maximum = 19,
       .goes_with = "run"},
      {.name = "io_priority",
       .type = choice,
       .doc = "idle: it reads and writes when nobody else wants to; its lane's when absent",
       .choices = {"idle", "best_effort"},
       .goes_with = "run"},
      limits(),
  };
}

}  // namespace

std::vector<field> with(std::vector<field> fields, std::vector<field> more) {
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

field grace_field(std::string goes_with) {
  return {.name = "grace",
          .type = duration,
          .doc = "How long a command may take to end after TERM before it is killed",
          .fallback = "10s",
          .maximum = seconds_of_a_day,
          .goes_with = std::move(goes_with)};
}

namespace {

field delivery() {
  return {.name = "delivery",
          .type = object,
          .doc = "What happens when a sink does not take events now",
          .example = "{attempts: 5, backoff: 1s..30s, then: dead_letter}",
          .children = {{.name = "attempts",
                        .type = integer,
                        .doc = "How often what a sink does not take is tried before 'then': a batch, or the event that it fails at where it says which",
                        .fallback = "1",
                        .minimum = 1,
                        .maximum = 1000},
                       {.name = "backoff",
                        .type = duration_range,
                        .doc = "The pause before the second attempt, doubling up to the limit",
                        .fallback = "1s..30s",
                        .minimum = 0.001,
                        .maximum = seconds_of_a_day},
                       {.name = "then",
                        .type = choice,
                        .doc = "hold: events wait, in order, until the sink works again (a flow is restarted with "
                               "backoff, a run by its 'retry'); dead_letter: the batch becomes dead letters and the "
                               "next one is tried",
                        .fallback = "hold",
                        .choices = {"hold", "dead_letter"}}},
          .goes_with = "to"};
}

}  // namespace

std::vector<field> work_fields(std::string steps_go_with) {
  const std::vector<field> main_fields{
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
       .doc = "A command and its arguments; no shell unless it is named. A job's may hold ${params.NAME}, "
              "${run.id}, ${tasks.NAME.output} and ${item}",
       .example = "[python3, extract.py]",
       .children = {{.name = "argument"}},
       .minimum = 1},
      {.name = "environment",
       .type = map,
       .doc = "Environment variables of the command; values as the arguments of 'run'",
       .example = "{REGION: eu, TOKEN: \"${env:TOKEN}\"}",
       .children = {{.name = "value"}},
       .goes_with = "run"},
      {.name = "to",
       .type = to,
       .doc = "Where events go: the dataflow's, or the lines that the command prints",
       .example = "{topic: orders}"},
      {.name = "outputs",
       .type = map,
       .doc = "Further places, by name, for what steps send there: those of 'route', 'late' of 'window' and so on",
       .example = "{big: {topic: big_orders}, late: drop}",
       .children = {{.name = "output", .type = to}},
       .keys_are_names = true,
       .goes_with = "steps"},
      {.name = "parallel",
       .type = integer,
       .doc = "How many parts of a batch go through the steps at once, up to the first step that keeps state; order is "
              "kept",
       .example = "4",
       .minimum = 1,
       .maximum = 64,
       .goes_with = "steps"},
      delivery(),
  };
  return with(main_fields, process_fields());
}

}  // namespace penstock::config
