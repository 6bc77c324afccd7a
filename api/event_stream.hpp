// A topic read by a client that follows it: NDJSON, or server-sent events, until the client leaves or `limit`
// is reached. Server-sent events have a comment every 15 s, as a sign of life.
//
// Control thread; reads on the blocking pool; sleeps until the topic's next commit. It moves no cursor, and a
// slow client slows nobody: what it has not taken stays in the topic.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "api/context.hpp"
#include "api/http.hpp"
#include "runtime/topic.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::api {

enum class stream_format { ndjson, server_sent_events };

class event_stream final : public body_stream {
 public:
  struct options {
    std::int64_t after = 0;
    std::int64_t limit = INT64_MAX;  // events
    stream_format format = stream_format::ndjson;
  };

  event_stream(context& c, std::shared_ptr<runtime::topic> from, options how, interruption& end);

  asio::awaitable<std::string> next() override;

 private:
  asio::awaitable<std::string> read_on();
  std::string farewell(const char* reason);

  context& context_;
  std::shared_ptr<runtime::topic> topic_;
  options options_;  // `after` and `limit` move with what was sent
  interruption& end_;
  std::shared_ptr<runtime::wakeup> wake_;
  std::shared_ptr<runtime::topic::subscription> subscription_;
  bool ended_ = false;
};

// One event as a line of NDJSON or as an SSE message whose id is the offset.
void append_event(std::string& out, const runtime::event& e, stream_format format);

}  // namespace penstock::api
