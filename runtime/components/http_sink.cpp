// to: http - sends events to a URL and waits for the answer.
//
// 2xx: taken. 408, 429, 5xx and network failures: the flow fails and is restarted with backoff, so nothing is
// lost. Any other 4xx: the events of that request become dead letters. At-least-once: when a later request of
// a batch fails, the events before it are sent again; each request of `batch: single` carries
// `Idempotency-Key: EVENT ID`, by which a receiver can tell. Redirects are not followed, and proxy variables
// of the environment are ignored.
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <curl/curl.h>
#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"
#include "runtime/components/payload_check.hpp"

namespace penstock::runtime::components {

namespace {

constexpr std::size_t quoted_answer = 200;  // bytes of a refusing answer that its reason quotes

config::component_spec spec() {
  using config::field_type;
  return {
      .kind = config::component_kind::sink,
      .name = "http",
      .doc =
          "Sends events to a URL. Answers 408, 429 and 5xx are tried again, other 4xx make dead letters. At "
          "least once: "
          "a receiver can tell repetitions by the Idempotency-Key header (batch: single).",
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
                 .type = field_type::choice,
                 .doc = "single: a request an event. array: all events at hand as one JSON array. ndjson: "
                        "the same, one a line.",
                 .fallback = "single",
                 .choices = {"single", "array", "ndjson"}},
                {.name = "timeout",
                 .type = field_type::duration,
                 .doc = "For one request, from connecting to the end of the answer.",
                 .fallback = "30s",
                 .minimum = 0.001}},
           .shorthand = "url"},
      .examples =
          {"http: \"https://alerts.example/hook\"",
           "http: {url: \"https://alerts.example/hook\", method: PUT, timeout: 5s}",
           "http: {url: \"http://localhost:9000/bulk\", batch: ndjson, headers: {Authorization: \"Bearer "
           "${env:ALERTS_TOKEN}\"}}"},
  };
}

enum class batching { single, array, ndjson };

struct settings {
  std::string url;    // revealed
  std::string shown;  // as written: for messages
  std::string method;
  std::vector<std::string> headers;  // revealed
  batching mode;
  std::chrono::milliseconds timeout;
};

