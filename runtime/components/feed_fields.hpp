// The settings that sources of live feeds (websocket, sse) share.
#pragma once

#include <chrono>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/component.hpp"
#include "runtime/http_client.hpp"
#include "runtime/live_feed.hpp"
#include "runtime/request_headers.hpp"
#include "runtime/web_url.hpp"

namespace penstock::runtime::components {

inline config::field feed_headers_field() {
  return {.name = "headers",
          .type = config::field_type::map,
          .doc = "Request headers; values may hold secret references.",
          .example = "{Authorization: \"Bearer ${env:FEED_TOKEN}\"}",
          .children = {{.name = "value", .type = config::field_type::string, .doc = "The header's value."}}};
}

inline config::field feed_format_field() {
  return {.name = "format",
          .type = config::field_type::choice,
          .doc = "What a message is: JSON, or plain text. Each is one event.",
          .fallback = "json",
          .choices = {"json", "text"}};
}

inline config::field feed_reconnect_field() {
  return {.name = "reconnect",
          .type = config::field_type::duration_range,
          .doc = "The pause before connecting again: the first, doubled each time up to the second, give or take a quarter.",
          .fallback = "1s..30s",
          .minimum = 0.001};
}

inline config::field feed_size_field() {
  return {.name = "max_message",
          .type = config::field_type::size,
          .doc = "A longer message becomes a dead letter without its data.",
          .fallback = "1MiB",
          .minimum = 1};
}

// `scheme`: "ws" or "http". Throws std::runtime_error when the URL is none, or has a user, whom nobody would tell the server.
inline web_url parse_feed_url(const std::string& url, std::string_view scheme, const std::string& shown) {
  web_url parsed = parse_web_url(url, scheme, shown);
  if (parsed.user) throw std::runtime_error("url '" + shown + "': must not hold a user; give an Authorization header");
  return parsed;
}

// What can be said of URL and headers as they are written: what secret references stand for is not known.
inline void check_feed(const config::value& v, std::string_view scheme) {
  const std::string written = v.at("url").get<std::string>();
  if (written.find("${") == written.npos) {
    parse_feed_url(written, scheme, written);
  } else {
    check_written_url(written, scheme);
  }
  check_request_headers(v);
}

// As parse_feed_url().
inline feed_settings read_feed_settings(const config::value& v, const component_context& context, const char* scheme,
                                        std::chrono::nanoseconds idle) {
  feed_settings s;
  const std::string written = v.at("url").get<std::string>();
  s.name = context.consumer;
  s.label = context.label();
  s.trouble = context.trouble;
  s.shown = without_query(written);
  s.url = parse_feed_url(context.reveal(written), scheme, s.shown);
  s.first_pause = std::chrono::seconds{1};
  s.longest_pause = std::chrono::seconds{30};
  if (const auto range = v.find("reconnect"); range != v.end()) {
    s.first_pause = std::chrono::nanoseconds{range->at(0).get<std::int64_t>()};
    s.longest_pause = std::chrono::nanoseconds{range->at(1).get<std::int64_t>()};
  }
  s.idle = std::chrono::nanoseconds{v.value("idle", std::int64_t{idle.count()})};
  s.most_bytes = v.value("max_message", std::size_t{1} << 20);
  return s;
}

}  // namespace penstock::runtime::components
