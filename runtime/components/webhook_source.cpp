// from: webhook - events posted to /hooks/PATH; the sender gets its answer when they are safe downstream.
//
// Two threads meet here. The receiver runs on the control thread: it checks the signature on the raw bytes,
// reads the events and waits in the delivery_queue; the source runs on its flow's strand and takes all that
// waits as one batch, so many senders share one commit. Every delivery that enters the queue is answered:
// accepted, or `unavailable` when the flow failed, stopped or was destroyed first. Events have no positions:
// after `unavailable` the sender tries again.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <deque>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <nlohmann/json.hpp>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "runtime/components/all.hpp"
#include "runtime/json.hpp"
#include "runtime/wakeup.hpp"
#include "runtime/webhooks.hpp"

namespace penstock::runtime::components {

namespace {

config::field signature_field() {
  using config::field_type;
  return {.name = "signature",
          .type = field_type::object,
          .doc = "What each request must be signed with. Without it anyone who reaches the daemon may post.",
          .children = {{.name = "scheme",
                        .type = field_type::choice,
                        .doc = "HMAC (RFC 2104) over the raw body.",
                        .fallback = "hmac-sha256",
                        .choices = {"hmac-sha256", "hmac-sha1", "hmac-sha512"}},
                       {.name = "header",
                        .type = field_type::string,
                        .doc = "The request header that carries the signature.",
                        .required = true,
                        .example = "X-Webhook-Signature"},
                       {.name = "secret",
                        .type = field_type::string,
                        .doc = "The key that sender and receiver share.",
                        .required = true,
                        .example = "\"${env:WEBHOOK_SECRET}\"",
                        .secret = true},
                       {.name = "encoding",
                        .type = field_type::choice,
                        .doc = "How the signature is written.",
                        .fallback = "hex",
                        .choices = {"hex", "base64"}},
                       {.name = "prefix",
                        .type = field_type::string,
                        .doc = "What stands before the signature in the header; GitHub sends sha256=",
                        .fallback = "\"\"",
                        .example = "sha256="}}};
}

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::source,
      .name = "webhook",
      .doc =
          "Events posted to /hooks/PATH: a JSON value, an array, NDJSON, or CloudEvents (binary, structured, "
          "batch). "
          "The answer comes when they are safe downstream. One flow receives at a path.",
      .settings = {.name = "webhook",
                   .type = field_type::object,
                   .doc = "",
                   .children = {{.name = "path",
                                 .type = field_type::string,
                                 .doc = "Where below /hooks; begins with a slash.",
                                 .required = true,
                                 .example = "/orders"},
                                signature_field(),
                                {.name = "queue",
                                 .type = field_type::integer,
                                 .doc = "Events that may wait; beyond it senders get 429 with Retry-After.",
                                 .fallback = "10000",
                                 .minimum = 1}},
                   .shorthand = "path"},
      .examples = {"webhook: /orders",
                   "webhook: {path: /orders, signature: {header: X-Webhook-Signature, secret: "
                   "\"${env:WEBHOOK_SECRET}\"}}",
                   "webhook: {path: /github, signature: {header: X-Hub-Signature-256, secret: "
                   "\"${secret:github}\", prefix: sha256=}}"},
      .bounded = false,
      .live = true,
  };
}

struct signature_rule {
  const EVP_MD* digest;
  std::string header;  // lower-case
  std::string secret;  // revealed
  bool base64;
  std::string prefix;
};

