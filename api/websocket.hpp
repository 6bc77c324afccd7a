// A connection that becomes a WebSocket: answers the handshake, sends what a message_stream gives, and closes.
//
// Control thread; used by a session, whose connection it is. What the client sends is read and dropped, for the answers to
// pings and the closing are among it. A client is sent a ping after 15 s of silence and is cut off after 30 s.
#pragma once

#include <memory>
#include <optional>

#include <boost/asio/awaitable.hpp>

#include "api/connection.hpp"
#include "api/http.hpp"

namespace penstock::api {

struct websocket_line;

// What is wrong with a request that asks for a WebSocket (RFC 6455, section 4.2.1); nothing: it may have one. Pure.
std::optional<response> handshake_refusal(const request& r);

// Answers the handshake. Null: the client has gone. `below` and `r` outlive what is returned.
asio::awaitable<std::shared_ptr<websocket_line>> accept_websocket(connection& below, request& r);

// Returns when both sides are done; throws what `messages` threw, then too. Raises the request's interruption when the client
// leaves.
asio::awaitable<void> serve_websocket(std::shared_ptr<websocket_line> line, message_stream& messages);

}  // namespace penstock::api
