// A connection: any bytes, sent at once and in pieces, to a real session over a socket pair. It answers and closes; no handler
// sees a message whose end two readers could disagree about; and in pieces, handlers see the same, as far as both
// connections live.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/server_core.hpp"
#include "api/session.hpp"
#include "runtime/event.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

namespace asio = boost::asio;
using api::request;
using api::response;

constexpr std::size_t body_limit = 4096;

// What a handler must be able to rely on (RFC 9112 sections 5 and 6, RFC 9110 section 5.5).
void check_request(const request& r) {
  int lengths = 0, codings = 0, hosts = 0;
  for (const api::header& h : r.headers) {
    require(!h.name.empty(), "a header has a name");
    for (const char c : h.name) require(static_cast<unsigned char>(c) > 0x20 && c != ':' && c != 0x7f, "a header's name is a token", h.name);
    for (const char c : h.value) require(c != '\r' && c != '\n' && c != '\0', "a value is one line", h.value);
    require(h.value.empty() || (h.value.front() != ' ' && h.value.back() != ' '), "no spaces around a value", h.value);
    lengths += api::same_letters(h.name, "content-length");
    codings += api::same_letters(h.name, "transfer-encoding");
    hosts += api::same_letters(h.name, "host");
  }
  require(lengths <= 1 && codings <= 1, "how long the body is, is said once");
  require(lengths == 0 || codings == 0, "Content-Length and Transfer-Encoding do not come together");
  require(r.version == 10 || hosts == 1, "an HTTP/1.1 request has one Host");
  require(r.path.starts_with('/'), "a path begins with a slash", r.path);
  require(r.body.size() <= body_limit, "a body is within its limit");
}

std::string handled;  // all requests that handlers have seen

void note(const request& r) {
  check_request(r);
  handled += std::string(api::token(r.method)) + " " + std::string(r.path);
  for (const auto& q : r.query) handled += "|" + q.name + "=" + q.value;
  for (const auto& h : r.headers) handled += "|" + std::string(h.name) + ": " + std::string(h.value);
  handled += "|" + r.body + "\n";
}

asio::awaitable<response> say_what_came(request& r) {
  note(r);
  co_return response{.content_type = "text/plain", .body = r.body};
}

class three_pieces final : public api::body_stream {
 public:
  asio::awaitable<std::string> next() override { co_return left_-- > 0 ? "piece" : ""; }

 private:
  int left_ = 3;
};

asio::awaitable<response> stream(request& r) {
  note(r);
  response reply{.content_type = "text/plain"};
  reply.stream = std::make_unique<three_pieces>();
  co_return reply;
}

std::vector<api::route> make_routes() {
  using api::http_method;
  std::vector<api::route> all;
  all.push_back({{.method = http_method::get, .path = "/a", .summary = "what came", .query = {"q"}}, say_what_came});
  all.push_back({{.method = http_method::post, .path = "/a", .summary = "what came", .any_query = true}, say_what_came});
  all.push_back({{.method = http_method::put, .path = "/b/{name}", .summary = "what came", .body_required = true}, say_what_came});
  all.push_back({{.method = http_method::del, .path = "/b/{path...}", .summary = "what came"}, say_what_came});
  all.push_back({{.method = http_method::get, .path = "/stream", .summary = "what came"}, stream});
  return all;
}

// The server's side of a connection, and a client that never waits.
class exchange {
 public:
  exchange() {
    api::server_options limits;
    limits.header_bytes = 2048;
    limits.target_bytes = 512;
    limits.body_bytes = limits.event_body_bytes = body_limit;
    core_ = std::make_shared<api::server_core>(io_.get_executor(), make_routes(), limits);
    int ends[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0, "there is a socket pair");
    client_ = ends[0];
    asio::generic::stream_protocol::socket accepted(io_, asio::generic::stream_protocol(AF_UNIX, 0), ends[1]);
    std::make_shared<api::session>(core_, std::move(accepted), nullptr)->start();
    work();
  }
  ~exchange() { ::close(client_); }

  void send(std::string_view bytes) {
    while (!bytes.empty() && !closed_) {
      const auto n = ::send(client_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
      closed_ = closed_ || (n < 0 && errno != EAGAIN);
      work();
    }
  }
  // Everything that was answered.
  std::string end() {
    ::shutdown(client_, SHUT_WR);
    work();
    require(closed_, "the connection is closed once the client has sent all", answer_.substr(0, 300));
    require(core_->sessions.empty(), "a connection that is closed leaves nothing");
    require(core_->body_bytes == 0, "no memory of bodies is held");
    return std::move(answer_);
  }

 private:
  // All that can be done without waiting.
  void work() {
    do {
      io_.restart();
      io_.poll();
    } while (receive());
  }
  bool receive() {
    char bytes[4096];
    const auto n = ::recv(client_, bytes, sizeof bytes, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) closed_ = true;
    if (n <= 0) return false;
    answer_.append(bytes, static_cast<std::size_t>(n));
    return true;
  }

  asio::io_context io_{1};
  std::shared_ptr<api::server_core> core_;
  int client_ = -1;
  bool closed_ = false;
  std::string answer_{};
};

void check_answer(const std::string& answer) {
  if (answer.empty()) return;
  require(answer.starts_with("HTTP/1.1 "), "what is answered is HTTP", answer.substr(0, 100));
  require(answer.find("HTTP/1.1 500") == answer.npos, "nothing fails inside", answer);
}

}  // namespace

void try_input(std::string_view text) {
  spdlog::set_level(spdlog::level::off);
  handled.clear();
  exchange at_once;
  at_once.send(text);
  std::string answers = at_once.end();
  check_answer(answers);
  const std::string whole = std::exchange(handled, {});
  exchange bit_by_bit;
  in_pieces(text, [&](std::string_view piece) { bit_by_bit.send(piece); });
  const std::string other_answers = bit_by_bit.end();
  check_answer(other_answers);
  answers += other_answers;
  // The parser takes a header that is some bytes beyond the limit when it is whole by then.
  if (answers.find("HTTP/1.1 431 ") != answers.npos) return;
  // After a refusal the connection goes on if the rest of what was refused had come by then, and ends otherwise.
  require(whole.starts_with(handled) || handled.starts_with(whole), "pieces make no difference", whole + "--- in pieces:\n" + handled);
}

}  // namespace penstock::fuzz
