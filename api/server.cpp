#include "api/server.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include "api/server_core.hpp"
#include "api/session.hpp"

namespace penstock::api {

using tcp = asio::ip::tcp;

namespace {

constexpr auto sweep_gap = std::chrono::milliseconds{20};  // so deadlines close to each other share a wakeup
constexpr auto accept_pause = std::chrono::milliseconds{100};  // when the process is out of file descriptors
constexpr auto cut_off_time = std::chrono::seconds{1};         // for sessions that were cut off to end

// Answered without reading the request: a server at its limit spends nothing on it.
constexpr std::string_view busy =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    "Connection: close\r\n\r\n"
    R"({"type":"/problems/unavailable","title":"Unavailable","status":503,"detail":"too many connections"})";

void refuse(connection::socket& socket) {
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(busy), ignored);
  socket.shutdown(connection::socket::shutdown_send, ignored);
  // What the client has sent by now is taken off the socket, or closing it would reset the connection.
  std::array<char, 4096> unread;
  while (socket.read_some(asio::buffer(unread), ignored) > 0) {
  }
}

// A failure that lasts is told once, and so is its end.
class accept_failures {
 public:
  void happened(const listen_address& at, const std::string& why) {
    if (count_++ == 0) spdlog::warn("cannot accept connections at {}: {}; trying again all the time", at.shown(), why);
  }
  void over(const listen_address& at) {
    if (count_ > 0) spdlog::info("accepts connections at {} again, after {} tries in vain", at.shown(), count_);
    count_ = 0;
  }

