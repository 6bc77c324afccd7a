// Live streams: events of flows that send to subscribers, to whoever is connected.
#include <utility>

#include "api/admission.hpp"
#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "api/subscriber_stream.hpp"
#include "api/websocket.hpp"

#include <nlohmann/json.hpp>

namespace penstock::api {

asio::awaitable<response> list_streams(request& r, context& c) {
  const auto wanted = read_page(r, "streams");
  if (!wanted) co_return problem_response(wanted.error());
  json items = json::array();
  std::string next;
  for (const auto& stream : c.subscribers.list()) {
    if (!wanted->after.empty() && stream.name <= wanted->after) continue;
    if (!reaches_stream(r, c, stream.name)) continue;
    if (items.size() == wanted->limit) {
      next = make_cursor("streams", items.back()["name"].get<std::string>());
      break;
    }
    items.push_back({{"name", stream.name}, {"subscribers", stream.subscribers}, {"events", stream.events}});
  }
  co_return response{.body = to_text({{"items", std::move(items)},
                                      {"next_cursor", next.empty() ? json(nullptr) : json(next)}}) +
                             "\n"};
}

asio::awaitable<response> get_stream(request& r, context& c) {
  const bool socket = asks_for_websocket(r);
  if (socket && !from_same_origin(r)) {
    co_return problem_response(error{errc::forbidden, "a page of another site may not open a WebSocket here"});
  }
  if (socket) {
    auto refused = handshake_refusal(r);
    if (refused) co_return std::move(*refused);
  }
  std::string_view seen = r.header_value("last-event-id");
  if (const auto after = r.query_value("after"); after && seen.empty()) seen = *after;  // a browser cannot set the header
  if (socket) seen = {};  // its messages carry no ids
  auto joined = c.subscribers.subscribe(r.parameter("stream"), seen, c.control);
  if (!joined && c.now == phase::stopping) co_return co_await not_ready(r, c);  // it may have been there a moment ago
  if (!joined) co_return problem_response(joined.error());
  if (socket) {
    response reply{.status = 101};
    reply.messages = std::make_unique<subscriber_messages>(std::move(*joined), r.interrupted);
    co_return reply;
  }
  response reply{.content_type = "text/event-stream"};
  reply.headers.emplace_back("Cache-Control", "no-store");
  reply.stream = std::make_unique<subscriber_events>(std::move(*joined), r.interrupted);
  co_return reply;
}

}  // namespace penstock::api
