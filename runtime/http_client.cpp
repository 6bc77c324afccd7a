#include "runtime/http_client.hpp"

#include <algorithm>
#include <charconv>
#include <new>
#include <stdexcept>
#include <strings.h>

#include "runtime/libcurl.hpp"
#include "runtime/text.hpp"
#include "runtime/web_url.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t quoted_answer = 200;  // bytes of an answer that a reason quotes
constexpr std::int64_t longest_pause_s = 24 * 3600;  // that a Retry-After may ask for

class header_list {
 public:
  header_list() = default;
  ~header_list() { curl().slist_free_all(first_); }
  header_list(const header_list&) = delete;
  header_list& operator=(const header_list&) = delete;
  void add(const std::string& line) {
    curl_slist* const longer = curl().slist_append(first_, line.c_str());
    if (!longer) throw std::bad_alloc();
    first_ = longer;
  }
  curl_slist* get() const { return first_; }

 private:
  curl_slist* first_ = nullptr;
};

template <class T>
void set(CURL* handle, const http_request& request, CURLoption option, T value) {
  const CURLcode code = curl().easy_setopt(handle, option, value);
  if (code != CURLE_OK) throw http_failure(request.shown, curl().easy_strerror(code));
}

}  // namespace

// Where an answer is put together while it comes.
struct http_client::receiver {
  const http_request& request;
  const std::atomic<bool>& cancelled;
  http_answer answer{};

  static std::size_t body(char* bytes, std::size_t, std::size_t count, void* self) {
    auto& r = *static_cast<receiver*>(self);
    const std::size_t room = r.request.most_bytes - r.answer.body.size();
    r.answer.body.append(bytes, std::min(count, room));
    r.answer.cut = r.answer.cut || count > room;
    return count;
  }

  static std::size_t header(char* bytes, std::size_t, std::size_t count, void* self) {
    http_answer& a = static_cast<receiver*>(self)->answer;
    const std::string_view line(bytes, count);
    if (line.starts_with("HTTP/")) a.retry_after = a.etag = a.last_modified = {};  // after a 100
    const std::size_t colon = line.find(':');
    if (colon == line.npos) return count;
    const std::string name(line.substr(0, colon));
    const auto is = [&name](const char* wanted) { return ::strcasecmp(name.c_str(), wanted) == 0; };
    const std::string_view value = trimmed(line.substr(colon + 1));
    if (is("Retry-After")) a.retry_after = value;
    if (is("ETag")) a.etag = value;
    if (is("Last-Modified")) a.last_modified = value;
    return count;
  }

  static int progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return static_cast<receiver*>(self)->cancelled ? 1 : 0;
  }
};

std::string http_answer::in_words() const {
  std::string said = "answered " + std::to_string(status);
  if (!body.empty()) said += ": " + body.substr(0, quoted_answer);
  return said;
}

void http_client::closer::operator()(void* handle) const { curl().easy_cleanup(handle); }

http_client::http_client() {
  handle_.reset(curl().easy_init());
  if (!handle_) throw std::bad_alloc();
}

http_client::~http_client() = default;

http_answer http_client::send(const http_request& request) {
  CURL* const handle = handle_.get();
  receiver r{request, cancelled_};
  header_list list;
  for (const std::string& header : request.headers) list.add(header);
  list.add("Expect:");  // no pause before the body
  const auto option = [&](CURLoption which, auto value) { set(handle, request, which, value); };
  curl().easy_reset(handle);  // keeps the connection
  option(CURLOPT_URL, request.url.c_str());
  option(CURLOPT_PROTOCOLS_STR, "http,https");
  option(CURLOPT_PROXY, "");
  option(CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
  option(CURLOPT_NOSIGNAL, 1L);
  option(CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<std::int64_t>(1, request.timeout.count())));
  option(CURLOPT_HTTPHEADER, list.get());
  option(CURLOPT_WRITEFUNCTION, &receiver::body);
  option(CURLOPT_WRITEDATA, &r);
  option(CURLOPT_HEADERFUNCTION, &receiver::header);
  option(CURLOPT_HEADERDATA, &r);
  option(CURLOPT_NOPROGRESS, 0L);
  option(CURLOPT_XFERINFOFUNCTION, &receiver::progress);
  option(CURLOPT_XFERINFODATA, &r);
  if (request.method != "GET") {
    option(CURLOPT_CUSTOMREQUEST, std::string(request.method).c_str());
    option(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    option(CURLOPT_POSTFIELDS, request.body.empty() ? "" : request.body.data());  // null: read from stdin
  }
  const CURLcode code = curl().easy_perform(handle);
  if (code != CURLE_OK) throw http_failure(request.shown, curl().easy_strerror(code));
  curl().easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &r.answer.status);
  return std::move(r.answer);
}

void require_http_url(const std::string& url, const std::string& shown) { parse_web_url(url, "http", shown); }

void require_http_url(const std::string& written) { check_written_url(written, "http"); }

std::string without_query(std::string_view written) {
  std::string shown(written.substr(0, written.find_first_of("?#")));
  const std::size_t scheme = shown.find("://");
  if (scheme == shown.npos) return shown;
  const std::size_t host = scheme + 3;
  const std::size_t at = shown.substr(0, shown.find('/', host)).rfind('@');
  if (at != shown.npos && at >= host) shown.erase(host, at + 1 - host);
  return shown;
}

std::optional<std::chrono::nanoseconds> retry_after(std::string_view header, timestamp now) {
  header = trimmed(header);
  if (header.empty()) return std::nullopt;
  std::int64_t seconds = 0;
  const char* const end = header.data() + header.size();
  const auto [read_to, wrong] = std::from_chars(header.data(), end, seconds);
  if (wrong != std::errc() || read_to != end) {
    const time_t at = curl().getdate(std::string(header).c_str(), nullptr);
    if (at < 0) return std::nullopt;
    seconds = at - to_micros(now) / 1'000'000;
  }
  return std::chrono::seconds{std::clamp<std::int64_t>(seconds, 0, longest_pause_s)};
}

std::string percent_encoded(std::string_view text) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~';
    const auto byte = static_cast<unsigned char>(c);
    out += plain ? std::string(1, c) : std::string{'%', digits[byte >> 4], digits[byte & 15]};
  }
  return out;
}

}  // namespace penstock::runtime