settings parse(const config::value& v, const component_context& context) {
  settings s;
  s.shown = v.at("url").get<std::string>();
  s.url = context.reveal(s.shown);
  if (!s.url.starts_with("http://") && !s.url.starts_with("https://")) {
    throw std::runtime_error("url '" + s.shown + "' must begin with http:// or https://");
  }
  s.method = v.value("method", "POST");
  for (const auto& [name, text] : v.value("headers", std::map<std::string, std::string>{})) {
    s.headers.push_back(name + ": " + context.reveal(text));
  }
  const std::string mode = v.value("batch", "single");
  s.mode = mode == "array" ? batching::array : mode == "ndjson" ? batching::ndjson : batching::single;
  const std::chrono::nanoseconds timeout{v.value("timeout", std::int64_t{30'000'000'000})};
  s.timeout = std::max(std::chrono::milliseconds{1}, std::chrono::ceil<std::chrono::milliseconds>(timeout));
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

struct answer {
  long status = 0;
  std::string begin;  // of its body
};

// One connection to one URL, kept between requests. Used by one thread at a time.
class client {
 public:
  explicit client(const settings& s) : settings_(s) {
    static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (ready == CURLE_OK) handle_.reset(curl_easy_init());
    if (!handle_) throw std::runtime_error("libcurl cannot be used");
    set(CURLOPT_URL, s.url.c_str());
    set(CURLOPT_CUSTOMREQUEST, s.method.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_PROXY, "");
    set(CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_TIMEOUT_MS, static_cast<long>(s.timeout.count()));
    set(CURLOPT_WRITEFUNCTION, &client::take);
    set(CURLOPT_WRITEDATA, this);
  }

  // Throws when no answer came.
  answer send(std::string_view body, const std::vector<std::string>& headers) {
    header_list list;
    for (const std::string& header : headers) list.add(header);
    for (const std::string& header : settings_.headers) list.add(header);
    list.add("Expect:");  // no pause before the body
    set(CURLOPT_HTTPHEADER, list.get());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    set(CURLOPT_POSTFIELDS, body.empty() ? "" : body.data());  // null would mean: read from stdin
    answer_ = {};
    const CURLcode code = curl_easy_perform(handle_.get());
    if (code != CURLE_OK) throw std::runtime_error(settings_.shown + ": " + curl_easy_strerror(code));
    curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &answer_.status);
    return std::move(answer_);
  }

 private:
  class header_list {
   public:
    header_list() = default;
    ~header_list() { curl_slist_free_all(first_); }
    header_list(const header_list&) = delete;
    header_list& operator=(const header_list&) = delete;
    void add(const std::string& line) {
      curl_slist* const longer = curl_slist_append(first_, line.c_str());
      if (!longer) throw std::bad_alloc();
      first_ = longer;
    }
    curl_slist* get() const { return first_; }

   private:
    curl_slist* first_ = nullptr;
  };
  struct cleanup {
    void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  };

  template <class T>
  void set(CURLoption option, T value) {
    const CURLcode code = curl_easy_setopt(handle_.get(), option, value);
    if (code != CURLE_OK) throw std::runtime_error(settings_.shown + ": " + curl_easy_strerror(code));
  }

  static std::size_t take(char* bytes, std::size_t, std::size_t count, void* self) {
    std::string& begin = static_cast<client*>(self)->answer_.begin;
    begin.append(bytes, std::min(count, quoted_answer - begin.size()));
    return count;
  }

  const settings& settings_;
  std::unique_ptr<CURL, cleanup> handle_;
  answer answer_;
};

// Why the receiver will never take it; empty: it has. Throws when it should be tried again.
std::string judge(const answer& a, const std::string& url) {
  if (a.status >= 200 && a.status < 300) return {};
  std::string said = "answered " + std::to_string(a.status);
  if (!a.begin.empty()) said += ": " + a.begin;
  const bool refused = a.status >= 400 && a.status < 500 && a.status != 408 && a.status != 429;
  if (!refused) throw std::runtime_error(url + ": " + said);
  return said;
}

class http_sink final : public blocking_sink {
 public:
  http_sink(settings s, const component_context& context) : blocking_sink(context), settings_(std::move(s)) {}

 private:
  void open_blocking(const std::string&) override {}

  write_result write_blocking(const batch& events) override {
    if (!client_) client_ = std::make_unique<client>(settings_);
    write_result written;
    written.refused = malformed_events(events);
    if (settings_.mode == batching::single) {
      send_each(events, written);
    } else {
      send_together(events, written);
    }
    return written;
  }

  void close_blocking() override { client_.reset(); }

  void send_each(const batch& events, write_result& written) {
    std::vector<refused_event> all;
    auto malformed = written.refused.begin();
    for (std::size_t i = 0; i < events.size(); ++i) {
      if (malformed != written.refused.end() && malformed->index == i) {
        all.push_back(std::move(*malformed++));
        continue;
      }
      const event& e = events.events[i];
      const answer a =
          client_->send(e.data, {"Content-Type: " + media_type(e), "Idempotency-Key: " + header_value(e.id)});
      if (std::string reason = judge(a, settings_.shown); !reason.empty())
        all.push_back({i, std::move(reason)});
    }
    written.refused = std::move(all);
  }

  void send_together(const batch& events, write_result& written) {
    const bool array = settings_.mode == batching::array;
    std::string body;
    for_each_accepted(events, written.refused, [&](const event& e) {
      append_ndjson(body, e);
      if (array) body.back() = ',';  // in the place of the line end
    });
    if (body.empty()) return;
    if (array) {
      body.insert(body.begin(), '[');
      body.back() = ']';
    }
    const std::string type = array ? "application/json" : "application/x-ndjson";
    const answer a = client_->send(body, {"Content-Type: " + type});
    const std::string reason = judge(a, settings_.shown);
    if (!reason.empty()) refuse_all(events, written, reason);
  }

  static void refuse_all(const batch& events, write_result& written, const std::string& reason) {
    std::vector<refused_event> all;
    auto malformed = written.refused.begin();
    for (std::size_t i = 0; i < events.size(); ++i) {
      const bool was_malformed = malformed != written.refused.end() && malformed->index == i;
      all.push_back({i, was_malformed ? std::move(malformed++->reason) : reason});
    }
    written.refused = std::move(all);
  }

  const settings settings_;
  std::unique_ptr<client> client_;  // made at the first write: an idle sink costs nothing
};

}  // namespace

void add_http_sink(registry& r) {
  r.add(spec(), registry::make_sink([](const config::value& v, const component_context& context) {
          return std::make_unique<http_sink>(parse(v, context), context);
        }));
}

}  // namespace penstock::runtime::components
