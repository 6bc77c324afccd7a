#include "daemon/cli_client.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <exception>
#include <utility>

#include <curl/curl.h>

#include "config/time.hpp"

namespace penstock::cli {
namespace {

constexpr std::chrono::milliseconds longest_connect{5000};

using take_body = std::function<void(std::string_view)>;
using steady = std::chrono::steady_clock;

struct transfer {
  CURL* handle;
  answer& result;
  const take_body* take;                // null: everything into the answer
  const std::function<void()>* silent;  // null: silence ends it
  steady::duration patience;            // how long nothing may move
  steady::time_point moved_at = steady::now();
  curl_off_t moved = 0;  // bytes, both ways
  bool gave_up = false;
  std::exception_ptr thrown{};  // by `take` or `silent`; nothing may be thrown through libcurl
};

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* user) {
  transfer& now = *static_cast<transfer*>(user);
  const std::string_view piece(data, size * count);
  long status = 0;
  curl_easy_getinfo(now.handle, CURLINFO_RESPONSE_CODE, &status);
  if (now.take != nullptr && status >= 200 && status < 300) {
    try {
      (*now.take)(piece);
    } catch (...) {
      now.thrown = std::current_exception();
      return 0;  // ends the transfer
    }
  } else {
    now.result.body.append(piece);
  }
  return piece.size();
}

volatile std::sig_atomic_t interrupts = 0;

// libcurl asks at least once a second; 1 ends the transfer.
int on_progress(void* user, curl_off_t, curl_off_t down, curl_off_t, curl_off_t up) {
  if (interrupts > 0) return 1;
  transfer& now = *static_cast<transfer*>(user);
  const auto time = steady::now();
  if (std::exchange(now.moved, down + up) != down + up) now.moved_at = time;
  if (time - now.moved_at < now.patience) return 0;
  if (now.silent == nullptr) {
    now.gave_up = true;
    return 1;
  }
  try {
    (*now.silent)();
  } catch (...) {
    now.thrown = std::current_exception();
    return 1;
  }
  now.moved_at = steady::now();
  return 0;
}

struct header_list {
  curl_slist* first = nullptr;
  header_list() = default;
  header_list(const header_list&) = delete;
  header_list& operator=(const header_list&) = delete;
  ~header_list() { curl_slist_free_all(first); }
  void add(const std::string& line) { first = curl_slist_append(first, line.c_str()); }
};

// Nothing when a % is not followed by two hex digits.
std::string decode(std::string_view text) {
  int size = 0;
  char* const decoded = curl_easy_unescape(nullptr, text.data(), static_cast<int>(text.size()), &size);
  std::string out = decoded != nullptr ? std::string(decoded, static_cast<std::size_t>(size)) : std::string();
  curl_free(decoded);
  return out;
}

// The path of a Unix socket's file that the address names; empty: it names none.
std::string socket_path_of(std::string_view base) {
  for (const std::string_view scheme : {"unix://", "unix:"}) {
    if (base.starts_with(scheme)) return std::string(base.substr(scheme.size()));
  }
  constexpr std::string_view encoded = "http+unix://";
  return base.starts_with(encoded) ? decode(base.substr(encoded.size())) : std::string();
}

}  // namespace

struct client::state {
  CURL* handle = nullptr;

  state() {
    curl_global_init(CURL_GLOBAL_DEFAULT);
    handle = curl_easy_init();
    if (handle == nullptr) throw std::runtime_error("libcurl cannot be initialised");
  }
  ~state() {
    curl_easy_cleanup(handle);
    curl_global_cleanup();
  }
  state(const state&) = delete;
  state& operator=(const state&) = delete;
};

client::client(std::string base, certificates use)
    : base_(std::move(base)), certificates_(std::move(use)), state_(std::make_unique<state>()) {
  while (base_.ends_with('/')) base_.pop_back();
  socket_path_ = socket_path_of(base_);
  url_base_ = socket_path_.empty() ? base_ : "http://localhost";
}

client::~client() = default;

answer client::send(const request& what) { return once_allowed(what, {}, {}); }

answer client::stream(const request& what, std::function<void(std::string_view)> take, std::function<void()> silent) {
  return once_allowed(what, take, silent);
}

answer client::once_allowed(const request& what, const std::function<void(std::string_view)>& take,
                            const std::function<void()>& silent) {
  std::chrono::milliseconds waited{0};
  for (;;) {
    answer said = transfer_once(what, take, silent);
    // Refused for now, and nothing was done.
    const std::chrono::milliseconds pause = said.retry_after;
    if (said.status != 429 || !what.again_when_told || pause.count() <= 0 || waited + pause > patience_) return said;
    if (on_wait_) on_wait_(said.retry_after, said);
    waited += pause;
    ::poll(nullptr, 0, static_cast<int>(pause.count()));
    if (interrupted()) throw interruption();
  }
}

