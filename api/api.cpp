#include "api/api.hpp"

#include <utility>

#include "api/admission.hpp"
#include "api/context.hpp"
#include "api/endpoints.hpp"

namespace penstock::api {

namespace {

std::unique_ptr<context> make_context(asio::any_io_executor control, scheduler::supervisor& supervisor,
                                      runtime::services& services, const runtime::registry& components,
                                      const server_options& options) {
  return std::unique_ptr<context>(new context{.control = control,
                                              .supervisor = supervisor,
                                              .topics = services.topics,
                                              .webhooks = services.webhooks,
                                              .subscribers = services.subscribers,
                                              .blocking = services.blocking,
                                              .components = components,
                                              .logs = log_watch(control),
                                              .most_waiting = options.waiting_requests});
}

}  // namespace

api::api(asio::any_io_executor control, scheduler::supervisor& supervisor, runtime::services& services,
         const runtime::registry& components, server_options options)
    : context_(make_context(control, supervisor, services, components, options)),
      server_(control, make_routes(*context_), options) {
  context_->http = &server_;
  server_.admit_by([c = context_.get()](request& r, const endpoint_rules& rules) { return admit(r, rules, *c); });
}

api::~api() = default;

std::uint16_t api::listen(const std::string& host, std::uint16_t port) { return server_.listen(host, port); }

listen_address api::listen(const listen_address& where, const socket_permissions& permissions) {
  return server_.listen(where, permissions);
}

listen_address api::inherit(int listening, bool tls) { return server_.inherit(listening, tls); }

void api::use_tls(std::shared_ptr<asio::ssl::context> context) { server_.use_tls(std::move(context)); }

void api::set_ready() {
  context_->now = phase::ready;
  server_.accept_inherited();
}

void api::announce_stop() {
  context_->now = phase::stopping;
  server_.leave_inherited();
}

asio::awaitable<std::size_t> api::stop(std::chrono::nanoseconds limit) {
  announce_stop();
  co_return co_await server_.stop(limit);
}

}  // namespace penstock::api
