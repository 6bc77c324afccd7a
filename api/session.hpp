// One connection: reads a request, has it handled, writes the response, again and again.
//
// Control thread; a coroutine that owns its session (shared_ptr) and ends when the client leaves, a limit is
// broken or the server stops. What always holds: no more than the route's limit of a body is read, one
// request at a time is handled (pipelined ones wait in the buffer), and each wait for the client has a
// deadline. A handler never sees any of this.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/flat_buffer.hpp>

#include "api/connection.hpp"
#include "api/http.hpp"
#include "api/request_parser.hpp"
#include "api/server_core.hpp"
#include "api/websocket.hpp"

namespace penstock::api {

class session : public std::enable_shared_from_this<session> {
 public:
  using clock = server_core::clock;

  // `tls`: null for a plain connection.
  session(std::shared_ptr<server_core> core, connection::socket accepted, asio::ssl::context* tls);
  ~session();

  // Call once, right after construction.
  void start();
  // Graceful: an idle connection closes now, a busy one after its response.
  void stop();
  // Closes the connection now. What its handler waits for by then it still waits for; nobody hears the
  // answer.
  void cut_off();
  // The request that is read or worked on.
  const request& current() const { return request_; }
  // Called by the sweep: when the deadline is over, the wait for the client ends. Returns the deadline.
  clock::time_point check_deadline(clock::time_point now);

 private:
  enum class read_end { complete, closed, timed_out, bad };
  enum class stage { idle, head, body, busy };
  using pieces = std::array<asio::const_buffer, 3>;

  // A response on its way.
  struct sending {
    pieces data;
    bool keep = false;     // the connection goes on afterwards
    bool streams = false;  // the stream's pieces follow
    bool chunked = false;
  };

  static asio::awaitable<void> run(std::shared_ptr<session> self);
  asio::awaitable<bool> shake_hands();  // false: it failed
  asio::awaitable<bool> serve_one();  // false: no further request on this connection
  asio::awaitable<response> answer();
  bool holds_back(const response& reply);  // is it a refusal of which there are too many?
  asio::awaitable<void> hold_back();

  asio::awaitable<read_end> read(bool (request_parser::*reached)() const);
  std::optional<asio::mutable_buffer> take_and_make_room(bool (request_parser::*reached)() const, read_end& end);
  read_end feed(bool (request_parser::*reached)() const, bool& finished);
  bool begins_last_chunk() const;
  bool hold_body(std::size_t bytes);
  void release_body();
  clock::time_point begin_request();  // returns the time
  asio::awaitable<read_end> read_body();
  asio::awaitable<std::optional<response>> unpack_body();
  asio::awaitable<void> let_others_work();

  std::optional<response> check_head();
  std::optional<response> check_message();
  response options(const std::string& allow) const;
  std::optional<response> find_route();
  std::optional<response> check_query();
  std::optional<response> check_body();
  std::optional<response> check_coding();
  response refusal(read_end why);
  void skip_arrived_body();

  asio::awaitable<void> choose_coding(response& reply);
  void name_wish(response& reply) const;
  void mark_packed(response& reply) const;
  asio::awaitable<void> pack(response& reply);
  sending begin_sending(const response& reply);
  asio::awaitable<bool> send_rest(response& reply, sending now);
  asio::awaitable<std::shared_ptr<websocket_line>> become_websocket(response& reply);
  asio::awaitable<bool> send_stream(body_stream& stream, bool chunked);
  void write_head(const response& reply, bool keep, bool chunked);
  bool write_now(pieces& data);
  asio::awaitable<bool> write(pieces data);
  asio::awaitable<void> linger();
  bool may_keep_open() const;
  void log(const response& reply, clock::time_point started) const;

  void watch();
  void watched(boost::system::error_code failure, std::size_t bytes);
  asio::awaitable<void> end_watch();

  clock::time_point deadline_in(std::chrono::milliseconds time);  // returns the time
  void no_deadline() { deadline_ = clock::time_point::max(); }

  const std::shared_ptr<server_core> core_;
  connection socket_;
  boost::beast::flat_buffer buffer_;
  request request_;
  std::vector<request_parser::place> places_;  // the parser's, kept for its memory
  std::optional<request_parser> parser_;
  const route* route_ = nullptr;       // of this request
  std::string out_;                    // head of the response, and its body when that is small
  boost::system::error_code failure_;  // what the parser disliked

  stage stage_ = stage::idle;
  clock::time_point deadline_ = clock::time_point::max();
  std::size_t body_limit_ = 0;  // of this request
  bool packed_body_ = false;    // it comes in gzip
  bool first_ = true;  // no request was served yet
  bool timed_out_ = false;
  bool unread_ = false;        // the client may still be sending what nobody reads
  bool refused_ = false;       // the request was not understood: where the next one begins is not known
  std::size_t held_body_ = 0;  // counted in core_->body_bytes
  bool stranger_ = false;      // and in core_->stranger_bytes

  std::shared_ptr<runtime::wakeup> held_back_;  // while it is

  bool watching_ = false;  // a read is under way only to notice that the client leaves
  bool watch_ends_ = false;
  bool gone_ = false;
  std::shared_ptr<runtime::wakeup> watch_ended_;
};

}  // namespace penstock::api
