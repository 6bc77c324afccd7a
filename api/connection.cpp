#include "api/connection.hpp"

#include <array>
#include <cstring>
#include <string_view>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace penstock::api {

namespace {

// For who speaks plain HTTP where TLS is spoken.
constexpr std::string_view speak_tls =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n"
    R"({"type":"/problems/malformed","title":"Malformed","status":400,"detail":"this address speaks HTTPS: use https:// in the URL"})";

// Of a Unix socket with a file that not everybody may write to: an abstract name has no permissions. A socket of our own was bound
// under another name than its file has now, and its mode was checked with the settings; what systemd has made is found by its name.
bool has_socket_file(int fd) {
  sockaddr_un mine{};
  socklen_t size = sizeof mine;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &size) != 0 || mine.sun_family != AF_UNIX || mine.sun_path[0] == '\0') return false;
  struct stat file {};
  return ::stat(mine.sun_path, &file) != 0 || (file.st_mode & S_IWOTH) == 0;
}

// The socket, as TLS uses it. To read one record, TLS may read the socket several times: one that was cancelled in between, when
// no read was pending, must not go on.
struct cancellable_socket {
  using lowest_layer_type = connection::socket;
  using executor_type = connection::executor_type;

  executor_type get_executor() { return socket.get_executor(); }
  lowest_layer_type& lowest_layer() { return socket; }
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(reading{*this}, token, buffers);
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(writing{*this}, token, buffers);
  }

  struct reading {
    cancellable_socket& from;
    template <class Handler, class Buffers>
    void operator()(Handler&& h, const Buffers& buffers) const {
      if (from.cancelled) return from.abort(std::forward<Handler>(h));
      from.socket.async_read_some(buffers, std::forward<Handler>(h));
    }
  };
  struct writing {
    cancellable_socket& to;
    template <class Handler, class Buffers>
    void operator()(Handler&& h, const Buffers& buffers) const {
      if (to.cancelled) return to.abort(std::forward<Handler>(h));
      to.socket.async_write_some(buffers, std::forward<Handler>(h));
    }
  };
  template <class Handler>
  void abort(Handler&& h) {
    asio::post(socket.get_executor(), [h = std::forward<Handler>(h)]() mutable {
      std::move(h)(boost::system::error_code(asio::error::operation_aborted), std::size_t{0});
    });
  }

  connection::socket& socket;
  bool cancelled = false;
};

}  // namespace

struct connection::tls_layer {
  tls_layer(socket& accepted, asio::ssl::context& with) : below{accepted}, stream(below, with) {}
  cancellable_socket below;
  asio::ssl::stream<cancellable_socket&> stream;
  bool open = false;  // the handshake is done
};

connection::connection(socket accepted, asio::ssl::context* tls)
    : socket_(std::move(accepted)), local_(has_socket_file(socket_.native_handle())) {
  if (tls != nullptr) tls_ = std::make_unique<tls_layer>(socket_, *tls);
}

connection::~connection() = default;

std::string connection::peer() const {
  if (local_) return "unix";
  error_code gone;
  const auto generic = socket_.remote_endpoint(gone);
  asio::ip::tcp::endpoint remote;
  if (!gone && generic.protocol().family() == AF_UNIX) return "unix";
  if (gone || generic.size() > remote.capacity()) return {};
  remote.resize(generic.size());
  std::memcpy(remote.data(), generic.data(), generic.size());
  return remote.address().to_string();
}

asio::awaitable<connection::handshake_end> connection::handshake() {
  if (!tls_) co_return handshake_end::done;
  const auto [failure] = co_await tls_->stream.async_handshake(asio::ssl::stream_base::server, as_result);
  if (!failure) {
    tls_->open = true;
    co_return handshake_end::done;
  }
  spdlog::debug("TLS handshake with {} failed: {}", peer(), failure.message());
  const auto code = static_cast<unsigned long>(failure.value());
  const bool http = failure.category() == asio::error::get_ssl_category() && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST;
  if (!http) co_return handshake_end::failed;
  error_code ignored;
  socket_.write_some(asio::buffer(speak_tls), ignored);
  socket_.shutdown(socket::shutdown_send, ignored);
  co_return handshake_end::http_instead;
}

void connection::cancel(error_code& failure) {
  if (tls_) tls_->below.cancelled = true;
  socket_.cancel(failure);
}

void connection::read_tls(asio::mutable_buffer into, handler done) {
  tls_->below.cancelled = false;
  tls_->stream.async_read_some(into, std::move(done));
}

void connection::write_tls(asio::const_buffer data, handler done) {
  tls_->below.cancelled = false;
  tls_->stream.async_write_some(data, std::move(done));
}

asio::awaitable<void> connection::end_sending() {
  error_code ignored;
  if (tls_ && tls_->open && socket_.is_open()) {
    // As if the peer had said its end already: then the library does not wait for it (RFC 8446, section 6.1, allows that).
    ::SSL_set_shutdown(tls_->stream.native_handle(), SSL_RECEIVED_SHUTDOWN);
    tls_->open = false;
    tls_->below.cancelled = false;
    co_await tls_->stream.async_shutdown(as_result);
  }
  socket_.shutdown(socket::shutdown_send, ignored);
  co_return;
}

asio::awaitable<void> connection::drop_input(const bool& enough) {
  std::array<char, 4096> dropped;
  error_code ended;
  while (!ended && !enough && socket_.is_open()) {
    const auto [failure, _] = co_await socket_.async_read_some(asio::buffer(dropped), as_result);
    ended = failure;
  }
  co_return;
}

void beast_close_socket(connection& c) {
  boost::system::error_code ignored;
  c.close(ignored);
}

void teardown(boost::beast::role_type, connection& c, boost::system::error_code& failure) { c.close(failure); }

asio::awaitable<void> close_both_sides(connection& c) {
  co_await c.end_sending();
  const bool until_closed = false;  // by the peer, or by the stream's own time limit
  co_await c.drop_input(until_closed);
  beast_close_socket(c);
  co_return;
}

void run_teardown(connection& c, std::function<void()> done) {
  asio::co_spawn(c.get_executor(), close_both_sides(c), [done = std::move(done)](std::exception_ptr) { done(); });
}

}  // namespace penstock::api
