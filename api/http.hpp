// Requests and responses as handlers see them: plain values, no sockets, no Beast.
//
// Control thread only. A request belongs to its session and stays valid, unchanged, until its response has
// been sent (streams included); every view in it points into its own `head`. A response is made by a handler
// and handed over.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>

namespace penstock::scheduler {
struct token_record;
}

namespace penstock::api {

namespace asio = boost::asio;

enum class http_method { get, head, post, put, del, patch, options, other };

std::string_view token(http_method m);  // "GET"; `other` is "?"

struct header {
  std::string_view name;  // as sent
  std::string_view value;
};

struct query_parameter {
  std::string name, value;  // percent-decoded
};

struct path_parameter {
  std::string_view name;  // points into the router's pattern
  std::string value;      // percent-decoded
};

// The wish from outside that a request comes to its end early: its client has gone, or the server stops.
// Handlers that wait, and streams, listen; nobody is forced.
class interruption {
 public:
  // `watch` is called when somebody starts to listen: only then is the connection watched for its client's
  // leaving.
  explicit interruption(std::function<void()> watch = {}) : watch_(std::move(watch)) {}

  bool raised() const { return raised_; }
  // One listener; a later one replaces it. Called at once when raised already.
  void listen(std::function<void()> call);
  void raise();
  void reset();

 private:
  std::function<void()> watch_;
  std::function<void()> call_;
  bool raised_ = false;
};

struct request {
  http_method method = http_method::other;
  int version = 11;             // 10 or 11
  std::string head;             // the memory that the views below point into
  std::string_view target;      // as sent
  std::string_view path;        // of the target, still percent-encoded
  std::string_view query_text;  // behind the ?, still percent-encoded
  std::vector<header> headers;
  std::vector<query_parameter> query;
  std::vector<path_parameter> parameters;
  std::string body;  // room for runtime::padding is reserved, so that making a buffer of it moves
  std::string id;    // X-Request-Id, the client's or made here
  interruption interrupted;
  std::shared_ptr<const scheduler::token_record> token;  // whose request it is; null: nobody was asked for one
  std::string peer;           // of the connection, and kept by clear(): the address it came from; empty: not over a network
  bool trusted_peer = false;  // of the connection, and kept by clear(): who connects was let in by the system (a socket's file)

  // The first header of that name, whatever its case; empty when there is none.
  std::string_view header_value(std::string_view name) const;
  // All headers of that name as one list (RFC 9110, section 5.3), with commas between them.
  std::string header_list(std::string_view name) const;
  // A parameter of the path pattern; empty when the pattern has none of that name.
  const std::string& parameter(std::string_view name) const;
  std::optional<std::string_view> query_value(std::string_view name) const;
  void clear();  // keeps the memory
};

// Text equal but for the case of ASCII letters.
bool same_letters(std::string_view a, std::string_view b);
std::string lower(std::string_view text);

// Percent-decoding (RFC 3986 section 2.1); nothing when a % is not followed by two hex digits.
std::optional<std::string> percent_decode(std::string_view text);
// Everything but unreserved characters is encoded: for one path segment.
std::string percent_encode(std::string_view text);
// Name=value pairs; + stays +, because times carry it. Nothing when the encoding is broken.
std::optional<std::vector<query_parameter>> parse_query(std::string_view text);

// A body that is made while it is sent. Control thread; owned by its response.
class body_stream {
 public:
  virtual ~body_stream() = default;
  // The next bytes; empty is the end. Comes to its end soon after the request's interruption was raised.
  virtual asio::awaitable<std::string> next() = 0;
};

// Text messages for a client that asked for a WebSocket. Control thread; owned by its response.
class message_stream {
 public:
  struct piece {
    std::vector<std::shared_ptr<const std::string>> texts{};
    int close_code = 0;  // RFC 6455, section 7.4.1; 0: it goes on
    std::string reason{};
  };

  virtual ~message_stream() = default;
  // The next messages, possibly none; the last piece has a close code. Comes to its end soon after the request's
  // interruption was raised.
  virtual asio::awaitable<piece> next() = 0;
};

// The client asks that the connection become a WebSocket; that it asks properly says handshake_refusal (websocket.hpp). Some
// proxies take out `Connection: upgrade`: then it does not.
bool asks_for_websocket(const request& r);
// Not sent by the page of another site: browsers let any page open a WebSocket to anywhere, and say where it is from.
bool from_same_origin(const request& r);

struct response {
  int status = 200;
  std::string_view content_type = "application/json";  // refers to static text
  std::string body{};
  std::vector<std::pair<std::string, std::string>> headers{};
  std::unique_ptr<body_stream> stream{};  // instead of `body`
  std::unique_ptr<message_stream> messages{};  // the connection becomes a WebSocket; only when the client asked for that
  std::string note{};     // for the audit log only: what was done, in words
  std::string subject{};  // likewise: the pipeline, where the path names none
  std::size_t unsent = 0;  // of a 304: how large the body is that the client has
  std::string cause{};  // for the log only: what went wrong inside; empty: nothing to worry about
};

}  // namespace penstock::api