struct settings {
  std::string path;
  std::optional<signature_rule> signature{};
  std::size_t queue;
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

signature_rule parse_signature(const config::value& v, const component_context& context) {
  const std::string scheme = v.value("scheme", "hmac-sha256");
  signature_rule rule{scheme == "hmac-sha1"     ? EVP_sha1()
                      : scheme == "hmac-sha512" ? EVP_sha512()
                                                : EVP_sha256(),
                      lower(v.at("header").get<std::string>()),
                      context.reveal(v.at("secret").get<std::string>()),
                      v.value("encoding", "hex") == "base64", v.value("prefix", "")};
  // An empty key is one that everybody knows.
  if (rule.secret.empty()) throw std::runtime_error("the signature's secret is empty");
  return rule;
}

settings parse(const config::value& v, const component_context& context) {
  settings s{.path = v.at("path").get<std::string>(), .queue = v.value("queue", std::size_t{10'000})};
  if (!s.path.starts_with('/')) throw std::runtime_error("path '" + s.path + "' must begin with a slash");
  if (const auto signature = v.find("signature"); signature != v.end() && !signature->is_null()) {
    s.signature = parse_signature(*signature, context);
  }
  return s;
}

// ---------------------------------------------------------------------------------------------------------------
// Signature and body, on the control thread

std::string_view header_of(const delivery& d, const std::string& name) {
  const auto found = d.headers.find(name);
  return found == d.headers.end() ? std::string_view() : std::string_view(found->second);
}

std::string encode(const unsigned char* bytes, unsigned size, bool base64) {
  if (base64) {
    std::string out(4 * ((size + 2) / 3) + 1, '\0');  // EVP_EncodeBlock writes a zero at the end
    out.resize(static_cast<std::size_t>(
        EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes, static_cast<int>(size))));
    return out;
  }
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += digits[bytes[i] >> 4];
    out += digits[bytes[i] & 15];
  }
  return out;
}

std::optional<error> check_signature(const signature_rule& rule, const delivery& d) {
  std::string_view given = header_of(d, rule.header);
  if (given.empty()) return error{errc::unauthorized, "the header " + rule.header + " is missing"};
  const error wrong{errc::unauthorized, "the signature in " + rule.header + " is wrong"};
  if (!given.starts_with(rule.prefix)) return wrong;
  given.remove_prefix(rule.prefix.size());

  const std::string_view body = d.body->text();
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!HMAC(rule.digest, rule.secret.data(), static_cast<int>(rule.secret.size()),
            reinterpret_cast<const unsigned char*>(body.data()), body.size(), mac, &size)) {
    throw std::runtime_error("HMAC failed");
  }
  const std::string expected = encode(mac, size, rule.base64);
  const std::string compared = rule.base64 ? std::string(given) : lower(given);
  if (compared.size() != expected.size()) return wrong;
  if (CRYPTO_memcmp(compared.data(), expected.data(), expected.size()) != 0) return wrong;
  return std::nullopt;
}

// CloudEvents HTTP binding 1.0.2, section 3.1.3.2: header values are percent-encoded.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr == text.data() + i + 3) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// One event whose attributes are headers and whose data is the body (CloudEvents HTTP binding 1.0.2,
// section 3.1).
result<batch> read_binary_event(const delivery& d, timestamp now) {
  batch events;
  events.adopt(d.body);
  const auto attribute = [&](const char* name) { return events.keep(percent_decoded(header_of(d, name))); };
  event e;
  e.id = attribute("ce-id");
  e.source = attribute("ce-source");
  e.type = attribute("ce-type");
  e.subject = attribute("ce-subject");
  e.key = attribute("ce-partitionkey");
  e.datacontenttype = events.keep(header_of(d, "content-type"));
  e.data = d.body->text();
  e.time = now;
  if (header_of(d, "ce-specversion") != "1.0") return error{errc::malformed, "ce-specversion must be 1.0"};
  if (e.id.empty() || e.source.empty() || e.type.empty()) {
    return error{errc::malformed, "ce-id, ce-source and ce-type are required"};
  }
  if (const std::string_view time = attribute("ce-time"); !time.empty()) {
    const std::optional<timestamp> parsed = parse_time(time);
    if (!parsed) return error{errc::malformed, "ce-time is not an RFC 3339 time"};
    e.time = *parsed;
  }
  if (e.is_json() && !e.data.empty()) {
    if (const std::string wrong = check_json(e.data); !wrong.empty()) return error{errc::malformed, wrong};
  }
  events.events.push_back(e);
  return events;
}

// Without a content type that says otherwise a body is JSON: many senders, curl -d among them, name none or a
// wrong one.
intake_format format_of(const std::string& type) {
  if (type.starts_with("application/cloudevents-batch")) return intake_format::cloudevents_batch;
  if (type.starts_with("application/cloudevents")) return intake_format::cloudevent;
  if (type.find("ndjson") != std::string::npos || type.find("jsonl") != std::string::npos)
    return intake_format::ndjson;
  return intake_format::json;
}

result<batch> read_delivery(const settings& s, const delivery& d) {
  const timestamp now = wall_now();
  const std::string type = lower(header_of(d, "content-type"));
  const bool structured = type.starts_with("application/cloudevents");
  if (!structured && d.headers.contains("ce-specversion")) return read_binary_event(d, now);
  const event_defaults defaults{.source = "/hooks" + s.path, .now = now};
  return read_events(d.body, format_of(type), defaults);
}

// ---------------------------------------------------------------------------------------------------------------
// Between the threads

// Deliveries on their way: waiting to be taken, then in flight until their batch is settled. Any thread;
// shared by the source and by receivers that may outlive it.
class delivery_queue {
 public:
  using completion = std::function<void(result<delivery_answer>)>;

  delivery_queue(std::size_t limit, std::shared_ptr<wakeup> arrived)
      : limit_(limit), arrived_(std::move(arrived)) {}

  // `done` is called exactly once, on any thread; it must only post.
  void submit(batch events, completion done) {
    if (const std::optional<error> refused = enter(events, done)) return done(*refused);
    arrived_->notify();
  }

  // All that waits, up to about `most` events, as one batch; nothing when nothing waits.
  std::optional<batch> take(std::size_t most) {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) return std::nullopt;
    batch events;
    do {
      waiting& next = waiting_.front();
      in_flight_.push_back({next.events.size(), std::move(next.done)});
      events.append(std::move(next.events));
      waiting_.pop_front();
    } while (!waiting_.empty() && events.size() + waiting_.front().events.size() <= most);
    return events;
  }

