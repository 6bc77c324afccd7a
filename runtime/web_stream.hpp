// A connection to a server as a stream of bytes: TCP, or TLS over it (verified against the system's certificates).
//
// Connects once; then Beast's HTTP and WebSocket algorithms run on it, as on any Asio stream. Lives on its executor, which
// runs one thing at a time; whoever has an operation under way keeps it alive. close() ends all of them. Names are looked up
// on a blocking thread, which is left to itself when nobody waits for it any more.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/core/role.hpp>
#include <boost/beast/core/tcp_stream.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/wakeup.hpp"
#include "runtime/web_url.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class web_stream {
 public:
  using executor_type = asio::any_io_executor;

  web_stream(executor_type executor, blocking_pool& pool)
      : tcp_(executor), pool_(pool), woken_(std::make_shared<wakeup>(executor)) {}

  // `timeout` is for everything: finding the server, connecting, TLS. Throws std::runtime_error that says why not, also when
  // close() was called meanwhile.
  asio::awaitable<void> connect(const web_url& to, std::chrono::nanoseconds timeout);
  // Ends what is under way.
  void close();

  // For operations that begin from now on, each: they fail with beast::error::timeout. 0: none.
  void limit_time(std::chrono::nanoseconds limit);

  // ---- what Asio's and Beast's algorithms ask of a stream ----

  executor_type get_executor() { return tcp_.get_executor(); }
  boost::beast::tcp_stream& next_layer() { return tcp_; }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
        [this](auto handler, const Buffers& to) {
          if (tls_) {
            tls_->async_read_some(to, std::move(handler));
          } else {
            tcp_.async_read_some(to, std::move(handler));
          }
        },
        token, buffers);
  }

  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
        [this](auto handler, const Buffers& from) {
          if (tls_) {
            tls_->async_write_some(from, std::move(handler));
          } else {
            tcp_.async_write_some(from, std::move(handler));
          }
        },
        token, buffers);
  }

 private:
  using time_point = std::chrono::steady_clock::time_point;
  asio::awaitable<std::vector<asio::ip::tcp::endpoint>> find(const web_url& server, time_point latest);
  asio::awaitable<void> secure(const std::string& host);
  void expect_certificate_of(const std::string& host);
  std::string why_insecure(boost::system::error_code failure);
  void require_open(boost::system::error_code failure) const;

  boost::beast::tcp_stream tcp_;
  blocking_pool& pool_;
  const std::shared_ptr<wakeup> woken_;  // while a name is looked up: it is known, or close() was called
  std::optional<asio::ssl::context> certificates_;
  std::optional<asio::ssl::stream<boost::beast::tcp_stream&>> tls_;
  bool closed_ = false;
};

// Found by Beast when a WebSocket has been closed on both sides: a client has nothing more to wait for.
template <class Handler>
void async_teardown(boost::beast::role_type, web_stream& stream, Handler&& handler) {
  stream.close();
  asio::post(stream.get_executor(),
             boost::beast::bind_front_handler(std::forward<Handler>(handler), boost::system::error_code()));
}

}  // namespace penstock::runtime
