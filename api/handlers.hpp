// All handlers, one file per resource. Each is three steps: parse, one call of the domain, reply. None sees
// the connection. Control thread; the request lives until its response has been sent.
#pragma once

#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "api/context.hpp"
#include "api/http.hpp"
#include "api/server.hpp"

namespace penstock::api {

// handlers_pipelines.cpp
asio::awaitable<response> list_pipelines(request& r, context& c);
asio::awaitable<response> post_pipeline(request& r, context& c);
asio::awaitable<response> put_pipeline(request& r, context& c);
asio::awaitable<response> get_pipeline(request& r, context& c);
asio::awaitable<response> delete_pipeline(request& r, context& c);
asio::awaitable<response> list_revisions(request& r, context& c);
asio::awaitable<response> get_revision(request& r, context& c);
asio::awaitable<response> rollback_pipeline(request& r, context& c);
asio::awaitable<response> pause_pipeline(request& r, context& c);
asio::awaitable<response> resume_pipeline(request& r, context& c);
asio::awaitable<response> get_flow(request& r, context& c);
asio::awaitable<response> start_flow(request& r, context& c);
asio::awaitable<response> stop_flow(request& r, context& c);
asio::awaitable<response> restart_flow(request& r, context& c);
asio::awaitable<response> tap_flow(request& r, context& c);

// handlers_runs.cpp
asio::awaitable<response> trigger_run(request& r, context& c);
asio::awaitable<response> list_runs(request& r, context& c);
asio::awaitable<response> get_run(request& r, context& c);
asio::awaitable<response> cancel_run(request& r, context& c);
asio::awaitable<response> retry_run(request& r, context& c);
asio::awaitable<response> backfill_job(request& r, context& c);
asio::awaitable<response> get_run_logs(request& r, context& c);

// handlers_topics.cpp
asio::awaitable<response> list_topics(request& r, context& c);
asio::awaitable<response> get_topic(request& r, context& c);
asio::awaitable<response> post_events(request& r, context& c);
asio::awaitable<response> get_events(request& r, context& c);

// handlers_hooks.cpp
asio::awaitable<response> post_hook(request& r, context& c);

// handlers_streams.cpp
asio::awaitable<response> list_streams(request& r, context& c);
asio::awaitable<response> get_stream(request& r, context& c);

// handlers_dead_letters.cpp
asio::awaitable<response> list_dead_letters(request& r, context& c);
asio::awaitable<response> replay_dead_letters(request& r, context& c);
asio::awaitable<response> discard_dead_letters(request& r, context& c);

// handlers_tokens.cpp
asio::awaitable<response> list_tokens(request& r, context& c);
asio::awaitable<response> create_token(request& r, context& c);
asio::awaitable<response> get_token(request& r, context& c);
asio::awaitable<response> revoke_token(request& r, context& c);
asio::awaitable<response> get_caller(request& r, context& c);
asio::awaitable<response> list_audit(request& r, context& c);

// handlers_backup.cpp
asio::awaitable<response> post_backup(request& r, context& c);
asio::awaitable<response> get_backup(request& r, context& c);
asio::awaitable<response> cancel_backup(request& r, context& c);

// handlers_operation.cpp
asio::awaitable<response> get_health(request& r, context& c);
asio::awaitable<response> get_readiness(request& r, context& c);
asio::awaitable<response> get_metrics(request& r, context& c);
asio::awaitable<response> get_changes(request& r, context& c);
asio::awaitable<response> get_schema(request& r, context& c);
asio::awaitable<response> not_ready(request& r, context& c);
// The index of what there is, made from the rules of all endpoints.
std::string index_text(const std::vector<endpoint_rules>& endpoints);

}  // namespace penstock::api
