// One accepted connection as a stream of bytes: TCP or a Unix socket, plain or within TLS.
//
// Control thread; owned by its session, which is its only user and keeps it in place. Plain connections go straight to the
// socket: no byte is copied and nothing is allocated for them here. At most one read and one write are under way at a time.
// cancel() ends both; a cancelled read has lost nothing, so that another may follow. Ends with its destruction, which closes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/role.hpp>

namespace boost::asio::ssl {
class context;
}

namespace penstock::api {

namespace asio = boost::asio;

// For co_await: an error is one of the results, not an exception.
inline constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

class connection {
 public:
  using socket = asio::generic::stream_protocol::socket;
  using executor_type = socket::executor_type;
  using error_code = boost::system::error_code;

  // `tls`: null for a plain connection; used only during the call.
  connection(socket accepted, asio::ssl::context* tls);
  ~connection();
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  bool is_tls() const { return tls_ != nullptr; }
  bool is_open() const { return socket_.is_open(); }
  // The peer is a process of this machine that was let in by the permissions of a socket file.
  bool is_local() const { return local_; }
  // Its address without the port; "unix" of a Unix socket, empty when it has left already.
  std::string peer() const;

  void cancel(error_code& failure);
  void close(error_code& failure) { socket_.close(failure); }

  // The handshake of TLS; plain connections need none. After http_instead the peer was told.
  enum class handshake_end { done, failed, http_instead };
  asio::awaitable<handshake_end> handshake();

  // What the socket takes at once; would_block when that is nothing, which within TLS is always so.
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers, error_code& failure) {
    if (!tls_) return socket_.write_some(buffers, failure);
    failure = asio::error::would_block;
    return 0;
  }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(error_code, std::size_t)>(reading{*this}, token, buffers);
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(error_code, std::size_t)>(writing{*this}, token, buffers);
  }

  // Nothing more is sent, and the peer is told. Returns soon: it does not wait for an answer.
  asio::awaitable<void> end_sending();
  // Reads what comes, without looking at it, until the peer closes, or cancel(). A cancel() finds nothing to cancel while input
  // comes faster than it is read, so whoever cancels also sets `enough`, which outlives this.
  asio::awaitable<void> drop_input(const bool& enough);

 private:
  struct tls_layer;
  using handler = std::function<void(error_code, std::size_t)>;

  // Handlers that can only be moved are shared, so that one type holds them all.
  template <class Handler>
  static handler erased(Handler&& h) {
    return [kept = std::make_shared<std::decay_t<Handler>>(std::forward<Handler>(h))](error_code failure, std::size_t bytes) {
      std::move (*kept)(failure, bytes);
    };
  }
  template <class Buffer, class Buffers>
  static Buffer first_of(const Buffers& buffers) {
    const auto end = asio::buffer_sequence_end(buffers);
    for (auto at = asio::buffer_sequence_begin(buffers); at != end; ++at) {
      if (const Buffer piece(*at); piece.size() > 0) return piece;
    }
    return {};
  }

  struct reading {
    connection& from;
    template <class Handler, class Buffers>
    void operator()(Handler&& h, const Buffers& buffers) const {
      if (!from.tls_) {
        from.socket_.async_read_some(buffers, std::forward<Handler>(h));
      } else {
        from.read_tls(first_of<asio::mutable_buffer>(buffers), erased(std::forward<Handler>(h)));
      }
    }
  };
  struct writing {
    connection& to;
    template <class Handler, class Buffers>
    void operator()(Handler&& h, const Buffers& buffers) const {
      if (!to.tls_) {
        to.socket_.async_write_some(buffers, std::forward<Handler>(h));
        return;
      }
      // A head and its small body go as one record.
      asio::const_buffer data = first_of<asio::const_buffer>(buffers);
      const std::size_t whole = asio::buffer_size(buffers);
      if (data.size() < whole && data.size() < largest_record) {
        to.record_.resize(std::min(whole, largest_record));
        asio::buffer_copy(asio::buffer(to.record_), buffers);
        data = asio::buffer(std::as_const(to.record_));
      }
      to.write_tls(data, erased(std::forward<Handler>(h)));
    }
  };
  void read_tls(asio::mutable_buffer into, handler done);
  void write_tls(asio::const_buffer data, handler done);

  static constexpr std::size_t largest_record = 16 << 10;  // RFC 8446, section 5.1

  socket socket_;
  const bool local_;
  std::unique_ptr<tls_layer> tls_;  // null: plain
  std::string record_;              // of TLS: what is being written, put together from pieces
};

// What Beast wants of a stream below a WebSocket.
void beast_close_socket(connection& c);
void teardown(boost::beast::role_type role, connection& c, boost::system::error_code& failure);
asio::awaitable<void> close_both_sides(connection& c);
void run_teardown(connection& c, std::function<void()> done);
template <class Handler>
void async_teardown(boost::beast::role_type, connection& c, Handler&& h) {
  run_teardown(c, [kept = std::make_shared<std::decay_t<Handler>>(std::forward<Handler>(h))] {
    std::move (*kept)(boost::system::error_code());
  });
}

}  // namespace penstock::api
