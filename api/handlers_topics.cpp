// Topics: events in, events out, who reads them.
#include <algorithm>
#include <charconv>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/admission.hpp"
#include "api/event_body.hpp"
#include "api/event_stream.hpp"
#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/media.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "config/in_quotes.hpp"
#include "runtime/blocking_pool.hpp"

namespace penstock::api {

namespace {

// Larger bodies are read elsewhere, so that the control thread has no pause that a live request would feel.
constexpr std::size_t read_elsewhere = 128 << 10;
constexpr std::string_view events_path = "/v1/topics/{topic}/events";

error no_topic(const request& r, context& c, const std::string& name) {
  auto known = c.topics.names();
  std::erase_if(known, [&](const std::string& one) { return !reaches_topic(r, c, one); });
  return {errc::not_found, "no topic " + config::in_quotes(name) + "; " + config::suggestion(name, known)};
}

// Who reads the topic, of those that the caller may know of.
std::vector<scheduler::consumer_view> visible_consumers(const request& r, context& c, const std::string& topic) {
  auto all = c.supervisor.consumers(topic);
  std::erase_if(all, [&r](const auto& one) { return !reaches(r, one.consumer.substr(0, one.consumer.find('/'))); });
  return all;
}

void append_number(std::string& out, std::int64_t value) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

void append_offset(std::string& out, std::int64_t offset) {
  if (offset > 0) {
    append_number(out, offset);
  } else {
    out += "null";
  }
}

// Text without a document in between: this is answered once per event.
std::string accepted_text(const runtime::append_result& done) {
  std::string out;
  out.reserve(160);
  out += "{\"accepted\":";
  append_number(out, done.accepted);
  out += ",\"duplicates\":";
  append_number(out, done.duplicates);
  out += ",\"first_offset\":";
  append_offset(out, done.first_offset);
  out += ",\"last_offset\":";
  append_offset(out, done.last_offset);
  return out += "}\n";
}

using body_text = std::shared_ptr<const runtime::buffer>;

asio::awaitable<result<runtime::batch>> read_large_body(request& r, context& c, body_text body,
                                                        event_format format,
                                                        const runtime::event_defaults& defaults) {
  auto work = [&r, body, format, &defaults] {
    return std::make_shared<result<runtime::batch>>(read_event_body(r, body, format, defaults));
  };
  const auto events = co_await c.blocking.run(std::move(work));
  co_return std::move(*events);
}

// Asks the file, so on the blocking pool.
asio::awaitable<runtime::topic_status> status_of(context& c, std::shared_ptr<runtime::topic> topic) {
  auto work = [topic] { return topic->status(); };
  co_return co_await c.blocking.run(std::move(work));
}

struct event_page {
  std::vector<std::string> items;
  std::int64_t last = 0;
  bool more = false;
};

event_page read_page_of(runtime::topic& from, std::int64_t after, std::size_t limit) {
  const runtime::batch events = from.read(after, limit);
  event_page out;
  for (const runtime::event& e : events.events) {
    runtime::append_cloudevent(out.items.emplace_back(), e);
    out.last = e.position;
  }
  out.more = !events.empty() && out.last < from.last_offset();
  return out;
}

asio::awaitable<response> one_page(context& c, std::shared_ptr<runtime::topic> topic, std::int64_t after,
                                   std::size_t limit) {
  auto work = [topic, after, limit] { return read_page_of(*topic, after, limit); };
  const event_page page = co_await c.blocking.run(std::move(work));
  const std::string next = page.more ? make_cursor("events", std::to_string(page.last)) : "";
  co_return response{.body = list_text(page.items, next)};
}

// Where a follower begins: where it says, where it was cut off (SSE), or with what comes next.
result<std::int64_t> first_of_stream(const request& r, runtime::topic& topic,
                                     std::optional<std::int64_t> after) {
  if (after) return *after;
  const std::string_view seen = r.header_value("last-event-id");
  if (seen.empty()) return topic.last_offset();
  std::int64_t offset = 0;
  const auto [end, failure] = std::from_chars(seen.data(), seen.data() + seen.size(), offset);
  if (failure != std::errc{} || end != seen.data() + seen.size() || offset < 0) {
    return error{errc::malformed, "Last-Event-ID is not an offset of this topic"};
  }
  return offset;
}

response follow(request& r, context& c, std::shared_ptr<runtime::topic> topic, std::int64_t after,
                std::int64_t limit) {
  const std::string_view offers[] = {ndjson_type, sse_type};
  const auto chosen = best_offer(r.header_list("accept"), offers);
  if (!chosen) return not_acceptable(r, offers);
  const bool sse = *chosen == sse_type;
  response reply{.content_type = *chosen};
  reply.headers.emplace_back("Cache-Control", "no-store");
  const event_stream::options how{.after = after,
                                  .limit = limit,
                                  .format = sse ? stream_format::server_sent_events : stream_format::ndjson};
  reply.stream = std::make_unique<event_stream>(c, std::move(topic), how, r.interrupted);
  return reply;
}

}  // namespace

asio::awaitable<response> list_topics(request& r, context& c) {
  const auto wanted = read_page(r, "topics");
  if (!wanted) co_return problem_response(wanted.error());
  json items = json::array();
  std::string next;
  const auto all = c.topics.all();
  for (const auto& topic : all) {
    if (!wanted->after.empty() && topic->name() <= wanted->after) continue;
    if (!reaches_topic(r, c, topic->name())) continue;
    if (items.size() == wanted->limit) {
      next = make_cursor("topics", items.back()["name"].get<std::string>());
      break;
    }
    const runtime::topic_status status = co_await status_of(c, topic);
    items.push_back(to_json(status, visible_consumers(r, c, topic->name())));
  }
  co_return response{.body = to_text({{"items", std::move(items)},
                                      {"next_cursor", next.empty() ? json(nullptr) : json(next)}}) +
                             "\n"};
}

asio::awaitable<response> get_topic(request& r, context& c) {
  const auto topic = c.topics.find(r.parameter("topic"));
  if (!topic) co_return problem_response(no_topic(r, c, r.parameter("topic")));
  const runtime::topic_status status = co_await status_of(c, topic);
  co_return response{.body = to_text(to_json(status, visible_consumers(r, c, topic->name()))) + "\n"};
}

asio::awaitable<response> post_events(request& r, context& c) {
  const auto topic = c.topics.find(r.parameter("topic"));
  if (!topic) co_return problem_response(no_topic(r, c, r.parameter("topic")));
  const runtime::waiting_place place = topic->take_place(c.most_waiting);
  if (!place) {
    co_return problem_response(error{errc::overloaded, "topic " + config::in_quotes(topic->name()) + " has " + std::to_string(c.most_waiting) +
                                                           " requests waiting to be stored (max_waiting_requests)", {}, 1});
  }
  const timestamp now = wall_now();
  const event_format format = format_of(r);
  const runtime::event_defaults defaults{.source = "/topics/" + topic->name(), .now = now};
  auto body = std::make_shared<const runtime::buffer>(std::move(r.body));
  const bool large = body->text().size() > read_elsewhere;
  auto events = large ? result<runtime::batch>() : read_event_body(r, body, format, defaults);
  if (large) events = co_await read_large_body(r, c, std::move(body), format, defaults);
  if (!events) co_return problem_response(events.error());
  auto batch = std::make_shared<const runtime::batch>(std::move(*events));
  const runtime::append_options how({}, now);
  const auto done = co_await topic->append(std::move(batch), how);
  if (!done) co_return problem_response(done.error());
  co_return response{.status = 202, .body = accepted_text(*done)};
}

asio::awaitable<response> get_events(request& r, context& c) {
  const auto topic = c.topics.find(r.parameter("topic"));
  if (!topic) co_return problem_response(no_topic(r, c, r.parameter("topic")));
  const auto following = read_flag(r, "follow");
  if (!following) co_return problem_response(following.error());
  const auto after = read_integer(r, rules_of("after", events_path));
  if (!after) co_return problem_response(after.error());
  if (*following) {
    const auto limit = read_integer(r, rules_of("limit", events_path));
    if (!limit) co_return problem_response(limit.error());
    const auto first = first_of_stream(r, *topic, *after);
    if (!first) co_return problem_response(first.error());
    co_return follow(r, c, topic, *first, limit->value_or(INT64_MAX));
  }
  const std::string_view offers[] = {json_type};
  if (!best_offer(r.header_list("accept"), offers)) co_return not_acceptable(r, offers);
  const auto wanted = read_page(r, "events");
  if (!wanted) co_return problem_response(wanted.error());
  std::int64_t start = after->value_or(0);
  if (!wanted->after.empty()) {
    const std::string& text = wanted->after;
    if (std::from_chars(text.data(), text.data() + text.size(), start).ptr != text.data() + text.size()) {
      co_return problem_response(error{errc::malformed, "query parameter cursor is not of this list"});
    }
  }
  co_return co_await one_page(c, topic, start, wanted->limit);
}

}  // namespace penstock::api
