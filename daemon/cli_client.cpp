#include "daemon/cli_client.hpp"

#include <csignal>
#include <exception>
#include <utility>

#include <curl/curl.h>

namespace penstock::cli {
namespace {

using take_body = std::function<void(std::string_view)>;

struct transfer {
  CURL* handle;
  answer& result;
  const take_body* take;  // null: everything into the answer
  std::exception_ptr thrown{};  // by `take`; nothing may be thrown through libcurl
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

int end_when_interrupted(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return interrupts > 0 ? 1 : 0; }

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

answer client::send(const request& what) { return stream(what, {}); }

answer client::stream(const request& what, std::function<void(std::string_view)> take) {
  answer result;
  CURL* handle = state_->handle;
  transfer now{handle, result, take ? &take : nullptr};
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
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(patience_.count()));
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &end_when_interrupted);

  const CURLcode code = curl_easy_perform(handle);
  if (now.thrown) std::rethrow_exception(now.thrown);
  if (code == CURLE_ABORTED_BY_CALLBACK) throw interruption();
  if (code != CURLE_OK) {
    std::string why = reason[0] != '\0' ? reason : curl_easy_strerror(code);
    if (code == CURLE_COULDNT_CONNECT && !socket_path_.empty()) why = "nobody listens at the socket " + socket_path_;
    throw unreachable("no answer from " + base_ + ": " + why);
  }
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &result.status);
  const char* type = nullptr;
  curl_easy_getinfo(handle, CURLINFO_CONTENT_TYPE, &type);
  if (type != nullptr) result.content_type = type;
  return result;
}

void client::set_up_connection() {
  CURL* handle = state_->handle;
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
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
