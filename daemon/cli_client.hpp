// REST over libcurl, as the operator's client needs it: one request at a time, on the main thread.
// Owned by main(); the connection is kept between requests.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock::cli {

// An argument that makes no sense, or a file of the command line that cannot be read or used.
class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Nobody answered: no connection, it broke before the answer was whole, or nothing came for too long.
class unreachable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Ctrl-C was pressed while the answer was awaited. What the daemon does meanwhile goes on.
class interruption : public std::runtime_error {
 public:
  interruption() : std::runtime_error("interrupted") {}
};

struct request {
  std::string method = "GET";
  std::string path;  // with its query, encoded
  std::string body{};
  std::vector<std::string> headers{};  // "Name: value"
  std::chrono::seconds waits{0};       // how long the daemon is asked to wait before it answers
  bool again_when_told = true;         // a 429 that says when to come again (Retry-After) is waited for, within the patience
};

struct answer {
  long status = 0;
  std::string content_type{};
  std::string body{};
  std::chrono::seconds retry_after{0};  // 0: it says nothing of it
  bool ok() const { return status >= 200 && status < 300; }
};

// Files in PEM for https; empty: the system's authorities, and no certificate of the client's own.
struct certificates {
  std::string authorities{}, own{}, own_key{};
};

class client {
 public:
  // `base`: e.g. http://127.0.0.1:8420, with or without a slash at the end; https://…; unix:/PATH of a Unix socket, which may
  // also be written http+unix://, its path percent-encoded.
  explicit client(std::string base, certificates use = {});
  ~client();
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  // With every request from now on; empty: none.
  void send_token(std::string token) { token_ = std::move(token); }

  // Throws unreachable; usage_error when the address or a certificate cannot be used.
  answer send(const request& what);
  // Hands a 2xx body to `take` piece by piece as it arrives; any other body is in the answer, as with send(). What `take`
  // throws ends the transfer and is thrown on. A stream that is silent for too long is over (unreachable), or, when it need
  // not say anything, `silent` finds out whether anybody is still there: it throws when not.
  answer stream(const request& what, std::function<void(std::string_view)> take, std::function<void()> silent = {});
  // Asks for a sign of life, over a connection of its own. Throws unreachable.
  void look_for_life() const;

  const std::string& base() const { return base_; }
  // When no byte moves for so long, nobody is there. `stream`: of one that is followed; the daemon says something in each
  // that can hold it every 15 s.
  void set_patience(std::chrono::milliseconds limit, std::chrono::milliseconds stream) {
    patience_ = limit;
    stream_patience_ = stream;
  }
  // Called before the daemon's wish is followed to come again later.
  void on_wait(std::function<void(std::chrono::seconds, const answer&)> call) { on_wait_ = std::move(call); }

  // From now on the first SIGINT ends what is awaited, with an interruption, and the second one the process. Once.
  static void catch_interrupts();
  static bool interrupted();
  // What was interrupted is being put in order, which takes another request.
  static void forget_interrupt();

 private:
  struct state;
  answer once_allowed(const request& what, const std::function<void(std::string_view)>& take, const std::function<void()>& silent);
  answer transfer_once(const request& what, std::function<void(std::string_view)> take, std::function<void()> silent);
  void set_up_connection();
  std::string socket_trouble() const;
  [[noreturn]] void fail(int code, const std::string& reason) const;

  std::string base_, token_;
  certificates certificates_;
  std::string socket_path_;  // empty: TCP
  std::string url_base_;     // what libcurl is told
  std::chrono::milliseconds patience_{60'000}, stream_patience_{45'000};
  std::function<void(std::chrono::seconds, const answer&)> on_wait_;
  std::unique_ptr<state> state_;
};

// Percent-encodes everything but RFC 3986's unreserved characters: for a path segment or a query value.
std::string encode(std::string_view text);

// "?a=1&b=2" of the pairs whose value is not empty; empty when there are none.
std::string query(const std::vector<std::pair<std::string, std::string>>& parameters);

}  // namespace penstock::cli