void client::look_for_life() const {
  client other(base_, certificates_);
  other.set_patience(patience_, stream_patience_);
  other.send({.path = "/healthz"});
}

answer client::transfer_once(const request& what, std::function<void(std::string_view)> take, std::function<void()> silent) {
  answer result;
  CURL* handle = state_->handle;
  transfer now{.handle = handle,
               .result = result,
               .take = take ? &take : nullptr,
               .silent = silent ? &silent : nullptr,
               .patience = take ? stream_patience_ : patience_ + what.waits};
  header_list headers;
  for (const std::string& line : what.headers) headers.add(line);
  if (!token_.empty()) headers.add("Authorization: Bearer " + token_);
  headers.add("Expect:");  // the daemon needs no question before a body

  curl_easy_reset(handle);  // keeps the connection
  set_up_connection();
  const std::string url = url_base_ + what.path;
  char reason[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, what.method.c_str());
  if (what.method != "GET" && what.method != "DELETE") {
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, what.body.data());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(what.body.size()));
  }
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.first);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &now);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, reason);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &on_progress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &now);

  const CURLcode code = curl_easy_perform(handle);
  if (now.thrown) std::rethrow_exception(now.thrown);
  if (now.gave_up) {
    const std::string time = format_duration(std::chrono::duration_cast<std::chrono::milliseconds>(now.patience));
    throw unreachable(take ? "nothing has come from " + base_ + " for " + time + ": it hangs, or the way to it is cut"
                           : "no answer from " + base_ + " within " + time + ": it hangs, or is still at it (--timeout)");
  }
  if (code == CURLE_ABORTED_BY_CALLBACK) throw interruption();
  if (code != CURLE_OK) fail(code, reason);
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &result.status);
  const char* type = nullptr;
  curl_easy_getinfo(handle, CURLINFO_CONTENT_TYPE, &type);
  if (type != nullptr) result.content_type = type;
  curl_off_t seconds = 0;
  curl_easy_getinfo(handle, CURLINFO_RETRY_AFTER, &seconds);
  result.retry_after = std::chrono::seconds(seconds);
  return result;
}

// Why no connection to the socket came about.
std::string client::socket_trouble() const {
  long error_number = 0;
  curl_easy_getinfo(state_->handle, CURLINFO_OS_ERRNO, &error_number);
  if (error_number == EACCES) return "no permission to use the socket " + socket_path_ + " (are you in its group?)";
  return "nobody listens at the socket " + socket_path_;
}

// In words of ours where the library's would not help.
void client::fail(int code, const std::string& reason) const {
  std::string why = reason.empty() ? curl_easy_strerror(static_cast<CURLcode>(code)) : reason;
  switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      throw usage_error("'" + base_ + "' is no address of a daemon: one looks like http://HOST:PORT, https://HOST:PORT or unix:/PATH");
    case CURLE_SSL_CACERT_BADFILE:
      throw usage_error("the authorities in " + certificates_.authorities + " cannot be used: PEM is expected");
    case CURLE_SSL_CERTPROBLEM:
      throw usage_error("the certificate " + certificates_.own + " with the key " +
                        (certificates_.own_key.empty() ? "in the same file" : certificates_.own_key) +
                        " cannot be used: both must be PEM and belong together");
    case CURLE_COULDNT_CONNECT:
      if (!socket_path_.empty()) why = socket_trouble();
      break;
    case CURLE_SSL_CONNECT_ERROR:
      if (why.find("wrong version number") != std::string::npos) why = "it does not speak TLS: use http:// in the address";
      break;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      why = "the connection broke before the answer was whole";
      break;
    default:
      break;
  }
  throw unreachable("no answer from " + base_ + ": " + why);
}

void client::set_up_connection() {
  CURL* handle = state_->handle;
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::min(patience_, longest_connect).count()));
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  if (!socket_path_.empty()) curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, socket_path_.c_str());
  const auto file = [handle](CURLoption option, const std::string& path) {
    if (!path.empty()) curl_easy_setopt(handle, option, path.c_str());
  };
  file(CURLOPT_CAINFO, certificates_.authorities);
  file(CURLOPT_SSLCERT, certificates_.own);
  file(CURLOPT_SSLKEY, certificates_.own_key);
}

void client::catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupts = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one is the system's
  ::sigaction(SIGINT, &action, nullptr);
}

bool client::interrupted() { return interrupts > 0; }
void client::forget_interrupt() { interrupts = 0; }

std::string encode(std::string_view text) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += hex[byte >> 4];
    out += hex[byte & 15];
  }
  return out;
}

std::string query(const std::vector<std::pair<std::string, std::string>>& parameters) {
  std::string out;
  for (const auto& [name, value] : parameters) {
    if (value.empty()) continue;
    out += (out.empty() ? "?" : "&") + name + "=" + encode(value);
  }
  return out;
}

}  // namespace penstock::cli
