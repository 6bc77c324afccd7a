// from: websocket - a client of a WebSocket; each message that the server sends is one event.
//
// The connection is a live_feed. A silent server is sent a ping at half of `idle`; one that stays silent is taken for dead.
// While the buffer is full nothing is read and silence means nothing. Events have no positions, and the protocol has no
// memory: what is sent while nobody is connected is lost, and so is what was read but not safe yet when the daemon dies.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/feed_fields.hpp"
#include "runtime/live_feed.hpp"

namespace penstock::runtime::components::websocket_source {

namespace {

namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds handshake_timeout{30};
constexpr std::chrono::minutes usual_idle{1};
constexpr std::size_t piece_bytes = 64 << 10;  // read at once

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "websocket",
      .doc = "Messages of a WebSocket server, each one event. Connects again when the connection ends.",
      .settings = {.name = "websocket",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "url",
                                 .type = field_type::string,
                                 .doc = "ws:// or wss://; may hold secret references.",
                                 .required = true,
                                 .example = "\"wss://feed.example/v1/prices\""},
                                {.name = "send",
                                 .type = field_type::list,
                                 .doc = "Messages to send after each connecting, e.g. to subscribe: JSON values, or texts, "
                                        "which go as they are. Secret references are filled in in both.",
                                 .example = "[{subscribe: prices}]",
                                 .children = {{.name = "message", .type = field_type::any, .doc = "One message."}},
                                 .single_allowed = true},
                                feed_headers_field(),
                                feed_format_field(),
                                {.name = "idle",
                                 .type = field_type::duration,
                                 .doc = "When nothing came for this long, not even the answer to a ping, the connection is made "
                                        "anew.",
                                 .fallback = "1m",
                                 .minimum = 0.01},
                                feed_reconnect_field(),
                                feed_size_field()},
                   .shorthand = "url"},
      .examples = {"websocket: \"wss://feed.example/v1/prices\"",
                   "websocket: {url: \"wss://feed.example/v1\", send: [{subscribe: prices}], headers: {Authorization: \"Bearer "
                   "${env:ALERTS_TOKEN}\"}}"},
      .bounded = false,
      .live = true,
  };
}

struct settings {
  feed_settings feed;
  std::vector<std::pair<std::string, std::string>> headers;
  std::vector<std::string> send;
  bool text;
};

// In all texts within, but not in keys.
void reveal_all(config::value& v, const component_context& context) {
  if (v.is_string()) v = context.reveal(v.get<std::string>());
  if (!v.is_structured()) return;
  for (config::value& part : v) reveal_all(part, context);
}

settings parse(const config::value& v, const component_context& context) {
  settings s{read_feed_settings(v, context, "ws", usual_idle), read_request_headers(v, context), {}, false};
  s.text = v.value("format", "json") == "text";
  for (config::value one : v.value("send", config::value::array())) {
    reveal_all(one, context);
    s.send.push_back(one.is_string() ? one.get<std::string>() : one.dump());
  }
  return s;
}

// One connection with its watch over silence. Held by whatever is under way on it; on the feed's strand.
class open_socket : public std::enable_shared_from_this<open_socket> {
 public:
  open_socket(std::shared_ptr<web_stream> connection, std::chrono::nanoseconds idle)
      : socket(*connection), connection_(std::move(connection)), half_(idle / 2), silence_(connection_->get_executor()) {}

  websocket::stream<web_stream&> socket;
  bool reading = false;  // only then silence is the server's

  void watch() {
    socket.control_callback([this](websocket::frame_type, beast::string_view) { heard(); });
    look_in_half();
  }
  void heard() { heard_ = true; }
  bool dead() const { return silent_ >= 2; }
  void end() {
    ended_ = true;
    silence_.cancel();
  }

 private:
  void look_in_half() {
    silence_.expires_after(half_);
    silence_.async_wait([self = shared_from_this()](boost::system::error_code cancelled) {
      if (!cancelled && !self->ended_) self->look();
    });
  }
  void look() {
    silent_ = std::exchange(heard_, false) || !reading ? 0 : silent_ + 1;
    if (dead()) return connection_->close();
    if (silent_ == 1) socket.async_ping({}, [self = shared_from_this()](boost::system::error_code) {});
    look_in_half();
  }

  const std::shared_ptr<web_stream> connection_;
  const std::chrono::nanoseconds half_;
  asio::steady_timer silence_;
  bool heard_ = false;  // something, since the last look
  int silent_ = 0;      // halves of `idle` in a row
  bool ended_ = false;
};

