// What a subscriber of a live stream gets: server-sent events, or the messages of a WebSocket, until it leaves, falls behind,
// or the stream or the daemon ends.
//
// Control thread; sleeps until events come. An SSE client is told of everything in words: `event: gap` (events are
// missing before the next), `overrun` (it was too slow), `end`; and a comment every 15 s keeps proxies from closing an idle
// stream.
#pragma once

#include <memory>
#include <string>

#include "api/http.hpp"
#include "runtime/subscribers.hpp"

namespace penstock::api {

class subscriber_events final : public body_stream {
 public:
  subscriber_events(std::shared_ptr<runtime::subscriber> from, interruption& end);
  asio::awaitable<std::string> next() override;

 private:
  const std::shared_ptr<runtime::subscriber> from_;
  interruption& end_;
  bool ended_ = false;
};

class subscriber_messages final : public message_stream {
 public:
  subscriber_messages(std::shared_ptr<runtime::subscriber> from, interruption& end);
  asio::awaitable<piece> next() override;

 private:
  const std::shared_ptr<runtime::subscriber> from_;
  interruption& end_;
};

}  // namespace penstock::api
