// from: sse - a client of server-sent events; each becomes an event.
//
// The connection is a live_feed; connecting again it asks to go on after the last event that came (Last-Event-ID). What was
// safe downstream last is remembered by its id (consumer CONSUMER/sse), so after a restart the server is asked to go on
// there; an id is stored only after its event is safe, so none is skipped, and after a crash the events since may come
// twice. Events have no positions. Without ids, what was sent while nobody was connected is lost.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/feed_fields.hpp"
#include "runtime/live_feed.hpp"
#include "runtime/sse_parser.hpp"

namespace penstock::runtime::components::sse_source {

namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds answer_timeout{30};  // for the head of the answer
constexpr std::chrono::minutes usual_idle{5};
constexpr std::size_t piece_bytes = 16 << 10;  // read at once

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "sse",
      .doc = "Server-sent events of a URL: the data of each is one event, its id the event's id, its name the type. Connects "
             "again when the connection ends, and goes on after the last event where the server gives ids.",
      .settings = {.name = "sse",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "url",
                                 .type = field_type::string,
                                 .doc = "http:// or https://; may hold secret references. Redirects are not followed.",
                                 .required = true,
                                 .example = "\"https://feed.example/v1/prices\""},
                                {.name = "events",
                                 .type = field_type::list,
                                 .doc = "Names of the events to take; those without a name are `message`. Without this: all.",
                                 .example = "[message, price]",
                                 .children = {{.name = "name", .type = field_type::string, .doc = "A name."}},
                                 .single_allowed = true},
                                feed_headers_field(),
                                feed_format_field(),
                                {.name = "idle",
                                 .type = field_type::duration,
                                 .doc = "When nothing came for this long, not even a comment, the connection is made anew.",
                                 .fallback = "5m",
                                 .minimum = 0.01},
                                feed_reconnect_field(),
                                feed_size_field()},
                   .shorthand = "url"},
      .examples = {"sse: \"https://feed.example/v1/prices\"",
                   "sse: {url: \"https://feed.example/v1/prices\", headers: {Authorization: \"Bearer ${env:ALERTS_TOKEN}\"}, "
                   "idle: 1m, reconnect: 2s..1m}"},
      .bounded = false,
      .live = true,
  };
}

class sse_feed final : public live_feed {
 public:
  using header = std::pair<std::string, std::string>;

  sse_feed(feed_settings settings, std::vector<header> headers, std::vector<std::string> names, bool text,
           std::string last_id, asio::any_io_executor executor, blocking_pool& pool)
      : live_feed(std::move(settings), std::move(executor), pool),
        headers_(std::move(headers)),
        names_(std::move(names)),
        text_(text),
        last_id_(std::move(last_id)) {}

 private:
  asio::awaitable<std::string> attend(std::shared_ptr<web_stream> connection) override {
    beast::flat_buffer unread;
    http::response_parser<http::buffer_body> answer;
    answer.body_limit(boost::none);
    co_await ask(*connection, unread, answer);
    established();
    sse_parser parser(settings_.most_bytes, last_id_);
    std::vector<char> piece(piece_bytes);
    std::vector<sse_message> messages;
    while (!answer.is_done()) {
      const bool wanted = co_await room();
      if (!wanted) co_return std::string("stopped");
      connection->limit_time(settings_.idle);
      auto& body = answer.get().body();
      body.data = piece.data();
      body.size = piece.size();
      const auto [failure, _] = co_await http::async_read_some(*connection, unread, answer, as_result);
      parser.put({piece.data(), piece.size() - body.size}, messages);
      take_over(parser, messages);
      if (failure == beast::error::timeout) co_return "nothing came for " + format_duration(settings_.idle);
      if (failure && failure != http::error::need_buffer) co_return failure.message();
    }
    co_return std::string("the server ended the stream");
  }