  // Answers what was taken: safe, or the reason why not.
  void settle(const std::optional<error>& failure) {
    std::vector<taken> settled;
    {
      const std::lock_guard lock(mutex_);
      settled.swap(in_flight_);
      for (const taken& one : settled) held_ -= one.events;
    }
    for (const taken& one : settled) {
      if (failure) {
        one.done(*failure);
      } else {
        one.done(delivery_answer{static_cast<std::int64_t>(one.events)});
      }
    }
  }

  // What waits may still be taken; nothing more comes in.
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }

  // Stops and answers everything with `reason`.
  void abandon(const error& reason) {
    std::deque<waiting> left;
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      left.swap(waiting_);
    }
    for (const waiting& one : left) one.done(reason);
    settle(reason);
  }

 private:
  struct waiting {
    batch events;
    completion done;
  };
  struct taken {
    std::size_t events;
    completion done;
  };

  std::optional<error> enter(batch& events, completion& done) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return error{errc::unavailable, "the flow is stopping", {}, 1};
    // One that is larger than the queue itself may pass alone; else it never could.
    if (held_ > 0 && held_ + events.size() > limit_) {
      return error{errc::overloaded, std::to_string(held_) + " events are waiting already", {}, 1};
    }
    held_ += events.size();
    waiting_.push_back({std::move(events), std::move(done)});
    return std::nullopt;
  }

  const std::size_t limit_;
  const std::shared_ptr<wakeup> arrived_;
  std::mutex mutex_;
  std::deque<waiting> waiting_;
  std::vector<taken> in_flight_;
  std::size_t held_ = 0;  // events in both
  bool stopped_ = false;
};

// Suspends the receiver until its events are settled; resumes it on its own executor.
asio::awaitable<result<delivery_answer>> until_settled(std::shared_ptr<delivery_queue> queue,
                                                       batch delivered) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(result<delivery_answer>)>(
      [queue = std::move(queue)](auto handler, batch events) {
        auto executor = asio::get_associated_executor(handler);
        auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        auto guard = asio::make_work_guard(executor);
        queue->submit(std::move(events), [shared, executor, guard](result<delivery_answer> answer) {
          asio::post(executor, [shared, answer] { std::move (*shared)(answer); });
        });
      },
      asio::use_awaitable, std::move(delivered));
}

asio::awaitable<result<delivery_answer>> receive(std::shared_ptr<const settings> s,
                                                 std::shared_ptr<delivery_queue> queue, delivery d) {
  if (s->signature) {
    if (const std::optional<error> refused = check_signature(*s->signature, d)) co_return *refused;
  }
  result<batch> events = read_delivery(*s, d);
  if (!events) co_return events.error();
  co_return co_await until_settled(std::move(queue), std::move(*events));
}

class webhook_source final : public source {
 public:
  webhook_source(settings s, const component_context& context)
      : settings_(std::make_shared<const settings>(std::move(s))),
        webhooks_(context.services.webhooks),
        arrived_(std::make_shared<wakeup>(context.executor)),
        queue_(std::make_shared<delivery_queue>(settings_->queue, arrived_)) {}

  ~webhook_source() override {
    claim_.reset();
    queue_->abandon(error{errc::unavailable, "the flow has stopped", {}, 1});
  }

  asio::awaitable<void> open(std::int64_t) override {
    auto take = [s = settings_, queue = queue_](delivery d) { return receive(s, queue, std::move(d)); };
    result<std::shared_ptr<void>> claimed = webhooks_.claim(settings_->path, std::move(take));
    if (!claimed) throw std::runtime_error(claimed.error().detail);
    claim_ = std::move(*claimed);
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (true) {
      std::optional<batch> events = queue_->take(most);
      if (events || stopped_) co_return std::move(events);
      co_await arrived_->wait();
    }
  }

  void acknowledge(std::int64_t) override { queue_->settle(std::nullopt); }

  // The reason is the operator's affair, not the sender's.
  void reject(const std::string&) override {
    queue_->abandon(error{errc::unavailable, "the flow failed before the events were safe", {}, 1});
  }

  void stop_input() override {
    stopped_ = true;
    queue_->stop();
    arrived_->notify();
  }

 private:
  std::shared_ptr<const settings> settings_;
  webhooks& webhooks_;
  std::shared_ptr<wakeup> arrived_;
  std::shared_ptr<delivery_queue> queue_;
  std::shared_ptr<void> claim_;
  bool stopped_ = false;
};

}  // namespace

void add_webhook_source(registry& r) {
  r.add(spec(), registry::make_source([](const config::value& v, const component_context& context) {
          return std::make_unique<webhook_source>(parse(v, context), context);
        }));
}

}  // namespace penstock::runtime::components