 private:
  std::int64_t count_ = 0;
};

void admit(const std::shared_ptr<server_core>& core, const listen_address& from, connection::socket socket) {
  if (core->sessions.size() >= core->options.connections) {
    ++core->refused;
    if (!from.tls) refuse(socket);
    return;
  }
  boost::system::error_code ignored;
  if (!from.is_unix()) {
    socket.set_option(tcp::no_delay(true), ignored);
    socket.set_option(asio::socket_base::keep_alive(true), ignored);  // notices a peer that vanished behind a stream
  }
  socket.non_blocking(true, ignored);
  std::make_shared<session>(core, std::move(socket), from.tls ? core->tls.get() : nullptr)->start();
}

// Returns why there was none; empty: one was admitted. Throws when there is no memory for it.
asio::awaitable<std::string> accept_one(std::shared_ptr<server_core> core, std::shared_ptr<listener> from) {
  connection::socket socket(core->executor);
  const auto [failure] = co_await from->acceptor().async_accept(socket, asio::as_tuple(asio::use_awaitable));
  if (failure) co_return failure.message();
  admit(core, from->address(), std::move(socket));
  co_return std::string();
}

// Until the listener is closed. A connection that was accepted at that very moment is served, too.
asio::awaitable<void> accept_connections(std::shared_ptr<server_core> core, std::shared_ptr<listener> from) {
  asio::steady_timer pause(core->executor);
  accept_failures failures;
  while (from->acceptor().is_open()) {
    std::string why;
    try {
      auto one = accept_one(core, from);
      why = co_await std::move(one);
    } catch (const std::exception& e) {
      why = e.what();
    }
    if (!from->acceptor().is_open()) break;
    if (why.empty()) {
      failures.over(from->address());
      continue;
    }
    // Mostly the process has no file descriptor left; one becomes free when a connection ends.
    failures.happened(from->address(), why);
    pause.expires_after(accept_pause);
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

void begin_accepting(const std::shared_ptr<server_core>& core, const std::shared_ptr<listener>& from) {
  asio::co_spawn(core->executor, accept_connections(core, from), [from](std::exception_ptr failure) {
    if (!failure) return;
    spdlog::critical("no more connections can be accepted at {}", from->address().shown());
    std::rethrow_exception(failure);  // a daemon that cannot be spoken to ends, to be started anew
  });
}

}  // namespace

// ---- what sessions share ----

server_core::server_core(asio::any_io_executor control, std::vector<route> all, server_options limits)
    : executor(std::move(control)),
      options(limits),
      routes(std::move(all)),
      session_left(std::make_shared<runtime::wakeup>(executor)),
      counts(routes.size()),
      timer_(executor) {
  for (const route& r : routes) paths.add(r.rules.method, r.rules.path);
}

void server_core::leave(session& s) {
  sessions.erase(&s);
  if (stopping) session_left->notify();
  if (!sessions.empty()) return;
  next_sweep_ = clock::time_point::max();
  timer_.cancel();
}

void server_core::expect_by(clock::time_point deadline) {
  if (deadline < next_sweep_) arm(deadline);
}

void server_core::arm(clock::time_point at) {
  next_sweep_ = at;
  timer_.expires_at(at);
  timer_.async_wait([core = weak_from_this()](boost::system::error_code cancelled) {
    if (cancelled) return;
    if (const auto self = core.lock()) self->sweep();
  });
}

void server_core::sweep() {
  const auto now = clock::now();
  auto next = clock::time_point::max();
  for (session* s : sessions) next = std::min(next, s->check_deadline(now));
  next_sweep_ = clock::time_point::max();
  if (next != clock::time_point::max()) arm(std::max(next, now + sweep_gap));
}

void server_core::close_listeners() {
  for (const auto& one : listeners) one->close();
  listeners.clear();
}

void server_core::close_inherited_listeners() {
  for (const auto& one : listeners) {
    if (one->inherited()) one->close();
  }
  std::erase_if(listeners, [](const auto& one) { return one->inherited(); });
}

void server_core::count(const route* to, http_method method, int status) {
  if (to == nullptr) {
    ++unmatched[{method, status}];
  } else {
    ++counts[static_cast<std::size_t>(to - routes.data())][status];
  }
}

const std::string& server_core::date() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  if (now != date_second_) {
    date_second_ = now;
    date_ = fmt::format("{:%a, %d %b %Y %H:%M:%S} GMT", fmt::gmtime(now));  // RFC 9110 section 5.6.7
  }
  return date_;
}

// ---- the server ----

std::string_view token(access a) {
  constexpr std::array<std::string_view, 7> names{"open", "any_token", "signed_body", "read", "ingest", "operate", "admin"};
  return names[static_cast<std::size_t>(a)];
}

server::server(asio::any_io_executor control, std::vector<route> routes, server_options options)
    : core_(std::make_shared<server_core>(std::move(control), std::move(routes), options)) {}

server::~server() { core_->close_listeners(); }

std::uint16_t server::listen(const std::string& host, std::uint16_t port) {
  return listen(listen_address{.host = host, .port = port}).port;
}

listen_address server::listen(const listen_address& where, const socket_permissions& permissions) {
  if (where.tls && !core_->tls) throw std::logic_error("TLS without a certificate");
  const auto made = std::make_shared<listener>(core_->executor, where, permissions);
  core_->listeners.push_back(made);
  begin_accepting(core_, made);
  return made->address();
}

listen_address server::inherit(int listening, bool tls) {
  if (tls && !core_->tls) throw std::logic_error("TLS without a certificate");
  core_->listeners.push_back(std::make_shared<listener>(core_->executor, listening, tls));
  return core_->listeners.back()->address();
}

void server::accept_inherited() {
  for (const auto& one : core_->listeners) {
    if (one->inherited()) begin_accepting(core_, one);
  }
}

void server::leave_inherited() { core_->close_inherited_listeners(); }

void server::use_tls(std::shared_ptr<asio::ssl::context> context) { core_->tls = std::move(context); }
void server::admit_by(admission ask) { core_->admit = std::move(ask); }

std::size_t server::cut_off(const std::function<bool(const request&)>& chosen) {
  std::vector<session*> found;
  for (session* s : core_->sessions) {
    if (chosen(s->current())) found.push_back(s);
  }
  for (session* s : found) s->cut_off();
  return found.size();
}

asio::awaitable<std::size_t> server::stop(std::chrono::nanoseconds limit) {
  const std::shared_ptr<server_core> core = core_;  // the server may be gone before this ends
  core->stopping = true;
  core->close_listeners();
  const std::vector<session*> open(core->sessions.begin(), core->sessions.end());
  for (session* s : open) s->stop();
  const auto deadline = server_core::clock::now() + limit;
  bool in_time = true;
  while (in_time && !core->sessions.empty()) in_time = co_await core->session_left->wait_until(deadline);
  const std::vector<session*> late(core->sessions.begin(), core->sessions.end());
  for (session* s : late) s->cut_off();
  const auto last = server_core::clock::now() + cut_off_time;
  in_time = true;
  while (in_time && !core->sessions.empty()) in_time = co_await core->session_left->wait_until(last);
  co_return late.size();
}

std::vector<request_count> server::requests() const {
  std::vector<request_count> all;
  for (std::size_t i = 0; i < core_->counts.size(); ++i) {
    const endpoint_rules& rules = core_->routes[i].rules;
    for (const auto& [status, n] : core_->counts[i]) all.push_back({rules.method, rules.path, status, n});
  }
  for (const auto& [what, n] : core_->unmatched) all.push_back({what.first, "unmatched", what.second, n});
  return all;
}

std::size_t server::connections() const { return core_->sessions.size(); }
std::int64_t server::refused_connections() const { return core_->refused; }

}  // namespace penstock::api
