// REST, as the daemon uses it: construct with the domain, listen, say when it is ready, stop.
//
// Lives on the control thread, where every method is called; owned by the daemon, made after the domain and
// destroyed before it. Until set_ready() only health, schema and index are served, everything else is
// answered 503 with Retry-After.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "api/server.hpp"
#include "runtime/component.hpp"
#include "runtime/registry.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::api {

struct context;

class api {
 public:
  api(asio::any_io_executor control, scheduler::supervisor& supervisor, runtime::services& services,
      const runtime::registry& components, server_options options = {});
  ~api();
  api(const api&) = delete;
  api& operator=(const api&) = delete;

  // Binds and listens; port 0 takes a free one. Returns the port. Throws std::runtime_error naming the
  // address.
  std::uint16_t listen(const std::string& host, std::uint16_t port);
  // As those of `server`.
  listen_address listen(const listen_address& where, const socket_permissions& permissions);
  listen_address inherit(int listening, bool tls);
  void use_tls(std::shared_ptr<asio::ssl::context> context);

  // The domain has started: /readyz answers 200, and what waits in inherited sockets is served.
  void set_ready();
  // /readyz answers 503, so that load balancers look elsewhere, and so does what would change something;
  // connections are still taken and what only reads is served. Those to inherited sockets wait for the next daemon.
  void announce_stop();
  // Takes no more connections, lets running requests finish, ends streams. Returns how many connections had
  // to be cut off after `limit`.
  asio::awaitable<std::size_t> stop(std::chrono::nanoseconds limit);

 private:
  std::unique_ptr<context> context_;
  server server_;
};

}  // namespace penstock::api
