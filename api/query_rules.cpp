#include "api/query_rules.hpp"

#include <span>
#include <stdexcept>

namespace penstock::api {

namespace {

const parameter_rules in_a_query[] = {
    {.name = "limit", .kind = value_kind::integer, .meaning = "how many items one page has at most; 100 unless said", .least = 1, .most = most_items},
    {.name = "limit",
     .path = "/v1/topics/{topic}/events",
     .kind = value_kind::integer,
     .meaning = "how many events one page has at most, 100 unless said; with follow after how many the stream ends",
     .least = 1},
    {.name = "cursor", .meaning = "next_cursor of the page before"},
    {.name = "dry_run", .kind = value_kind::flag, .meaning = "say what would be done, and do nothing"},
    {.name = "revision", .kind = value_kind::integer, .meaning = "the revision to go back to; the one before the current one unless said", .least = 1},
    {.name = "emit", .kind = value_kind::flag, .meaning = "emit what the flow's steps hold instead of keeping it"},
    {.name = "after", .path = "/v1/pipelines/{name}/flows/{flow}/tap", .meaning = "the point to look at: a step's name, from or to; to unless said"},
    {.name = "after", .path = "/v1/topics/{topic}/events", .kind = value_kind::integer, .meaning = "the offset of the last event seen", .least = 0},
    {.name = "after", .path = "/v1/streams/{stream}", .meaning = "the id of the last event seen, for clients that cannot send Last-Event-ID"},
    {.name = "after", .path = "/v1/changes", .meaning = "the id of the last change seen, for clients that cannot send Last-Event-ID"},
    {.name = "where", .meaning = "a Lua expression: only samples for which it is true"},
    {.name = "rate", .kind = value_kind::integer, .meaning = "samples a second at most; 100 unless said", .least = 1, .most = 10'000},
    {.name = "wait", .kind = value_kind::duration, .meaning = "wait for the run to end, at most this long, such as 30s; the most is 10m"},
    {.name = "pipeline", .meaning = "only those of this pipeline"},
    {.name = "job", .meaning = "only those of jobs of this name"},
    {.name = "state",
     .kind = value_kind::words,
     .meaning = "only runs in one of these states, with commas between them",
     .known = {"queued", "running", "retrying", "succeeded", "failed", "cancelled", "timed_out", "skipped"}},
    {.name = "since", .kind = value_kind::time, .meaning = "only what was made at this time or later"},
    {.name = "until", .kind = value_kind::time, .meaning = "only what was made before this time"},
    {.name = "from",
     .kind = value_kind::word,
     .meaning = "failed: what has succeeded is kept (so it is unless said); start: everything is done again",
     .known = {"failed", "start"}},
    {.name = "task", .meaning = "only what this task printed"},
    {.name = "follow", .kind = value_kind::flag, .meaning = "go on with what comes"},
    {.name = "timestamps", .kind = value_kind::flag, .meaning = "begin each line with its time and stream (o or e)"},
    {.name = "token", .meaning = "only what was done with the token of this id"},
    {.name = "outcome", .kind = value_kind::word, .meaning = "only entries with this outcome", .known = {"done", "failed", "refused"}},
    {.name = "kind", .kind = value_kind::word, .meaning = "only changes of these", .known = {"run", "flow", "pipeline"}},
};

const parameter_rules in_a_path[] = {
    {.name = "name", .meaning = "the pipeline"},
    {.name = "flow", .meaning = "the flow"},
    {.name = "job", .meaning = "the job"},
    {.name = "revision", .kind = value_kind::integer, .meaning = "the number of the revision", .least = 1},
    {.name = "id", .meaning = "its id"},
    {.name = "topic", .meaning = "the topic"},
    {.name = "stream", .meaning = "the stream"},
    {.name = "path", .meaning = "the path that a flow or trigger claims; it may hold slashes"},
};

}  // namespace

const parameter_rules* find_rules(std::string_view name, std::string_view path, place in) {
  const std::span<const parameter_rules> table = in == place::path ? std::span<const parameter_rules>(in_a_path) : in_a_query;
  const parameter_rules* general = nullptr;
  for (const parameter_rules& one : table) {
    if (one.name != name) continue;
    if (!one.path.empty() && one.path == path) return &one;
    if (one.path.empty()) general = &one;
  }
  return general;
}

const parameter_rules& rules_of(std::string_view name, std::string_view path) {
  const parameter_rules* found = find_rules(name, path, place::query);
  if (!found) throw std::logic_error("no rules for the parameter " + std::string(name));
  return *found;
}

}  // namespace penstock::api