// The watch holds its socket until it ends, whatever way attend() ends.
struct watched {
  const std::shared_ptr<open_socket> open;
  ~watched() { open->end(); }
};

class websocket_feed final : public live_feed {
 public:
  websocket_feed(settings s, asio::any_io_executor executor, blocking_pool& pool)
      : live_feed(s.feed, std::move(executor), pool), headers_(std::move(s.headers)), send_(std::move(s.send)), text_(s.text) {}

 private:
  asio::awaitable<std::string> attend(std::shared_ptr<web_stream> connection) override {
    const auto open = std::make_shared<open_socket>(std::move(connection), settings_.idle);
    co_await greet(open->socket);
    established();
    const watched until_here{open};
    open->watch();
    std::string why;
    while (why.empty()) {
      const bool wanted = co_await room();
      if (!wanted) break;
      why = co_await read_one(*open);
    }
    co_return why;
  }

  asio::awaitable<void> greet(websocket::stream<web_stream&>& socket) {
    socket.set_option(websocket::stream_base::timeout{handshake_timeout, websocket::stream_base::none(), false});
    socket.set_option(websocket::stream_base::decorator([headers = headers_](websocket::request_type& request) {
      request.set(beast::http::field::user_agent, "penstock/" PENSTOCK_VERSION);
      for (const auto& [name, value] : headers) request.set(name, value);
    }));
    socket.read_message_max(0);  // read_one() leaves out what is too long
    websocket::response_type answer;
    const std::string host = settings_.url.host_header();
    const auto [failure] = co_await socket.async_handshake(answer, host, settings_.url.target, as_result);
    if (failure == websocket::error::upgrade_declined) refuse(answer.result_int());
    if (failure) throw std::runtime_error(failure.message());
    socket.text(true);
    for (const std::string& text : send_) {
      const auto [unsent, _] = co_await socket.async_write(asio::buffer(text), as_result);
      if (unsent) throw std::runtime_error(unsent.message());
    }
  }

  // Why the connection has ended; empty: it goes on.
  asio::awaitable<std::string> read_one(open_socket& open) {
    auto& socket = open.socket;
    bool too_long = false;
    buffer_.clear();
    do {
      open.reading = true;
      const auto [failure, _] = co_await socket.async_read_some(buffer_, piece_bytes, as_result);
      open.reading = false;
      if (failure) co_return why_ended(failure, open);
      open.heard();
      if (buffer_.size() > settings_.most_bytes) too_long = true;
      if (too_long) buffer_.clear();
    } while (!socket.is_message_done());
    message next;
    if (too_long) next.fault = live_feed::too_long();
    next.data.assign(static_cast<const char*>(buffer_.data().data()), buffer_.size());
    if (text_) next.content_type = socket.got_text() ? "text/plain" : "application/octet-stream";
    came(std::move(next));
    co_return std::string();
  }

  std::string why_ended(boost::system::error_code failure, const open_socket& open) const {
    if (open.dead()) return "nothing came for " + format_duration(settings_.idle);
    if (failure != websocket::error::closed) return failure.message();
    const websocket::close_reason& said = open.socket.reason();
    std::string why = "the server closed the connection with code " + std::to_string(said.code);
    if (!said.reason.empty()) why.append(": ").append(said.reason.data(), said.reason.size());
    return why;
  }

  const std::vector<std::pair<std::string, std::string>> headers_;
  const std::vector<std::string> send_;
  const bool text_;
  beast::flat_buffer buffer_;
};

class websocket_source final : public source {
 public:
  websocket_source(settings s, const component_context& context)
      : feed_(std::make_shared<websocket_feed>(std::move(s), context.executor, context.services.blocking)) {}

  ~websocket_source() override { feed_->stop(); }

  asio::awaitable<void> open(std::int64_t) override {
    feed_->start();
    co_return;
  }
  asio::awaitable<std::optional<batch>> read(std::size_t most) override { co_return co_await feed_->take(most); }
  void stop_input() override { feed_->stop(); }

 private:
  const std::shared_ptr<websocket_feed> feed_;
};

}  // namespace

void add(registry& r) {
  const auto check = [](const config::value& v) { check_feed(v, "ws"); };
  r.add(checked_by(spec(), check), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<websocket_source>(parse(v, context), context);
        }));
}

}  // namespace penstock::runtime::components::websocket_source
