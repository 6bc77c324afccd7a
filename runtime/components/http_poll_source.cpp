// from: http_poll - asks a URL again and again; what it answers becomes events.
//
// One request at a time, on the blocking pool; between two requests nothing runs but a timer. Answers with an ETag or a
// date are asked for conditionally; what was safe downstream last is remembered (consumer CONSUMER/poll), so an
// unchanged answer does not come again after a restart either. Events have no positions: after a crash the last answer
// may come twice. A failing server (no answer, 408, 429, 5xx) is asked again with growing pauses, or when Retry-After
// says; any other refusal fails the flow, because it needs a person.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "runtime/blocking_pool.hpp"
#include "runtime/components/all.hpp"
#include "runtime/http_client.hpp"
#include "runtime/request_headers.hpp"
#include "runtime/json.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::runtime::components::http_poll_source {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::seconds first_pause{1};  // after a failure; then doubled, up to `every`

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "http_poll",
      .doc = "Asks a URL at an interval; each answer is one event (a JSON object) or many (a JSON array, NDJSON). "
             "Unchanged answers are not sent again where the server has ETags or dates.",
      .settings =
          {.name = "http_poll",
           .type = field_type::object,
           .doc = "",
           .children =
               {{.name = "url",
                 .type = field_type::string,
                 .doc = "http:// or https://; may hold secret references. Redirects are not followed.",
                 .required = true,
                 .example = "\"https://rates.example/v1/latest\""},
                {.name = "every",
                 .type = field_type::duration,
                 .doc = "From the beginning of one request to that of the next; one that takes longer delays "
                        "the next to the following multiple.",
                 .fallback = "30s",
                 .minimum = 0.01},
                {.name = "headers",
                 .type = field_type::map,
                 .doc = "Request headers; values may hold secret references.",
                 .example = "{Authorization: \"Bearer ${env:ALERTS_TOKEN}\"}",
                 .children = {{.name = "value", .type = field_type::string, .doc = "The header's value."}}},
                {.name = "etag",
                 .type = field_type::boolean,
                 .doc = "Ask for changes only (If-None-Match, If-Modified-Since).",
                 .fallback = "true"},
                {.name = "timeout",
                 .type = field_type::duration,
                 .doc = "For one request, from connecting to the end of the answer.",
                 .fallback = "30s",
                 .minimum = 0.001},
                {.name = "max_answer",
                 .type = field_type::size,
                 .doc = "A longer answer fails the flow.",
                 .fallback = "16MiB",
                 .minimum = 1}},
           .shorthand = "url"},
      .examples = {"http_poll: \"https://rates.example/v1/latest\"",
                   "http_poll: {url: \"https://rates.example/v1/latest\", every: 5m, headers: {Authorization: "
                   "\"Bearer ${env:ALERTS_TOKEN}\"}}"},
      .bounded = false,
      .live = true,
  };
}

struct settings {
  std::string written{};  // the URL
  http_request request{};
  std::chrono::nanoseconds every{};
  bool conditional = true;
};

void check(const config::value& v) {
  require_http_url(v.at("url").get<std::string>());
  check_request_headers(v);
}

