// What operators and their tools ask: alive, ready, metrics, the definitions' schema, the index.
#include <algorithm>
#include <utility>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>

#include "api/change_stream.hpp"
#include "api/conditional.hpp"
#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/media.hpp"
#include "api/metrics.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "config/field.hpp"
#include "config/in_quotes.hpp"
#include "config/json_schema.hpp"
#include "runtime/blocking_pool.hpp"

namespace penstock::api {

namespace {

constexpr int retry_storage_s = 5;

// Said to everyone who asks too early or too late: no news for the log.
response not_now(phase now) {
  const std::string detail = now == phase::stopping ? "the daemon stops" : "the daemon starts";
  response r = problem_response(error{errc::unavailable, detail, {}, 1});
  r.cause.clear();
  return r;
}

std::vector<runtime::topic_status> read_topics(const std::vector<std::shared_ptr<runtime::topic>>& topics) {
  std::vector<runtime::topic_status> out;
  for (const auto& t : topics) out.push_back(t->status());
  return out;
}

// With the counts of kept runs, which a list leaves out because each is a question to the database; so others
// have their turn between one pipeline and the next.
asio::awaitable<std::vector<scheduler::pipeline_view>> pipelines_with_counts(context& c) {
  auto all = c.supervisor.pipelines();
  for (auto& pipeline : all) {
    if (auto whole = c.supervisor.pipeline(pipeline.record.name)) pipeline.jobs = std::move(whole->jobs);
    co_await asio::post(c.control, asio::use_awaitable);
  }
  co_return all;
}

}  // namespace

asio::awaitable<response> get_health(request&, context&) {
  co_return response{.body = "{\"status\":\"up\"}\n"};
}

asio::awaitable<response> get_readiness(request&, context& c) {
  if (c.now != phase::ready) co_return not_now(c.now);
  const auto trouble = co_await c.supervisor.storage_trouble();
  if (trouble) {
    // The log says which file; whoever may ask here need not know.
    response r = problem_response(error{errc::unavailable, "nothing can be stored: " + trouble->substr(0, trouble->find(" (")), {}, retry_storage_s});
    r.cause.clear();
    co_return r;
  }
  co_return response{.body = "{\"status\":\"ready\"}\n"};
}

asio::awaitable<response> not_ready(request&, context& c) { co_return not_now(c.now); }

asio::awaitable<response> get_changes(request& r, context& c) {
  change_stream::options wanted{.after = std::string(r.header_value("last-event-id")),
                                .pipeline = std::string(r.query_value("pipeline").value_or("")),
                                .reader = r.token};
  if (wanted.after.empty()) wanted.after = r.query_value("after").value_or("");  // a browser cannot set the header
  if (!wanted.after.empty() && !is_change_id(wanted.after)) {
    co_return problem_response(error{errc::malformed, config::in_quotes(wanted.after) + " is no id of a change"});
  }
  const auto kind = read_word(r, rules_of("kind"));
  if (!kind) co_return problem_response(kind.error());
  wanted.kind = *kind;
  response reply{.content_type = "text/event-stream"};
  reply.headers.emplace_back("Cache-Control", "no-store");
  reply.stream = std::make_unique<change_stream>(c, wanted, r.interrupted);
  co_return reply;
}

asio::awaitable<response> get_metrics(request&, context& c) {
  figures all;
  all.pipelines = co_await pipelines_with_counts(c);
  all.dead_letters = c.supervisor.count_dead_letters();
  all.broken_files = static_cast<std::int64_t>(c.supervisor.broken_files().size());
  all.requests = c.http->requests();
  all.connections = static_cast<std::int64_t>(c.http->connections());
  all.refused_connections = c.http->refused_connections();
  auto work = [topics = c.topics.all()] { return std::pair(read_topics(topics), read_process()); };
  auto [topics, process] = co_await c.blocking.run(std::move(work));
  all.process = process;
  all.process.started_at = c.started_at;
  for (auto& status : topics) {
    auto consumers = c.supervisor.consumers(status.name);
    all.topics.push_back({std::move(status), std::move(consumers)});
  }
  co_return response{.content_type = metrics_type, .body = to_metrics(all)};
}

asio::awaitable<response> get_schema(request& r, context& c) {
  if (!c.schema) c.schema = make_document(schema_type, to_text(config::pipeline_json_schema(c.components.catalog())) + "\n");
  co_return send_document(r, *c.schema);
}

std::string index_text(const std::vector<endpoint_rules>& endpoints) {
  json list = json::array();
  for (const endpoint_rules& e : endpoints) {
    json entry{{"method", token(e.method)}, {"path", e.path}, {"summary", e.summary}, {"needs", token(e.needs)}};
    if (!e.query.empty()) entry["query"] = e.query;
    list.push_back(std::move(entry));
  }
  return to_text({{"name", "penstock"}, {"version", PENSTOCK_VERSION}, {"endpoints", std::move(list)}}) +
         "\n";
}

}  // namespace penstock::api
