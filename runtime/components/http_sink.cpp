// to: http - sends events to a URL and waits for the answer.
//
// 2xx: taken. 408, 429, 5xx and network failures: tried again, with growing pauses or when Retry-After says, for
// `retry_for` in all; then the flow fails and is restarted with backoff, so nothing is lost. Any other 4xx: the events of
// that request become dead letters. At-least-once: when a later request of a batch fails and the flow is restarted, the
// events before it are sent again; when `delivery` tries again or gives up, only those count that are left. Each request of
// `batch: single` carries `Idempotency-Key: EVENT ID`, by which a receiver can tell. Pauses hold no thread. Redirects are
// not followed, and proxy variables of the environment are ignored.
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>

#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/components/payload_check.hpp"
#include "runtime/http_client.hpp"
#include "runtime/request_headers.hpp"
#include "runtime/text.hpp"

namespace penstock::runtime::components::http_sink {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds first_pause{200};  // before the second attempt; then doubled
constexpr std::chrono::seconds longest_pause{10};      // unless Retry-After asks for more

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::sink,
      .name = "http",
      .doc =
          "Sends events to a URL. Answers 408, 429 and 5xx are tried again, other 4xx make dead letters. At "
          "least once: a receiver can tell repetitions by the Idempotency-Key header (batch: single).",
      .settings =
          {.name = "http",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "url",
                 .type = field_type::string,
                 .doc = "http:// or https://; may hold secret references. Redirects are not followed, proxy "
                        "variables of the environment are ignored.",
                 .required = true,
                 .example = "\"https://alerts.example/hook\""},
                {.name = "method",
                 .type = field_type::choice,
                 .doc = "The request's method.",
                 .fallback = "POST",
                 .choices = {"POST", "PUT", "PATCH"}},
                {.name = "headers",
                 .type = field_type::map,
                 .doc = "Further request headers; values may hold secret references.",
                 .example = "{Authorization: \"Bearer ${env:ALERTS_TOKEN}\"}",
                 .children = {{.name = "value", .type = field_type::string, .doc = "The header's value."}}},
                {.name = "batch",
                 .type = field_type::object,
                 .doc = "How events become requests; without it each is one.",
                 .example = "{events: 100}",
                 .children = {{.name = "format",
                               .type = field_type::choice,
                               .doc = "single: a request an event. array: one JSON array. ndjson: one a line.",
                               .fallback = "array",
                               .choices = {"single", "array", "ndjson"}},
                              {.name = "events",
                               .type = field_type::integer,
                               .doc = "In one request at most; nothing waits for so many to come.",
                               .fallback = "1000",
                               .minimum = 1}},
                 .shorthand = "format"},
                {.name = "timeout",
                 .type = field_type::duration,
                 .doc = "For one request, from connecting to the end of the answer.",
                 .fallback = "30s",
                 .minimum = 0.001},
                {.name = "retry_for",
                 .type = field_type::duration,
                 .doc = "How long failed requests are tried again before the flow fails (and begins anew, with "
                        "backoff); also the most that a Retry-After is honoured.",
                 .fallback = "10s"}},
           .shorthand = "url"},
      .examples =
          {"http: \"https://alerts.example/hook\"",
           "http: {url: \"https://alerts.example/hook\", method: PUT, timeout: 5s}",
           "http: {url: \"http://localhost:9000/bulk\", batch: ndjson, headers: {Authorization: \"Bearer "
           "${env:ALERTS_TOKEN}\"}}",
           "http: {url: \"http://localhost:9000/bulk\", batch: {events: 100}, retry_for: 5m}"},
  };
}

enum class batching { single, array, ndjson };

struct settings {
  http_request request{};             // all but its body, with secrets
  std::vector<std::string> headers{};  // of every request
  batching mode = batching::single;
  std::size_t most = 1;  // events in a request
  std::chrono::nanoseconds retry_for{};
};

void check(const config::value& v) {
  require_http_url(v.at("url").get<std::string>());
  check_request_headers(v);
}

