#include "api/endpoints.hpp"

#include <exception>
#include <memory>
#include <span>

#include "api/admission.hpp"
#include "api/handlers.hpp"

namespace penstock::api {

namespace {

struct endpoint {
  endpoint_rules rules;
  asio::awaitable<response> (*handle)(request&, context&);
};

using enum http_method;

const endpoint for_pipelines[] = {
    {{.method = get,
      .path = "/v1/pipelines",
      .needs = access::read,
      .summary = "all pipelines, and definition files that are broken",
      .query = {"limit", "cursor"},
      .for_scoped = true},
     list_pipelines},
    {{.method = post,
      .path = "/v1/pipelines",
      .needs = access::admin,
      .summary = "register a new pipeline (YAML or JSON)",
      .query = {"dry_run"},
      .body_required = true},
     post_pipeline},
    {{.method = put,
      .path = "/v1/pipelines/{name}",
      .needs = access::admin,
      .summary = "register or replace a pipeline (YAML or JSON); dry_run says what would change",
      .query = {"dry_run"},
      .body_required = true},
     put_pipeline},
    {{.method = get,
      .path = "/v1/pipelines/{name}",
      .needs = access::read,
      .summary = "one pipeline; with Accept: application/yaml its definition as written"},
     get_pipeline},
    {{.method = del, .path = "/v1/pipelines/{name}", .needs = access::admin, .summary = "stop, drain and remove a pipeline"},
     delete_pipeline},
    {{.method = get,
      .path = "/v1/pipelines/{name}/revisions",
      .needs = access::read,
      .summary = "the revisions of a pipeline, newest first",
      .query = {"limit", "cursor"}},
     list_revisions},
    {{.method = get,
      .path = "/v1/pipelines/{name}/revisions/{revision}",
      .needs = access::read,
      .summary = "one revision with its text; with Accept: application/yaml just that, as written"},
     get_revision},
    {{.method = post,
      .path = "/v1/pipelines/{name}/rollback",
      .needs = access::admin,
      .summary = "make an earlier revision the next one: revision=N, or the one before the current one",
      .query = {"revision", "dry_run"}},
     rollback_pipeline},
    {{.method = post,
      .path = "/v1/pipelines/{name}/pause",
      .needs = access::operate,
      .summary = "stop flows and triggers until resumed"},
     pause_pipeline},
    {{.method = post, .path = "/v1/pipelines/{name}/resume", .needs = access::operate, .summary = "go on after a pause"},
     resume_pipeline},
    {{.method = get,
      .path = "/v1/pipelines/{name}/flows/{flow}",
      .needs = access::read,
      .summary = "one flow and its steps"},
     get_flow},
    {{.method = post,
      .path = "/v1/pipelines/{name}/flows/{flow}/start",
      .needs = access::operate,
      .summary = "start a flow that was stopped"},
     start_flow},
    {{.method = post,
      .path = "/v1/pipelines/{name}/flows/{flow}/stop",
      .needs = access::operate,
      .summary = "drain and stop a flow until it is started; what its steps hold is kept, or emitted with emit=true",
      .query = {"emit"}},
     stop_flow},
    {{.method = post,
      .path = "/v1/pipelines/{name}/flows/{flow}/restart",
      .needs = access::operate,
      .summary = "drain, stop and start a flow"},
     restart_flow},
    {{.method = get,
      .path = "/v1/pipelines/{name}/flows/{flow}/tap",
      .needs = access::read,
      .summary = "samples of the events that pass a point (a step's name, from or to), as server-sent events",
      .query = {"after", "where", "rate"}},
     tap_flow},
};

const endpoint for_runs[] = {
    {{.method = post,
      .path = "/v1/pipelines/{name}/jobs/{job}/runs",
      .needs = access::operate,
      .summary = "start a run with {\"params\":{},\"events\":[]}; wait=30s answers when it has ended",
      .query = {"wait"},
      .takes_events = true},
     trigger_run},
    {{.method = post,
      .path = "/v1/pipelines/{name}/jobs/{job}/backfill",
      .needs = access::operate,
      .summary = "one run for each scheduled time without one in {\"from\":\"\",\"to\":\"\"}; dry_run only counts them",
      .query = {"dry_run"},
      .body_required = true},
     backfill_job},
    {{.method = get,
      .path = "/v1/runs",
      .needs = access::read,
      .summary = "runs, newest first",
      .query = {"pipeline", "job", "state", "since", "until", "limit", "cursor"},
      .for_scoped = true},
     list_runs},
    {{.method = get, .path = "/v1/runs/{id}", .needs = access::read, .summary = "one run with its tasks", .query = {"wait"}},
     get_run},
    {{.method = post,
      .path = "/v1/runs/{id}/cancel",
      .needs = access::operate,
      .summary = "end a run, gracefully"},
     cancel_run},
    {{.method = post,
      .path = "/v1/runs/{id}/retry",
      .needs = access::operate,
      .summary = "a new run with the same input; tasks that succeeded are kept, unless from=start",
      .query = {"from", "wait"}},
     retry_run},
    {{.method = get,
      .path = "/v1/runs/{id}/logs",
      .needs = access::read,
      .summary = "what the tasks printed; follow=true streams until the run ends",
      .query = {"task", "follow", "timestamps"}},
     get_run_logs},
};

const endpoint for_events[] = {
    {{.method = get, .path = "/v1/topics", .needs = access::read, .summary = "all topics", .query = {"limit", "cursor"}, .for_scoped = true},
     list_topics},
    {{.method = get,
      .path = "/v1/topics/{topic}",
      .needs = access::read,
      .summary = "one topic, its consumers and their lag"},
     get_topic},
    {{.method = post,
      .path = "/v1/topics/{topic}/events",
      .needs = access::ingest,
      .summary = "append events (JSON, NDJSON, CloudEvents); answered once they are durable",
      .body_required = true,
      .takes_events = true},
     post_events},
    {{.method = get,
      .path = "/v1/topics/{topic}/events",
      .needs = access::read,
      .summary = "read events without moving a cursor; follow=true streams NDJSON, or SSE when accepted",
      .query = {"after", "limit", "cursor", "follow"}},
     get_events},
    {{.method = get,
      .path = "/v1/streams",
      .needs = access::read,
      .summary = "live streams of flows that send to subscribers, and how many are connected",
      .query = {"limit", "cursor"},
      .for_scoped = true},
     list_streams},
    {{.method = get,
      .path = "/v1/streams/{stream}",
      .needs = access::read,
      .summary = "events as they come: server-sent events, or a WebSocket when asked; after or Last-Event-ID goes on",
      .query = {"after"}},
     get_stream},
    {{.method = post,
      .path = "/hooks/{path...}",
      .needs = access::signed_body,
      .summary = "webhook intake",
      .any_query = true,
      .takes_events = true},
     post_hook},
    {{.method = get,
      .path = "/v1/dead-letters",
      .needs = access::read,
      .summary = "what failed and why, oldest first",
      .query = {"pipeline", "limit", "cursor"},
      .for_scoped = true},
     list_dead_letters},
    {{.method = post,
      .path = "/v1/dead-letters/replay",
      .needs = access::operate,
      .summary = "process again: {\"ids\":[]}, {\"pipeline\":\"\"} or {\"all\":true}",
      .body_required = true,
      .for_scoped = true},
     replay_dead_letters},
    {{.method = post,
      .path = "/v1/dead-letters/discard",
      .needs = access::operate,
      .summary = "drop: {\"ids\":[]}, {\"pipeline\":\"\"} or {\"all\":true}",
      .body_required = true,
      .for_scoped = true},
     discard_dead_letters},
};

const endpoint for_operation[] = {
    {{.method = get,
      .path = "/v1/changes",
      .needs = access::read,
      .summary = "changes of state of runs, flows and pipelines, as server-sent events; after or Last-Event-ID goes on",
      .query = {"after", "pipeline", "kind"},
      .for_scoped = true},
     get_changes},
    {{.method = get,
      .path = "/v1/schema/pipeline",
      .needs = access::read,
      .summary = "JSON Schema of definitions",
      .always = true,
      .for_scoped = true},
     get_schema},
    {{.method = get, .path = "/healthz", .needs = access::open, .summary = "the process is up", .always = true}, get_health},
    {{.method = get, .path = "/readyz", .needs = access::open, .summary = "200 when serving, else 503", .always = true},
     get_readiness},
    {{.method = get, .path = "/metrics", .needs = access::read, .summary = "figures for Prometheus"}, get_metrics},
};

const endpoint for_security[] = {
    {{.method = get, .path = "/v1/tokens", .needs = access::admin, .summary = "tokens, oldest first", .query = {"limit", "cursor"}},
     list_tokens},
    {{.method = post,
      .path = "/v1/tokens",
      .needs = access::admin,
      .summary = "make a token: {\"name\":\"\",\"roles\":[]} with pipelines, expires_in or expires_at, rate; shown once",
      .body_required = true},
     create_token},
    {{.method = get, .path = "/v1/tokens/{id}", .needs = access::admin, .summary = "one token, without its secret"}, get_token},
    {{.method = del,
      .path = "/v1/tokens/{id}",
      .needs = access::admin,
      .summary = "revoke a token, and cut off what it has open"},
     revoke_token},
    {{.method = get,
      .path = "/v1/token",
      .needs = access::any_token,
      .summary = "who you are: the token of this request",
      .for_scoped = true},
     get_caller},
    {{.method = get,
      .path = "/v1/audit",
      .needs = access::admin,
      .summary = "who changed what, and who was refused, newest first",
      .query = {"token", "pipeline", "outcome", "since", "until", "limit", "cursor"}},
     list_audit},
};

// While the daemon drains, what only reads is still answered.
bool serves(const endpoint_rules& rules, phase now) {
  return rules.always || now == phase::ready || (now == phase::stopping && rules.method == get);
}

// Moving events in is what the daemon is for, and it counts these by topic; everything else that changes something is written
// down.
bool is_audited(const endpoint_rules& rules) {
  return rules.method != get && (rules.needs == access::operate || rules.needs == access::admin);
}

std::string pipeline_of(const scheduler::audit_record& entry, const request& r, context& c) {
  if (!entry.pipeline.empty() || entry.endpoint.find("/runs/{id}") == std::string::npos) return entry.pipeline;
  const auto run = c.supervisor.run(r.parameter("id"));
  return run ? run->pipeline : std::string();
}

// What changes definitions or tokens is answered once its entry is durable; what is done with them leaves traces of its own,
// so its entry may come a moment after the answer.
asio::awaitable<response> audited(const endpoint& e, request& r, context& c) {
  auto entry = audit_entry(r, e.rules);
  entry.pipeline = pipeline_of(entry, r, c);
  response reply;
  std::exception_ptr failure;
  try {
    auto work = e.handle(r, c);
    reply = co_await std::move(work);
  } catch (...) {
    failure = std::current_exception();
  }
  entry.status = failure ? 500 : reply.status;
  entry.outcome = entry.status < 400 ? "done" : "failed";
  entry.detail = reply.note;
  if (entry.endpoint == "/v1/pipelines") entry.pipeline = reply.subject;
  if (e.rules.needs == access::admin) {
    co_await c.supervisor.audit().add(std::move(entry));
  } else {
    c.supervisor.audit().note(std::move(entry));
  }
  if (failure) std::rethrow_exception(failure);
  co_return reply;
}

asio::awaitable<response> serve(const endpoint& e, request& r, context& c) {
  if (!serves(e.rules, c.now)) return not_ready(r, c);
  return is_audited(e.rules) ? audited(e, r, c) : e.handle(r, c);
}

// Made once, from the tables themselves and this entry.
asio::awaitable<response> send_index(std::shared_ptr<const std::string> text) {
  co_return response{.body = *text};
}

route index_route(std::vector<endpoint_rules> rules) {
  const endpoint_rules own{.method = get, .path = "/", .needs = access::read, .summary = "this index", .always = true, .for_scoped = true};
  rules.push_back(own);
  const auto text = std::make_shared<const std::string>(index_text(rules));
  return {own, [text](request&) { return send_index(text); }};
}

}  // namespace

std::vector<route> make_routes(context& c) {
  std::vector<route> routes;
  std::vector<endpoint_rules> rules;
  const auto add = [&](std::span<const endpoint> some) {
    for (const endpoint& e : some) {
      rules.push_back(e.rules);
      routes.push_back({e.rules, [&c, &e](request& r) { return serve(e, r, c); }});
    }
  };
  add(for_pipelines);
  add(for_runs);
  add(for_events);
  add(for_operation);
  add(for_security);
  routes.push_back(index_route(std::move(rules)));
  return routes;
}

}  // namespace penstock::api
