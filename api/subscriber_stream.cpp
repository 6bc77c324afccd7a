#include "api/subscriber_stream.hpp"

#include <chrono>
#include <utility>

#include "api/sign_of_life.hpp"

namespace penstock::api {

namespace {

using ending = runtime::stream_piece::ending;

constexpr std::chrono::hours no_hurry{24};  // a WebSocket's pings are Beast's affair
constexpr int going_away = 1001, try_again_later = 1013;

std::string end_reason(const interruption& end) { return end.raised() ? "the daemon stops" : "the stream was removed"; }

}  // namespace

subscriber_events::subscriber_events(std::shared_ptr<runtime::subscriber> from, interruption& end)
    : from_(std::move(from)), end_(end) {
  end_.listen([one = std::weak_ptr(from_)] {
    if (const auto held = one.lock()) held->close();
  });
}

asio::awaitable<std::string> subscriber_events::next() {
  if (ended_) co_return std::string();
  const auto deadline = std::chrono::steady_clock::now() + longest_silence;
  const runtime::stream_piece piece = co_await from_->next(deadline);
  std::string text;
  if (piece.gap) text += "event: gap\ndata: {\"reason\":\"events since the last one seen are not kept any more\"}\n\n";
  for (const auto& message : piece.messages) {
    text.append("id: ").append(from_->id_of(message.number)).append("\ndata: ").append(*message.text).append("\n\n");
  }
  if (piece.end == ending::overrun) text += "event: overrun\ndata: {\"reason\":\"too slow: events are not kept any more\"}\n\n";
  if (piece.end == ending::closed) text += "event: end\ndata: {\"reason\":\"" + end_reason(end_) + "\"}\n\n";
  ended_ = piece.end != ending::none;
  if (text.empty()) text = ": still here\n\n";
  co_return text;
}

subscriber_messages::subscriber_messages(std::shared_ptr<runtime::subscriber> from, interruption& end)
    : from_(std::move(from)), end_(end) {
  end_.listen([one = std::weak_ptr(from_)] {
    if (const auto held = one.lock()) held->close();
  });
}

asio::awaitable<message_stream::piece> subscriber_messages::next() {
  const auto deadline = std::chrono::steady_clock::now() + no_hurry;
  const runtime::stream_piece come = co_await from_->next(deadline);
  piece out;
  for (const auto& message : come.messages) out.texts.push_back(message.text);
  if (come.end == ending::overrun) {
    out.close_code = try_again_later;
    out.reason = "too slow";
  } else if (come.end == ending::closed) {
    out.close_code = going_away;
    out.reason = end_reason(end_);
  }
  co_return out;
}

}  // namespace penstock::api