settings parse(const config::value& v, const component_context& context) {
  settings s;
  const auto url = v.at("url").get<std::string>();
  s.request.shown = without_query(url);
  s.request.url = context.reveal(url);
  require_http_url(s.request.url, s.request.shown);
  for (const std::string_view method : {"POST", "PUT", "PATCH"}) {
    if (method == v.value("method", "POST")) s.request.method = method;
  }
  s.headers = read_header_lines(v, context);
  if (const auto batch = v.find("batch"); batch != v.end()) {
    const std::string format = batch->value("format", "array");
    s.mode = format == "array" ? batching::array : format == "ndjson" ? batching::ndjson : batching::single;
    s.most = s.mode == batching::single ? 1 : batch->value("events", std::size_t{1000});
  }
  const std::chrono::nanoseconds timeout{v.value("timeout", std::int64_t{30'000'000'000})};
  s.request.timeout =
      std::max(std::chrono::milliseconds{1}, std::chrono::ceil<std::chrono::milliseconds>(timeout));
  s.request.most_bytes = 1024;  // for the reason of a refusal
  s.retry_for = std::chrono::nanoseconds{v.value("retry_for", std::int64_t{10'000'000'000})};
  return s;
}

// An event's attribute in a header: nothing in it may end the line (RFC 9110, section 5.5).
std::string header_value(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = c > ' ' && c < 0x7f && c != '%';
    constexpr std::string_view digits = "0123456789ABCDEF";
    const auto byte = static_cast<unsigned char>(c);
    out += plain ? std::string(1, c) : std::string{'%', digits[byte >> 4], digits[byte & 15]};
  }
  return out;
}

// The payload's own media type as far as it is one.
std::string media_type(const event& e) {
  const auto odd = [](unsigned char c) { return c < ' ' || c >= 0x7f; };
  if (e.datacontenttype.empty()) return "application/json";
  if (std::any_of(e.datacontenttype.begin(), e.datacontenttype.end(), odd)) return "application/octet-stream";
  return std::string(e.datacontenttype);
}

// What came of one attempt.
struct attempt {
  std::optional<http_answer> answer{};  // nothing: none came
  std::string failure{};                // why, or what a failing answer said
};

// How the sending of one request ended, after all attempts. refused: the receiver will never take it.
struct delivery_end {
  enum class kind { taken, refused, given_up };
  delivery_end(kind k, std::string why) : is(k), reason(std::move(why)) {}
  kind is;
  std::string reason;
};

class http_sink final : public sink {
 public:
  http_sink(settings s, const component_context& context)
      : settings_(std::move(s)), pool_(context.services.blocking), executor_(context.executor), trouble_(context.trouble) {}

  asio::awaitable<void> open(const std::string&) override { co_return; }

  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    write_result written;
    const std::vector<refused_event> malformed = malformed_events(*events);
    auto bad = malformed.begin();
    const clock::time_point deadline = clock::now() + settings_.retry_for;
    std::vector<std::size_t> together;  // the events of the next request
    for (std::size_t i = 0; i < events->size(); ++i) {
      if (bad != malformed.end() && bad->index == i) {
        written.refused.push_back(*bad++);
      } else {
        together.push_back(i);
      }
      const bool full = together.size() >= settings_.most || i + 1 == events->size();
      if (!full || together.empty()) continue;
      const delivery_end end = co_await send(*events, together, deadline);
      if (end.is == delivery_end::kind::given_up) {
        std::vector<std::size_t> left = std::move(together);
        for (std::size_t later = i + 1; later < events->size(); ++later) left.push_back(later);
        throw partly_written(end.reason, std::move(written), std::move(left));
      }
      if (end.is == delivery_end::kind::refused) {
        for (const std::size_t index : together) written.refused.push_back({index, end.reason});
      }
      together.clear();
    }
    const auto earlier = [](const refused_event& a, const refused_event& b) { return a.index < b.index; };
    std::sort(written.refused.begin(), written.refused.end(), earlier);
    co_return written;
  }

  asio::awaitable<void> close() override {
    client_.reset();
    co_return;
  }

 private:
  asio::awaitable<delivery_end> send(const batch& events, const std::vector<std::size_t>& which,
                                    clock::time_point deadline) {
    http_request request = settings_.request;
    const std::string body = body_of(events, which, request);
    request.body = body;
    const delivery_end taken(delivery_end::kind::taken, "");
    std::chrono::nanoseconds pause = first_pause;
    while (true) {
      auto call = [this, &request] { return try_once(request); };
      const attempt tried = co_await pool_.run(std::move(call));
      if (tried.answer && tried.answer->taken()) co_return taken;
      const std::string reason = request.shown + ": " + tried.failure;
      if (tried.answer && !tried.answer->temporary()) co_return delivery_end(delivery_end::kind::refused, reason);
      const clock::time_point next = clock::now() + std::max(pause, asked_for(tried));
      const bool redirected = tried.answer && tried.answer->status < 400;  // that will not change
      if (redirected || next > deadline) co_return delivery_end(delivery_end::kind::given_up, reason);
      trouble_->set(reason + "; sends again until it is taken");
      asio::steady_timer timer(executor_, next);
      co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
      pause = std::min<std::chrono::nanoseconds>(2 * pause, longest_pause);
    }
  }

  std::string body_of(const batch& events, const std::vector<std::size_t>& which, http_request& request) const {
    request.headers.clear();
    std::string body;
    if (settings_.mode == batching::single) {
      const event& e = events.events[which.front()];
      request.headers = {"Content-Type: " + media_type(e), "Idempotency-Key: " + header_value(e.id)};
      body = e.data;
    } else {
      const bool array = settings_.mode == batching::array;
      request.headers = {std::string("Content-Type: ") + (array ? "application/json" : "application/x-ndjson")};
      if (array) body += '[';
      for (const std::size_t index : which) {
        append_ndjson(body, events.events[index]);
        if (array) body.back() = index == which.back() ? ']' : ',';  // in the place of the line end
      }
    }
    // What the settings say counts: two lines of one name are refused by some, and which one counts is anybody's guess.
    const auto name_of = [](const std::string& line) { return lower_case(line.substr(0, line.find_first_of(":;"))); };
    std::erase_if(request.headers, [&](const std::string& own) {
      return std::any_of(settings_.headers.begin(), settings_.headers.end(),
                         [&](const std::string& set) { return name_of(set) == name_of(own); });
    });
    request.headers.insert(request.headers.end(), settings_.headers.begin(), settings_.headers.end());
    return body;
  }

  // Blocks.
  attempt try_once(const http_request& request) {
    attempt tried;
    try {
      if (!client_) client_ = std::make_unique<http_client>();
      tried.answer = client_->send(request);
      tried.failure = tried.answer->in_words();
    } catch (const http_failure& none) {
      tried.failure = none.reason();
    }
    return tried;
  }

  static std::chrono::nanoseconds asked_for(const attempt& tried) {
    if (!tried.answer) return {};
    return retry_after(tried.answer->retry_after, wall_now()).value_or(std::chrono::nanoseconds{});
  }

  const settings settings_;
  blocking_pool& pool_;
  const asio::any_io_executor executor_;
  const std::shared_ptr<trouble_note> trouble_;
  std::unique_ptr<http_client> client_;  // made at the first write: an idle sink costs nothing
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), check), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<http_sink>(parse(v, context), context);
        }));
}

}  // namespace penstock::runtime::components::http_sink
