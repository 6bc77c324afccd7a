// Connections that become WebSockets, or ask for that in a wrong way. Method: a real server on 127.0.0.1 whose handler does as
// that of streams does; the clients send exact bytes and know frames by heart.
#include <stdexcept>
#include <string>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "api/server.hpp"
#include "api/websocket.hpp"
#include "tests/api/http_client.hpp"

using namespace penstock;
using namespace penstock::api;
using testing::client;
using testing::reply;

namespace {

// "hello", then the end: a close code, or an exception.
class greeting final : public message_stream {
 public:
  explicit greeting(bool breaks) : breaks_(breaks) {}
  asio::awaitable<piece> next() override {
    piece out;
    if (said_ && breaks_) throw std::runtime_error("the stream broke");
    if (said_) out.close_code = 1001;
    if (!said_) out.texts.push_back(std::make_shared<const std::string>("hello"));
    said_ = true;
    co_return out;
  }

 private:
  const bool breaks_;
  bool said_ = false;
};

asio::awaitable<response> greet(request& r) {
  if (!asks_for_websocket(r)) co_return response{.body = "plain"};
  auto refused = handshake_refusal(r);
  if (refused) co_return std::move(*refused);
  response reply{.status = 101};
  reply.messages = std::make_unique<greeting>(r.parameter("how") == "broken");
  co_return reply;
}

class greeting_server {
 public:
  greeting_server() : server_(io_.get_executor(), routes(), {}) {
    port_ = server_.listen("127.0.0.1", 0);
    thread_ = std::thread([this] { io_.run(); });
  }
  ~greeting_server() {
    asio::co_spawn(io_, server_.stop(std::chrono::seconds{5}), asio::use_future).get();
    guard_.reset();
    thread_.join();
  }
  std::uint16_t port() const { return port_; }
  std::int64_t counted(int status) {
    const auto all = asio::post(io_, asio::use_future([this] { return server_.requests(); })).get();
    std::int64_t sum = 0;
    for (const request_count& one : all) sum += one.status == status ? one.requests : 0;
    return sum;
  }

 private:
  static std::vector<route> routes() {
    endpoint_rules rules;
    rules.path = "/greet/{how}";
    return {{rules, greet}};
  }

  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard_{io_.get_executor()};
  server server_;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

const std::string upgrading = "Connection: keep-alive, Upgrade\r\n", upgrade = "Upgrade: WebSocket\r\n";
const std::string version = "Sec-WebSocket-Version: 13\r\n", key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

std::string ask(const std::string& headers, const std::string& how = "well") {
  return "GET /greet/" + how + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n";
}

const std::string hello_frame = "\x81\x05hello", bye = "\x88\x82\x01\x02\x03\x04\x02\xeb";  // 1001, masked

}  // namespace

TEST_CASE("a connection becomes a WebSocket and ends as one", "[websocket]") {
  greeting_server f;
  client c(f.port());
  const reply accepted = c.call(ask(upgrading + upgrade + version + key));
  CHECK(accepted.status == 101);
  CHECK(accepted.has("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));  // RFC 6455, section 1.3
  CHECK(c.read_bytes(7) == hello_frame);
  CHECK(f.counted(101) == 1);
  CHECK(c.read_bytes(4) == "\x88\x02\x03\xe9");
  CHECK(c.send(bye));
  CHECK(c.closed());
}

TEST_CASE("messages that break off end the WebSocket, whatever its client does", "[websocket]") {
  greeting_server f;
  client polite(f.port()), gone(f.port());
  for (client* c : {&polite, &gone}) {
    CHECK(c->call(ask(upgrading + upgrade + version + key, "broken")).status == 101);
    CHECK(c->read_bytes(7) == hello_frame);
    CHECK(c->read_bytes(4) == "\x88\x02\x03\xf3");  // 1011
  }
  gone.leave();
  CHECK(polite.send(bye));
  CHECK(polite.closed());
  CHECK(client(f.port()).call(ask("")).status == 200);
}

TEST_CASE("who does not ask for a WebSocket gets none", "[websocket]") {
  greeting_server f;
  client c(f.port());
  for (const std::string& headers : {std::string(), upgrade + version + key, upgrading + version + key,
                                     "Connection: upgraded\r\n" + upgrade + version + key}) {
    CHECK(c.call(ask(headers)).body == "plain");
  }
  CHECK(c.call("GET /greet/well HTTP/1.0\r\nHost: x\r\n" + upgrading + upgrade + version + key + "\r\n").body == "plain");
}

TEST_CASE("a handshake that is not proper is refused in words", "[websocket]") {
  greeting_server f;
  client c(f.port());
  for (const std::string& wrong : {std::string(), std::string("Sec-WebSocket-Version: 8\r\n")}) {
    const reply refused = c.call(ask(upgrading + upgrade + wrong + key));
    CHECK(refused.status == 426);
    CHECK(refused.has("Sec-WebSocket-Version: 13\r\n"));
    CHECK(refused.has("application/problem+json"));
  }
  for (const char* wrong : {"", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=x", "dGhl*HNhbXBsZSBub25jZQ==",
                            "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="}) {
    const reply refused = c.call(ask(upgrading + upgrade + version + "Sec-WebSocket-Key: " + wrong + "\r\n"));
    CHECK(refused.status == 400);
    CHECK_FALSE(nlohmann::json::parse(refused.body)["detail"].get<std::string>().empty());
  }
  client early(f.port());
  const reply refused = early.call(ask(upgrading + upgrade + version + key) + bye);
  CHECK(refused.status == 400);
  CHECK(refused.has("Connection: close\r\n"));
  CHECK(f.counted(101) == 0);
  CHECK(f.counted(426) == 2);
  CHECK(f.counted(400) == 6);
}
