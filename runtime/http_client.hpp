// Outbound HTTP for components: one libcurl connection, kept between requests, whose calls block.
//
// Used by one thread at a time, so on the blocking pool. Redirects are not followed and proxy variables of the
// environment are ignored. No message ever shows more of a URL than was written in the definition.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/time.hpp"

namespace penstock::runtime {

struct http_request {
  std::string_view method = "GET";
  std::string url;                     // with secrets
  std::string shown;                   // as written: for messages
  std::vector<std::string> headers{};  // "Name: value"
  std::string_view body{};             // sent with every method but GET
  std::chrono::milliseconds timeout{30'000};  // from connecting to the end of the answer
  std::size_t most_bytes = 1 << 20;           // of the answer's body that are kept
};

struct http_answer {
  long status = 0;
  std::string body{};
  bool cut = false;             // it was longer than most_bytes
  std::string retry_after{};    // these three: the headers as they came; empty: there was none
  std::string etag{};
  std::string last_modified{};

  bool taken() const { return status >= 200 && status < 300; }
  // Worth asking again: 408, 429, 5xx; and 3xx, which nobody follows.
  bool temporary() const { return status == 408 || status == 429 || (!taken() && (status < 400 || status >= 500)); }
  // "answered 503: body's first 200 bytes"
  std::string in_words() const;
};

// No answer came. what(): "SHOWN: reason".
class http_failure : public std::runtime_error {
 public:
  http_failure(const std::string& shown, std::string reason)
      : std::runtime_error(shown + ": " + reason), reason_(std::move(reason)) {}
  const std::string& reason() const { return reason_; }

 private:
  std::string reason_;
};

class http_client {
 public:
  http_client();
  ~http_client();
  http_client(const http_client&) = delete;
  http_client& operator=(const http_client&) = delete;

  // Throws http_failure when no answer came.
  http_answer send(const http_request& request);
  // From any thread: the request under way, and all later ones, end within a second.
  void cancel() { cancelled_ = true; }

 private:
  struct receiver;
  struct closer {
    void operator()(void* handle) const;
  };

  std::unique_ptr<void, closer> handle_;  // a CURL
  std::atomic<bool> cancelled_{false};
};

// Throws std::runtime_error, "url 'SHOWN': why", when it is no URL of http or https that libcurl would take (web_url.hpp).
// Checking loads no library.
void require_http_url(const std::string& url, const std::string& shown);
// The same of a URL as it is written: what its secret references stand for is not known.
void require_http_url(const std::string& written);

// A URL as it is written, for messages that go further than the daemon's log: no user, password, query or fragment.
std::string without_query(std::string_view written);

// How long a Retry-After header asks to wait (RFC 9110, section 10.2.3): seconds, or a date. Nothing: it says nothing
// that can be understood.
std::optional<std::chrono::nanoseconds> retry_after(std::string_view header, timestamp now);

// Every byte but RFC 3986's unreserved ones as %XX.
std::string percent_encoded(std::string_view text);

}  // namespace penstock::runtime
