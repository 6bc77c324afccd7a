#include "api/event_stream.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "api/sign_of_life.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/json.hpp"

namespace penstock::api {

namespace {

constexpr std::int64_t most_events = 500;  // in one piece
constexpr std::size_t most_bytes = 256 << 10;

struct piece {
  std::string text;
  std::int64_t last = 0;
  std::int64_t events = 0;
};

piece read_piece(runtime::topic& from, std::int64_t after, std::size_t limit, stream_format format) {
  const runtime::batch events = from.read(after, limit, INT64_MAX, most_bytes);
  piece out;
  for (const runtime::event& e : events.events) append_event(out.text, e, format);
  if (!events.empty()) out.last = events.events.back().position;
  out.events = static_cast<std::int64_t>(events.size());
  return out;
}

}  // namespace

void append_event(std::string& out, const runtime::event& e, stream_format format) {
  if (format == stream_format::server_sent_events) {
    out.append("id: ").append(std::to_string(e.position)).append("\ndata: ");
  }
  runtime::append_cloudevent(out, e);
  out += format == stream_format::server_sent_events ? "\n\n" : "\n";
}

event_stream::event_stream(context& c, std::shared_ptr<runtime::topic> from, options how, interruption& end)
    : context_(c),
      topic_(std::move(from)),
      options_(how),
      end_(end),
      wake_(std::make_shared<runtime::wakeup>(c.control)) {
  subscription_ = topic_->subscribe([wake = wake_](std::int64_t) { wake->notify(); });
  end_.listen([wake = wake_] { wake->notify(); });
}

asio::awaitable<std::string> event_stream::next() {
  while (!ended_ && options_.limit > 0) {
    if (end_.raised()) co_return farewell("the daemon stops");
    std::string text = co_await read_on();
    if (!text.empty()) co_return text;
    if (context_.topics.find(topic_->name()) != topic_) co_return farewell("the topic was removed");
    if (end_.raised()) continue;
    const bool woken = co_await wake_->wait_until(std::chrono::steady_clock::now() + longest_silence);
    // Lines of JSON know no word for it. They come by here as well, to see whether the topic is still there.
    if (!woken && options_.format == stream_format::server_sent_events) co_return ": still here\n\n";
  }
  co_return std::string();
}

asio::awaitable<std::string> event_stream::read_on() {
  const std::int64_t last = topic_->last_offset();
  if (options_.after >= last) co_return std::string();
  const auto limit = static_cast<std::size_t>(std::min(options_.limit, most_events));
  auto work = [topic = topic_, after = options_.after, limit, format = options_.format] {
    return read_piece(*topic, after, limit, format);
  };
  piece read = co_await context_.blocking.run(std::move(work));
  // Nothing there: it was too old and has been deleted.
  options_.after = read.events > 0 ? read.last : last;
  options_.limit -= read.events;
  co_return std::move(read.text);
}

// A client of server-sent events would otherwise take the end for a lost connection and come back at once.
std::string event_stream::farewell(const char* reason) {
  ended_ = true;
  if (options_.format == stream_format::ndjson) return {};
  return std::string("event: end\ndata: {\"reason\":\"") + reason + "\"}\n\n";
}

}  // namespace penstock::api
