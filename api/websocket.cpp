#include "api/websocket.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/websocket/stream.hpp>

#include "api/problem.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::api {

namespace {

namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;

constexpr std::chrono::seconds handshake_limit{3};  // also of the closing
constexpr std::chrono::seconds peer_silence{30};    // Beast sends a ping at half of it
constexpr std::size_t most_received = 64 << 10;     // of one message that nobody reads

// 16 bytes in base64.
bool proper_key(std::string_view key) {
  return key.size() == 24 && key.ends_with("==") && std::all_of(key.begin(), key.end() - 2, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '+' || c == '/';
         });
}

}  // namespace

// Shared by the two coroutines that read and write.
struct websocket_line {
  websocket_line(connection& to, interruption& end)
      : socket(to), interrupted(end), reader_ended(std::make_shared<runtime::wakeup>(to.get_executor())) {}

  websocket::stream<connection&> socket;
  interruption& interrupted;
  bool reading = false;
  const std::shared_ptr<runtime::wakeup> reader_ended;
};

namespace {

// Until the client closes or is gone.
asio::awaitable<void> drop_what_comes(std::shared_ptr<websocket_line> line) {
  beast::flat_buffer dropped;
  boost::system::error_code ended;
  while (!ended) {
    const auto [failure, _] = co_await line->socket.async_read(dropped, as_result);
    ended = failure;
    dropped.clear();
  }
  co_return;
}

// The close code of the last piece; 0: the client has gone.
asio::awaitable<websocket::close_reason> send_all(std::shared_ptr<websocket_line> line, message_stream& messages) {
  while (line->reading) {
    const message_stream::piece next = co_await messages.next();
    for (const auto& text : next.texts) {
      const auto [failure, _] = co_await line->socket.async_write(asio::buffer(*text), as_result);
      if (failure) co_return websocket::close_reason();
    }
    if (next.close_code != 0) {
      co_return websocket::close_reason(static_cast<websocket::close_code>(next.close_code), next.reason);
    }
  }
  co_return websocket::close_reason();
}

// Beast takes a request of its own.
beast::http::request<beast::http::empty_body> handshake_of(const request& r) {
  beast::http::request<beast::http::empty_body> asked{beast::http::verb::get, {r.target.data(), r.target.size()}, 11};
  for (const header& h : r.headers) asked.insert({h.name.data(), h.name.size()}, {h.value.data(), h.value.size()});
  return asked;
}

}  // namespace

std::optional<response> handshake_refusal(const request& r) {
  if (r.header_value("sec-websocket-version") != "13") {
    response reply = problem_response(426, "upgrade_required", "the only version of WebSockets known here is 13");
    reply.headers.emplace_back("Sec-WebSocket-Version", "13");
    reply.headers.emplace_back("Upgrade", "websocket");
    return reply;
  }
  if (proper_key(r.header_value("sec-websocket-key"))) return std::nullopt;
  return problem_response(error{errc::malformed, "Sec-WebSocket-Key must be 16 bytes in base64"});
}

asio::awaitable<std::shared_ptr<websocket_line>> accept_websocket(connection& below, request& r) {
  auto line = std::make_shared<websocket_line>(below, r.interrupted);
  line->socket.set_option(websocket::stream_base::timeout{handshake_limit, peer_silence, true});
  line->socket.read_message_max(most_received);
  line->socket.text(true);
  const auto asked = handshake_of(r);
  const auto [refused] = co_await line->socket.async_accept(asked, as_result);
  if (refused) line.reset();
  co_return line;
}

asio::awaitable<void> serve_websocket(std::shared_ptr<websocket_line> line, message_stream& messages) {
  line->reading = true;
  auto read = drop_what_comes(line);
  asio::co_spawn(line->socket.get_executor(), std::move(read), [line](std::exception_ptr) {
    line->reading = false;
    line->interrupted.raise();
    line->reader_ended->notify();
  });
  websocket::close_reason why;
  std::exception_ptr failure;
  try {
    why = co_await send_all(line, messages);
  } catch (...) {
    failure = std::current_exception();
    why = websocket::close_code::internal_error;
  }
  boost::system::error_code ignored;
  if (line->reading && why) {
    co_await line->socket.async_close(why, as_result);
  } else {
    line->socket.next_layer().close(ignored);
  }
  while (line->reading) co_await line->reader_ended->wait();
  if (failure) std::rethrow_exception(failure);
  co_return;
}

}  // namespace penstock::api
