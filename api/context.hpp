// What handlers serve from: the domain behind REST. Made by api, lives as long as it; control thread.
#pragma once

#include <optional>

#include <boost/asio/any_io_executor.hpp>

#include "api/conditional.hpp"
#include "api/log_watch.hpp"
#include "runtime/component.hpp"
#include "runtime/registry.hpp"
#include "runtime/subscribers.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::api {

class server;

enum class phase { starting, ready, stopping };

struct context {
  asio::any_io_executor control;
  scheduler::supervisor& supervisor;
  runtime::topics& topics;
  runtime::webhooks& webhooks;
  runtime::subscribers& subscribers;
  runtime::blocking_pool& blocking;
  const runtime::registry& components;
  log_watch logs;
  const std::size_t most_waiting;  // requests with events, for one topic to store them
  phase now = phase::starting;
  const timestamp started_at = wall_now();
  server* http = nullptr;  // for its counters, and to cut off whom a revoked token had let in; set once it is made
  std::optional<fixed_document> schema{};  // of definitions; made when it is first asked for
};

}  // namespace penstock::api
