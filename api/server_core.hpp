// What the sessions of a server share: routes, limits, who is connected, and the one timer for all their
// deadlines.
//
// Control thread. Held by the server and by each session, so it outlives both. The timer is armed for the
// earliest deadline only and not at all without sessions: moving a deadline later, as every request does,
// costs nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "api/listener.hpp"
#include "api/router.hpp"
#include "api/server.hpp"
#include "runtime/wakeup.hpp"
#include "scheduler/token.hpp"

namespace boost::asio::ssl {
class context;
}

namespace penstock::api {

class session;

struct server_core : std::enable_shared_from_this<server_core> {
  using clock = std::chrono::steady_clock;

  server_core(asio::any_io_executor control, std::vector<route> all, server_options limits);

  void enter(session& s) { sessions.insert(&s); }
  void leave(session& s);
  // A session must have made progress by `deadline`.
  void expect_by(clock::time_point deadline);
  void close_listeners();
  void close_inherited_listeners();
  void count(const route* to, http_method method, int status);
  // For the Date header; made once a second.
  const std::string& date();

  const asio::any_io_executor executor;
  const server_options options;
  const std::vector<route> routes;
  admission admit;  // empty: everybody is let in
  router paths;
  std::unordered_set<session*> sessions;
  std::vector<std::shared_ptr<listener>> listeners;
  std::shared_ptr<asio::ssl::context> tls;  // for connections from now on; null: none speaks TLS
  std::size_t body_bytes = 0;      // held by all requests now
  std::size_t stranger_bytes = 0;  // of that: by those of whom nothing is known
  bool stopping = false;
  scheduler::token_bucket prompt_refusals{{.per_second = 100, .burst = 100}};  // see session::holds_back
  std::int64_t refused = 0;                                       // connections beyond the limit
  std::shared_ptr<runtime::wakeup> session_left;                  // notified while stopping
  std::vector<std::map<int, std::int64_t>> counts;                // by route, then status
  std::map<std::pair<http_method, int>, std::int64_t> unmatched;  // by method and status

 private:
  void sweep();
  void arm(clock::time_point at);

  asio::steady_timer timer_;
  clock::time_point next_sweep_ = clock::time_point::max();
  std::time_t date_second_ = 0;
  std::string date_;
};

}  // namespace penstock::api