settings parse(const config::value& v, const component_context& context) {
  settings s;
  s.written = v.at("url").get<std::string>();
  s.request.shown = without_query(s.written);
  s.request.url = context.reveal(s.written);
  require_http_url(s.request.url, s.request.shown);
  s.request.headers = read_header_lines(v, context);
  s.request.timeout = std::chrono::ceil<std::chrono::milliseconds>(
      std::chrono::nanoseconds{v.value("timeout", std::int64_t{30'000'000'000})});
  s.request.most_bytes = v.value("max_answer", std::size_t{16} << 20);
  s.every = std::chrono::nanoseconds{v.value("every", std::int64_t{30'000'000'000})};
  s.conditional = v.value("etag", true);
  return s;
}

// By which a server recognises what we have.
struct validators {
  std::string etag{}, last_modified{};
  bool operator==(const validators&) const = default;
};

class http_poll_source final : public source {
 public:
  http_poll_source(settings s, const component_context& context)
      : settings_(std::move(s)),
        pool_(context.services.blocking),
        flows_(context.services.flows),
        name_(context.consumer),
        label_(context.label()),
        consumer_(context.consumer + "/poll"),
        trouble_(context.trouble),
        woken_(std::make_shared<wakeup>(context.executor)),
        due_(clock::now()) {}

  asio::awaitable<void> open(std::int64_t) override {
    auto make = [] { return std::make_unique<http_client>(); };  // the first one loads libcurl
    client_ = co_await pool_.run(std::move(make));
    if (!settings_.conditional) co_return;
    for (const state_entry& entry : flows_.load(consumer_).steps) {
      if (entry.step != settings_.written) continue;  // of another URL
      if (entry.key == "etag") safe_.etag = entry.value;
      if (entry.key == "last_modified") safe_.last_modified = entry.value;
    }
    saved_ = seen_ = safe_;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t) override {
    if (safe_ != saved_) co_await save();
    while (!stopped_) {
      if (clock::now() < due_) {
        co_await woken_->wait_until(due_);
        continue;
      }
      auto call = [this] { return ask(); };
      std::optional<batch> events = co_await pool_.run(std::move(call));
      if (events && !events->empty() && !stopped_) co_return std::move(events);
    }
    co_return std::nullopt;
  }

  void acknowledge(std::int64_t) override { safe_ = seen_; }

  void stop_input() override {
    stopped_ = true;
    if (client_) client_->cancel();
    woken_->notify();
  }

 private:
  // One request, and when the next is due. Blocks.
  std::optional<batch> ask() {
    const clock::time_point began = due_;
    http_request request = settings_.request;
    if (settings_.conditional && !seen_.etag.empty()) request.headers.push_back("If-None-Match: " + seen_.etag);
    if (settings_.conditional && !seen_.last_modified.empty())
      request.headers.push_back("If-Modified-Since: " + seen_.last_modified);
    http_answer answer;
    try {
      answer = client_->send(request);
    } catch (const http_failure& none) {
      back_off(none.what(), {});
      return std::nullopt;
    }
    if (answer.status != 304 && !answer.taken()) {
      const std::string said = request.shown + ": " + answer.in_words();
      if (!answer.temporary() || answer.status < 400) throw std::runtime_error(said);
      back_off(said, retry_after(answer.retry_after, wall_now()).value_or(std::chrono::nanoseconds{}));
      return std::nullopt;
    }
    failures_ = 0;
    trouble_->clear();
    due_ = began + settings_.every * ((clock::now() - began) / settings_.every + 1);
    if (answer.status == 304 || answer.body.find_first_not_of(" \t\r\n") == std::string::npos) return std::nullopt;
    batch events = events_of(answer);
    seen_ = {std::move(answer.etag), std::move(answer.last_modified)};
    return events;
  }

  // Takes the body.
  batch events_of(http_answer& answer) const {
    const std::string& shown = settings_.request.shown;
    if (answer.cut) {
      throw std::runtime_error(shown + ": the answer is longer than max_answer, " +
                               format_size(static_cast<std::int64_t>(settings_.request.most_bytes)));
    }
    const auto body = std::make_shared<const buffer>(std::move(answer.body));
    const event_defaults defaults{.source = "/" + name_, .now = wall_now()};
    result<batch> events = read_events(body, intake_format::json, defaults);
    if (events) return std::move(*events);
    result<batch> lines = read_events(body, intake_format::ndjson, defaults);
    if (!lines) throw std::runtime_error(shown + ": the answer is neither JSON nor NDJSON: " + events.error().detail);
    return std::move(*lines);
  }

  void back_off(const std::string& why, std::chrono::nanoseconds asked_for) {
    if (stopped_) return;
    const std::string trouble = why + "; asks again until it is better";
    if (failures_ == 0) spdlog::warn("{}: {}", label_, trouble);
    trouble_->set(trouble);
    const auto pause = std::min<std::chrono::nanoseconds>(settings_.every, first_pause * (1LL << std::min(failures_, 20)));
    ++failures_;
    due_ = clock::now() + std::max(pause, asked_for);
  }

  asio::awaitable<void> save() {
    commit next = to_save();
    saved_ = safe_;
    co_await flows_.save(std::move(next));
  }

  commit to_save() const {
    commit next;
    next.consumer = consumer_;
    next.steps.push_back({settings_.written, "etag", safe_.etag});
    next.steps.push_back({settings_.written, "last_modified", safe_.last_modified});
    return next;
  }

  const settings settings_;
  blocking_pool& pool_;
  flow_store& flows_;
  const std::string name_, label_, consumer_;  // in events (after a slash), in the log, in the store
  const std::shared_ptr<trouble_note> trouble_;
  const std::shared_ptr<wakeup> woken_;
  std::unique_ptr<http_client> client_;
  clock::time_point due_;          // of the next request
  int failures_ = 0;               // since the last answer
  validators seen_{}, safe_{}, saved_{};  // handed out, acknowledged, on disk
  std::atomic<bool> stopped_{false};
};

}  // namespace

void add(registry& r) {
  r.add(checked_by(spec(), check), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<http_poll_source>(parse(v, context), context);
        }));
}

}  // namespace penstock::runtime::components::http_poll_source
