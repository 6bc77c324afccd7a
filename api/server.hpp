// The HTTP/1.1 server: listens, limits, and hands requests to the handlers of its routes. It knows no domain.
//
// Lives on the control thread, where every method is called; owned by api. Each connection is a session
// (session.hpp), a coroutine that reads one request after another; what they share is in server_core.hpp.
// Everything is bounded: connections, header, body, bodies in memory together, and the time of each stage.
// With no connection open there is no timer. stop() lets running requests finish, then cuts off.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "api/http.hpp"
#include "api/listen_address.hpp"

namespace boost::asio::ssl {
class context;
}

namespace penstock::api {

struct server_options {
  std::size_t connections = 1024;  // beyond: 503 and closed
  std::size_t header_bytes = 16 << 10;
  std::size_t target_bytes = 8 << 10;  // of the request line; beyond: 414
  std::size_t body_bytes = 1 << 20;
  std::size_t event_body_bytes = 16 << 20;   // of routes that take events
  std::size_t waiting_requests = 1000;       // with events, for one topic to store them; beyond: 429
  std::size_t bodies_in_memory = 256 << 20;  // of all connections together, half of it for hooks without a token; beyond: 503
  std::chrono::milliseconds header_timeout{
      10'000};  // from a request's first byte, and for a new connection's first
  std::chrono::milliseconds body_timeout{
      60'000};  // for a whole body, and for a piece of a response to be taken
  std::chrono::milliseconds idle_timeout{75'000};   // between requests
  std::chrono::milliseconds linger_timeout{5'000};  // for a client to read a refusal while it still sends
  std::chrono::milliseconds refusal_delay{1'000};   // of a 429 when there are many, and half more or less
};

// What a caller must be allowed to do. `open` is for everybody, `any_token` for everybody who has a token, `signed_body` for whom
// the endpoint itself believes (a webhook's signature); the others are the roles of design.md: `operate` includes `read` and
// `ingest`, `admin` includes all. Who is asked for a token, and when, is said in admission.hpp.
enum class access { open, any_token, signed_body, read, ingest, operate, admin };

std::string_view token(access a);

// What an endpoint answers when all is well.
struct answer_rules {
  int status = 200;
  std::string schema{};  // of its JSON, a name in schemas.json; empty: it has none
  std::vector<std::string_view> media{"application/json"};  // the first is what a client without Accept gets; none: no body
  std::vector<std::string> headers{};                       // besides those that every answer has
};

// What the server has to know of an endpoint besides its code, and what /openapi.json says of it.
struct endpoint_rules {
  http_method method = http_method::get;
  std::string path;                  // pattern, see router.hpp
  access needs = access::admin;
  std::string summary;               // one line for people
  std::vector<std::string> query{};  // the parameters it takes; any other is refused
  bool any_query = false;
  bool body_required = false;  // without Content-Length or chunks: 411
  bool takes_events = false;   // the larger body limit
  bool always = false;         // also while the daemon starts or stops
  bool for_scoped = false;     // also for a token that is limited to some pipelines, though the path names none
  std::string operation{};     // its name in /openapi.json, which stays; that of its handler
  std::string body{};          // of what its body holds, a name in schemas.json; empty: it reads none
  std::vector<std::string> headers{};    // of a request, those that it heeds
  std::vector<answer_rules> answers{};
  std::vector<int> problems{};           // statuses besides those that follow from the above (openapi.cpp)
};

struct route {
  endpoint_rules rules;
  std::function<asio::awaitable<response>(request&)> handle;
};

// Asked about each request that has an endpoint, before its query is checked and its body is read: a refusal, or nothing.
using admission = std::function<std::optional<response>(request&, const endpoint_rules&)>;

// Counted since the start.
struct request_count {
  http_method method;
  std::string path;  // the route's pattern; "unmatched" when there was none
  int status;
  std::int64_t requests;
};

struct server_core;

class server {
 public:
  server(asio::any_io_executor control, std::vector<route> routes, server_options options = {});
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  // Binds and listens; `host` is a name or an address, port 0 takes a free one. Returns the port. May be
  // called for several addresses. Throws std::runtime_error that names the address.
  std::uint16_t listen(const std::string& host, std::uint16_t port);
  // The same for any kind of address; returns it with its port. TLS needs use_tls() first.
  listen_address listen(const listen_address& where, const socket_permissions& permissions = {});
  // A listening socket that another process has made and keeps. Connections wait in it until accept_inherited(), and again
  // from leave_inherited() on, for the next daemon: while one daemon replaces another nobody is refused.
  listen_address inherit(int listening, bool tls);
  void accept_inherited();
  void leave_inherited();
  // For connections from now on; those that are open keep what they began with.
  void use_tls(std::shared_ptr<asio::ssl::context> context);

  // Without it everybody is let in. Before listen().
  void admit_by(admission ask);

  // Cuts off the connections whose request, now, is one of these; returns how many.
  std::size_t cut_off(const std::function<bool(const request&)>& chosen);

  // Stops accepting, closes idle connections, tells streams and waiting requests to end, and returns when all
  // connections have ended; those that have not after `limit` are cut off and counted in the answer.
  asio::awaitable<std::size_t> stop(std::chrono::nanoseconds limit);

  std::vector<request_count> requests() const;
  std::size_t connections() const;
  std::int64_t refused_connections() const;

 private:
  std::shared_ptr<server_core> core_;
};

}  // namespace penstock::api