  asio::awaitable<void> ask(web_stream& connection, beast::flat_buffer& unread,
                            http::response_parser<http::buffer_body>& answer) {
    http::request<http::empty_body> request{http::verb::get, settings_.url.target, 11};
    request.set(http::field::host, settings_.url.host_header());
    request.set(http::field::accept, "text/event-stream");
    request.set(http::field::cache_control, "no-store");
    request.set(http::field::user_agent, "penstock/" PENSTOCK_VERSION);
    if (!last_id_.empty()) request.set("Last-Event-ID", last_id_);
    for (const auto& [name, value] : headers_) request.set(name, value);
    connection.limit_time(answer_timeout);
    const auto [unsent, sent] = co_await http::async_write(connection, request, as_result);
    if (unsent) throw std::runtime_error(unsent.message());
    const auto [failure, _] = co_await http::async_read_header(connection, unread, answer, as_result);
    if (failure) throw std::runtime_error(failure.message());
    const auto& head = answer.get();
    if (head.result() != http::status::ok) refuse(head.result_int());
    const std::string type(head[http::field::content_type]);
    if (!type.starts_with("text/event-stream")) throw refused_for_good("answers with " + type + ", not with text/event-stream");
  }

  void take_over(const sse_parser& parser, std::vector<sse_message>& messages) {
    for (sse_message& m : messages) {
      if (!wanted(m.type)) continue;
      message next;
      next.data = std::move(m.data);
      next.type = std::move(m.type);
      if (m.own_id) next.id = m.id;
      next.feed_id = std::move(m.id);
      if (m.too_long) next.fault = too_long();
      if (text_) next.content_type = "text/plain";
      came(std::move(next));
    }
    messages.clear();
    last_id_ = parser.last_id();
    if (parser.retry()) begin_with_pause(*parser.retry());
  }

  bool wanted(const std::string& name) const {
    return names_.empty() || std::find(names_.begin(), names_.end(), name.empty() ? "message" : name) != names_.end();
  }

  const std::vector<header> headers_;
  const std::vector<std::string> names_;
  const bool text_;
  std::string last_id_;  // of what has come
};

class sse_source final : public source {
 public:
  sse_source(const config::value& v, const component_context& context)
      : settings_(read_feed_settings(v, context, "http", usual_idle)),
        headers_(read_request_headers(v, context)),
        names_(v.value("events", std::vector<std::string>{})),
        text_(v.value("format", "json") == "text"),
        flows_(context.services.flows),
        consumer_(context.consumer + "/sse"),
        input_(v.at("url").get<std::string>()),
        executor_(context.executor),
        pool_(context.services.blocking) {}

  ~sse_source() override {
    if (feed_) feed_->stop();
  }

  asio::awaitable<void> open(std::int64_t) override {
    safe_ = flows_.find_state(consumer_, input_, "last_id").value_or("");
    handed_out_ = saved_ = safe_;
    feed_ = std::make_shared<sse_feed>(settings_, headers_, names_, text_, safe_, executor_, pool_);
    feed_->start();
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    if (safe_ != saved_) co_await save();
    std::optional<batch> events = co_await feed_->take(most);
    if (events) handed_out_ = feed_->taken_id();
    co_return std::move(events);
  }

  void acknowledge(std::int64_t) override { safe_ = handed_out_; }

  void stop_input() override {
    if (feed_) feed_->stop();
  }

 private:
  asio::awaitable<void> save() {
    commit next;
    next.consumer = consumer_;
    next.steps.push_back({input_, "last_id", safe_});
    saved_ = safe_;
    co_await flows_.save(std::move(next));
  }

  const feed_settings settings_;
  const std::vector<std::pair<std::string, std::string>> headers_;
  const std::vector<std::string> names_;
  const bool text_;
  flow_store& flows_;
  const std::string consumer_, input_;  // of another URL the id means nothing
  const asio::any_io_executor executor_;
  blocking_pool& pool_;
  std::shared_ptr<sse_feed> feed_;
  std::string handed_out_{}, safe_{}, saved_{};  // ids: of the last event read, acknowledged, on disk
};

}  // namespace

void add(registry& r) {
  const auto check = [](const config::value& v) { check_feed(v, "http"); };
  r.add(checked_by(spec(), check), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<sse_source>(v, context);
        }));
}

}  // namespace penstock::runtime::components::sse_source
