// A real server on 127.0.0.1 with small handlers of its own, and clients that misbehave in every way that
// HTTP allows and some that it does not. Method: the server's io_context runs on a thread; each client is a
// blocking socket on the test's thread that sends exact bytes. Timeouts are options of a few milliseconds;
// nothing sleeps.
#include <atomic>
#include <future>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "api/server.hpp"
#include "runtime/event.hpp"
#include "runtime/wakeup.hpp"
#include "tests/api/http_client.hpp"
#include "tests/temp_dir.hpp"

using namespace penstock;
using namespace penstock::api;
using testing::client;
using testing::reply;
using namespace std::chrono_literals;

namespace {

// ---- handlers ----

asio::awaitable<response> say_hello(request& r) {
  co_return response{.body = "{\"hello\":\"" + r.parameter("name") + "\"}"};
}

asio::awaitable<response> echo(request& r) {
  const runtime::buffer body(std::move(r.body));
  co_return response{.body = std::string(body.text())};
}

asio::awaitable<response> say_trusted(request& r) { co_return response{.body = r.trusted_peer ? "yes" : "no"}; }

asio::awaitable<response> fail(request&) {
  throw std::runtime_error("secret inner text");
  co_return response{};
}

asio::awaitable<response> refuse(request&) { co_return response{.status = 429}; }

constexpr std::size_t much = 32 << 20;  // more than the kernel takes off a sender's hands

asio::awaitable<response> send_much(request&) {
  co_return response{.content_type = "text/plain", .body = std::string(much, 'x')};
}

asio::awaitable<response> split_headers(request& r) {
  response reply;
  reply.headers.emplace_back("X-Evil", r.query_value("q") ? std::string(*r.query_value("q")) : "");
  co_return reply;
}

struct watched_state {
  std::atomic<int> open{0};  // streams and waits alive
  std::promise<void> left;   // set when a client was seen to leave, or the server stopped
  std::atomic<bool> told{false};
};

class ticking final : public body_stream {
 public:
  ticking(asio::any_io_executor executor, int pieces, bool endless, interruption& end, watched_state& state)
      : pieces_(pieces),
        endless_(endless),
        end_(end),
        state_(state),
        wake_(std::make_shared<runtime::wakeup>(executor)) {
    ++state_.open;
    end.listen([w = wake_] { w->notify(); });
  }
  ~ticking() override { --state_.open; }
  asio::awaitable<std::string> next() override {
    if (pieces_-- > 0) co_return "piece\n";
    while (endless_ && !end_.raised()) co_await wake_->wait();
    if (endless_ && !state_.told.exchange(true)) {
      state_.left.set_value();
      co_return "bye\n";
    }
    co_return "";
  }

 private:
  int pieces_;
  bool endless_;
  interruption& end_;
  watched_state& state_;
  std::shared_ptr<runtime::wakeup> wake_;
};

class bursting final : public body_stream {
 public:
  asio::awaitable<std::string> next() override {
    if (sent_) throw std::runtime_error("the stream broke");
    sent_ = true;
    co_return "first\n";
  }

 private:
  bool sent_ = false;
};

// ---- the server under test ----

class running_server {
 public:
  explicit running_server(server_options options = {}) : server_(io_.get_executor(), routes(), options) {
    port_ = server_.listen("127.0.0.1", 0);
    thread_ = std::thread([this] { io_.run(); });
  }
  ~running_server() {
    stop(2s);
    release_->notify();
    guard_.reset();
    thread_.join();
  }

  std::size_t stop(std::chrono::nanoseconds limit) {
    if (std::exchange(stopped_, true)) return 0;
    return asio::co_spawn(io_, server_.stop(limit), asio::use_future).get();
  }
  template <class F>
  auto ask(F f) {
    return asio::post(io_, asio::use_future(f)).get();
  }
  std::size_t connections() {
    return ask([this] { return server_.connections(); });
  }
  std::uint16_t port() const { return port_; }
  server& http() { return server_; }
  watched_state watched;

 private:
  std::vector<route> routes() {
    const auto rule = [](http_method m, std::string path) {
      endpoint_rules rules;
      rules.method = m;
      rules.path = std::move(path);
      return rules;
    };
    std::vector<route> all;
    all.push_back({rule(http_method::get, "/hello/{name}"), say_hello});
    all.back().rules.query = {"limit", "follow"};
    all.push_back({rule(http_method::post, "/echo"), echo});
    all.push_back({rule(http_method::post, "/hook"), echo});
    all.back().rules.needs = access::signed_body;
    all.push_back({rule(http_method::post, "/needs-body"), echo});
    all.back().rules.body_required = true;
    all.push_back({rule(http_method::post, "/events"), echo});
    all.back().rules.takes_events = true;
    all.push_back({rule(http_method::get, "/trusted"), say_trusted});
    all.push_back({rule(http_method::get, "/fail"), fail});
    all.push_back({rule(http_method::get, "/too-much"), refuse});
    all.push_back({rule(http_method::get, "/much"), send_much});
    all.push_back({rule(http_method::get, "/split"), split_headers});
    all.back().rules.any_query = true;
    all.push_back({rule(http_method::get, "/stream"), [this](request& r) { return stream(r, 3, false); }});
    all.push_back({rule(http_method::get, "/endless"), [this](request& r) { return stream(r, 1, true); }});
    all.push_back({rule(http_method::get, "/broken-stream"), [](request&) { return break_stream(); }});
    all.push_back({rule(http_method::get, "/wait"), [this](request& r) { return wait(r); }});
    all.push_back({rule(http_method::get, "/stuck"), [this](request& r) { return stuck(r); }});
    return all;
  }

  asio::awaitable<response> stream(request& r, int pieces, bool endless) {
    response reply{.content_type = "text/plain"};
    reply.stream = std::make_unique<ticking>(io_.get_executor(), pieces, endless, r.interrupted, watched);
    co_return reply;
  }
  static asio::awaitable<response> break_stream() {
    response reply{.content_type = "text/plain"};
    reply.stream = std::make_unique<bursting>();
    co_return reply;
  }
  asio::awaitable<response> wait(request& r) {
    auto wake = std::make_shared<runtime::wakeup>(io_.get_executor());
    r.interrupted.listen([wake] { wake->notify(); });
    ++watched.open;
    while (!r.interrupted.raised()) co_await wake->wait();
    --watched.open;
    if (!watched.told.exchange(true)) watched.left.set_value();
    co_return response{.body = "{\"waited\":true}"};
  }
  // Never listens: it goes on although its connection was cut off.
  asio::awaitable<response> stuck(request&) {
    ++watched.open;
    co_await release_->wait();
    co_return response{};
  }

  asio::io_context io_{1};
  std::shared_ptr<runtime::wakeup> release_ = std::make_shared<runtime::wakeup>(io_.get_executor());
  asio::executor_work_guard<asio::io_context::executor_type> guard_{io_.get_executor()};
  server server_;
  std::uint16_t port_ = 0;
  std::thread thread_;
  bool stopped_ = false;
};

const std::string hello = "GET /hello/you HTTP/1.1\r\nHost: x\r\n\r\n";

std::string post(const std::string& path, const std::string& body, const std::string& more = {}) {
  return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         more + "\r\n" + body;
}

nlohmann::json problem_of(const reply& r) {
  CHECK(r.has("Content-Type: application/problem+json\r\n"));
  return nlohmann::json::parse(r.body);
}

}  // namespace

TEST_CASE("a request is answered and the connection goes on", "[server]") {
  running_server f;
  client c(f.port());
  for (int i = 0; i < 3; ++i) {
    const reply r = c.call(hello);
    CHECK(r.status == 200);
    CHECK(r.body == "{\"hello\":\"you\"}");
    CHECK(r.has("Content-Type: application/json\r\n"));
    CHECK(r.has("X-Request-Id: "));
    CHECK(r.has(" GMT\r\n"));
    CHECK_FALSE(r.has("Connection:"));
  }
  const reply last = c.call("GET /hello/a%20b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(last.body == "{\"hello\":\"a b\"}");
  CHECK(last.has("Connection: close\r\n"));
  CHECK(c.closed());
}

TEST_CASE("a request arrives in single bytes", "[server]") {
  running_server f;
  client c(f.port());
  const std::string bytes = post("/echo", "body") + hello;
  for (const char byte : bytes) REQUIRE(c.send({&byte, 1}));
  CHECK(c.read_reply().body == "body");
  CHECK(c.read_reply().body == "{\"hello\":\"you\"}");
}

TEST_CASE("pipelined requests are answered in order", "[server]") {
  running_server f;
  client c(f.port());
  std::string many;
  for (int i = 0; i < 2000; ++i) many += post("/echo", "number " + std::to_string(i));
  std::thread sender([&] { c.send(many); });
  int wrong = 0;
  for (int i = 0; i < 2000; ++i) wrong += c.read_reply().body != "number " + std::to_string(i);
  sender.join();
  CHECK(wrong == 0);
}

TEST_CASE("HEAD has the header of GET and no body", "[server]") {
  running_server f;
  client c(f.port());
  c.send("HEAD /hello/you HTTP/1.1\r\nHost: x\r\n\r\n" + hello);
  const reply head = c.read_reply(true);
  CHECK(head.status == 200);
  CHECK(head.has("Content-Length: 15\r\n"));
  CHECK(c.read_reply().body == "{\"hello\":\"you\"}");
  c.send("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n" + hello);
  CHECK_FALSE(c.read_reply(true).has("Transfer-Encoding"));
  CHECK(c.read_reply().status == 200);
  c.send("HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + hello);
  CHECK(c.read_reply(true).status == 404);
  CHECK(c.read_reply().status == 200);
}

TEST_CASE("HTTP/1.0 closes, or keeps open when asked", "[server]") {
  running_server f;
  client plain(f.port());
  const reply r = plain.call("GET /hello/you HTTP/1.0\r\n\r\n");
  CHECK(r.status == 200);
  CHECK(r.has("Connection: close\r\n"));
  CHECK(plain.closed());

  client kept(f.port());
  CHECK(kept.call("GET /hello/you HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .has("Connection: keep-alive\r\n"));
  CHECK(kept.call(hello).status == 200);

  client stream(f.port());
  stream.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string all = stream.read_all();
  CHECK(all.find("Transfer-Encoding") == std::string::npos);
  CHECK(all.ends_with("\r\n\r\npiece\npiece\npiece\n"));
}

TEST_CASE("unknown paths and methods", "[server]") {
  running_server f;
  client c(f.port());
  const reply lost = c.call("GET /helo/you HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(lost.status == 404);
  CHECK(problem_of(lost)["detail"].get<std::string>().find("/hello/{name}") != std::string::npos);
  const reply wrong = c.call("DELETE /hello/you HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(wrong.status == 405);
  CHECK(wrong.has("Allow: GET, HEAD, OPTIONS\r\n"));
  CHECK(problem_of(wrong)["type"] == "/problems/method_not_allowed");
  CHECK(c.call("BREW /hello/you HTTP/1.1\r\nHost: x\r\n\r\n").status == 501);
  CHECK(c.call("GET /hello/%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n").status == 400);
  CHECK(c.call("GET /hello/%00 HTTP/1.1\r\nHost: x\r\n\r\n").status == 400);
  // A refused request's small body is dropped, and the connection goes on.
  CHECK(c.call(post("/nowhere", "some body")).status == 404);
  CHECK(c.call("GET http://Y.example/hello/you HTTP/1.1\r\nHost: y.example\r\n\r\n").status == 200);
  CHECK(c.call("GET http://elsewhere.example/hello/you HTTP/1.1\r\nHost: y\r\n\r\n").status == 400);
}

TEST_CASE("unknown query parameters are not silent", "[server]") {
  running_server f;
  client c(f.port());
  CHECK(c.call("GET /hello/you?limit=1&follow=true HTTP/1.1\r\nHost: x\r\n\r\n").status == 200);
  const reply typo = c.call("GET /hello/you?limt=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(typo.status == 400);
  CHECK(problem_of(typo)["detail"].get<std::string>().find("'limit'") != std::string::npos);
  CHECK(c.call("GET /hello/you?limit=1&limit=2 HTTP/1.1\r\nHost: x\r\n\r\n").status == 400);
  CHECK(c.call("GET /hello/you?limit=%zz HTTP/1.1\r\nHost: x\r\n\r\n").status == 400);
  CHECK(c.call("GET /fail?a HTTP/1.1\r\nHost: x\r\n\r\n").status == 400);
  CHECK(c.call("GET /split?anything=1 HTTP/1.1\r\nHost: x\r\n\r\n").status == 200);
}

TEST_CASE("a handler that throws says nothing of its inside", "[server]") {
  running_server f;
  client c(f.port());
  const reply r = c.call("GET /fail HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(r.status == 500);
  CHECK(problem_of(r)["type"] == "/problems/internal");
  CHECK(r.body.find("secret") == std::string::npos);
  CHECK(c.call(hello).status == 200);
}

TEST_CASE("request ids are taken over when they are harmless", "[server]") {
  running_server f;
  client c(f.port());
  CHECK(c.call("GET /hello/a HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc-1\r\n\r\n")
            .has("X-Request-Id: abc-1\r\n"));
  const reply made = c.call("GET /hello/a HTTP/1.1\r\nHost: x\r\nX-Request-Id: <script>\r\n\r\n");
  CHECK_FALSE(made.has("script"));
  CHECK(made.has("X-Request-Id: "));
}

TEST_CASE("no value of a handler can end a header", "[server]") {
  running_server f;
  client c(f.port());
  const reply r = c.call("GET /split?q=a%0d%0aX-Injected:%20b HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(r.has("X-Evil: a  X-Injected: b\r\n"));
}

TEST_CASE("bodies are limited before they are read", "[server]") {
  server_options options;
  options.body_bytes = 1000;
  options.event_body_bytes = 5000;
  running_server f(options);
  SECTION("a length beyond the limit") {
    client c(f.port());
    const reply r = c.call("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
    CHECK(r.status == 413);
    CHECK(r.has("Connection: close\r\n"));
    CHECK(problem_of(r)["type"] == "/problems/too_large");
  }
  SECTION("exactly the limit") {
    client c(f.port());
    CHECK(c.call(post("/echo", std::string(1000, 'b'))).body.size() == 1000);
    CHECK(c.call(post("/events", std::string(5000, 'b'))).body.size() == 5000);
    CHECK(c.call(post("/events", std::string(5001, 'b'))).status == 413);
  }
  SECTION("chunks that add up") {
    client c(f.port());
    c.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; ++i) c.send("190\r\n" + std::string(400, 'c') + "\r\n");
    CHECK(c.read_reply().status == 413);
  }
  SECTION("the client hears it although it goes on sending") {
    client c(f.port());
    c.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n");
    std::thread sender([&] { c.send(std::string(30'000'000, 'x')); });
    const reply r = c.read_reply();
    CHECK(r.status == 413);
    sender.join();
  }
  SECTION("a length that is no number") {
    for (const char* length : {"-1", "1x", "0x10", "99999999999999999999999", "1, 1", ""}) {
      INFO(length);
      client c(f.port());
      CHECK(c.call("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::string(length) + "\r\n\r\n")
                .status == 400);
      CHECK(c.closed());
    }
  }
}

TEST_CASE("all bodies together are limited", "[server]") {
  server_options options;
  options.bodies_in_memory = 100'000;
  running_server f(options);
  client first(f.port());
  first.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 80001\r\nExpect: 100-continue\r\n\r\n");
  CHECK(first.read_until("\r\n\r\n").starts_with("HTTP/1.1 100"));
  first.send(std::string(80'000, 'a'));
  // Another connection's answer shows that the server has taken the bytes above.
  for (bool refused = false; !refused;) {
    client second(f.port());
    const reply r = second.call(post("/echo", std::string(90'000, 'b')));
    refused = r.status == 503;
    if (refused) CHECK(r.has("Retry-After: 1\r\n"));
  }
  first.send("a");
  CHECK(first.read_reply().body.size() == 80'001);
  client third(f.port());
  CHECK(third.call(post("/echo", std::string(90'000, 'b'))).status == 200);
}

TEST_CASE("strangers get half of the room for bodies", "[server]") {
  server_options options;
  options.bodies_in_memory = 100'000;
  running_server f(options);
  // What the head came with counts, too.
  client first(f.port());
  first.send("POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 40001\r\n\r\n" + std::string(40'000, 'a'));
  for (bool refused = false; !refused;) {
    client second(f.port());
    refused = second.call(post("/hook", std::string(20'000, 'b'))).status == 503;
  }
  client known(f.port());
  CHECK(known.call(post("/echo", std::string(55'000, 'b'))).status == 200);
  first.send("a");
  CHECK(first.read_reply().body.size() == 40'001);
  client third(f.port());
  CHECK(third.call(post("/hook", std::string(20'000, 'b'))).status == 200);
  CHECK(third.call(post("/hook", std::string(60'000, 'b'))).status == 503);
}

TEST_CASE("a body that must be there", "[server]") {
  running_server f;
  client c(f.port());
  const reply r = c.call("POST /needs-body HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(r.status == 411);
  CHECK(c.call(post("/needs-body", "")).status == 200);
  CHECK(c.call("POST /echo HTTP/1.1\r\nHost: x\r\n\r\n").status == 200);
}

TEST_CASE("Expect: 100-continue", "[server]") {
  server_options options;
  options.body_bytes = 1000;
  running_server f(options);
  SECTION("is answered before the body is sent") {
    client c(f.port());
    c.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    CHECK(c.read_until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
    CHECK(c.call("body").body == "body");
    CHECK(c.call(hello).status == 200);
  }
  SECTION("is refused without reading the body") {
    client c(f.port());
    CHECK(c.call("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\nExpect: 100-continue\r\n\r\n")
              .status == 413);
    client lost(f.port());
    CHECK(lost.call("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
              .status == 404);
  }
  SECTION("is the only expectation") {
    client c(f.port());
    CHECK(c.call("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: tea\r\n\r\n").status == 417);
  }
}

TEST_CASE("chunked bodies", "[server]") {
  running_server f;
  const std::string start = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  SECTION("good ones, with extensions and trailers that change nothing") {
    client c(f.port());
    CHECK(c.call(start + "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\nHost: z\r\n\r\n").body == "abcde");
    CHECK(c.call(start + "0\r\n\r\n").body.empty());
    CHECK(c.call(hello).status == 200);
  }
  SECTION("bad ones") {
    for (const char* bad : {"zz\r\nabc\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-1\r\n", "ffffffffffffffffff\r\n",
                            "3 \r\nabc\r\n", "\r\n\r\n"}) {
      INFO(bad);
      client c(f.port());
      const reply r = c.call(start + bad);
      CHECK((r.status == 400 || r.status == 413));
      CHECK(r.has("Connection: close\r\n"));
    }
  }
  SECTION("an endless chunk head or trailer is cut off") {
    for (const std::string& open : {std::string("3;x="), std::string("0\r\nX-A: ")}) {
      client c(f.port());
      c.send(start + open);
      std::thread sender([&] { c.send(std::string(200'000, 'y')); });
      CHECK(c.read_reply().status >= 400);
      sender.join();
    }
  }
}

TEST_CASE("chunks arrive in single bytes", "[server]") {
  running_server f;
  client c(f.port());
  const std::string text = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nTrailer: x\r\n\r\n";
  for (int i = 0; i < 2; ++i) {
    for (const char byte : text) REQUIRE(c.send({&byte, 1}));
    CHECK(c.read_reply().body == "abc");
  }
}

TEST_CASE("messages whose end is in doubt are refused", "[server]") {
  running_server f;
  for (const char* headers :
       {"Content-Length: 3\r\nContent-Length: 3\r\n", "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: xchunked\r\n",
        "Content-Length : 3\r\n", "Host: twice\r\n"}) {
    INFO(headers);
    client c(f.port());
    const reply r = c.call("POST /echo HTTP/1.1\r\nHost: x\r\n" + std::string(headers) + "\r\nabc");
    CHECK((r.status == 400 || r.status == 501));
    CHECK(r.has("Connection: close\r\n"));
    CHECK(c.closed());
  }
}

TEST_CASE("what is no HTTP", "[server]") {
  running_server f;
  for (const char* bytes : {"\x16\x03\x01\x02\x01\x01\xfc\x03\x03\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n",
                            "GET / HTTP/1.1\nHost: x\n\n", "GET / HTTP/1.1\r\nHost x\r\n\r\n",
                            "GET / HTTP/1.1\r\n\r\n", "GET /hello/a b HTTP/1.1\r\nHost: x\r\n\r\n"}) {
    INFO(bytes);
    client c(f.port());
    const reply r = c.call(bytes);
    CHECK((r.status == 400 || r.status == 505));
    CHECK(c.closed());
  }
  client c(f.port());
  CHECK(c.call("GET / HTTP/2.0\r\nHost: x\r\n\r\n").status == 505);
}

TEST_CASE("a header that is too large", "[server]") {
  running_server f;
  client one(f.port());
  CHECK(one.call("GET /hello/you HTTP/1.1\r\nHost: x\r\nX-Big: " + std::string(20'000, 'b') + "\r\n\r\n")
            .status == 431);
  client target(f.port());
  CHECK(target.call("GET /hello/" + std::string(20'000, 'b') + " HTTP/1.1\r\nHost: x\r\n\r\n").status == 414);
  client fits(f.port());
  CHECK(fits.call("GET /hello/you HTTP/1.1\r\nHost: x\r\nX-Big: " + std::string(15'000, 'b') + "\r\n\r\n")
            .status == 200);
  client many(f.port());
  std::string headers;
  for (int i = 0; i < 3000; ++i) headers += "A" + std::to_string(i) + ": b\r\n";
  CHECK(many.call("GET /hello/you HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n").status == 431);
}

TEST_CASE("what is too large in a head is told, also when its first line came in pieces", "[server]") {
  running_server f;
  client header(f.port());
  header.send("GET /hel");
  header.send("lo/you HTTP/1.1\r\nHost: x\r\nX-Big: " + std::string(20'000, 'b'));
  CHECK(header.read_reply().status == 431);
  client target(f.port());
  target.send("GET /hel");
  target.send(std::string(20'000, 'b'));
  CHECK(target.read_reply().status == 414);
}

TEST_CASE("slow clients are not waited for", "[server]") {
  server_options options;
  options.header_timeout = 60ms;
  options.body_timeout = 60ms;
  options.idle_timeout = 60ms;
  options.linger_timeout = 60ms;
  running_server f(options);
  SECTION("that never begin") {
    client c(f.port());
    CHECK(c.closed());
  }
  SECTION("that stop within the header") {
    client c(f.port());
    const reply r = c.call("GET /hello/you HTTP/1.1\r\nHost:");
    CHECK(r.status == 408);
    CHECK(c.closed());
  }
  SECTION("that stop within the body") {
    client c(f.port());
    const reply r = c.call("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    CHECK(r.status == 408);
    CHECK(r.has("Connection: close\r\n"));
  }
  SECTION("that rest between requests") {
    client c(f.port());
    CHECK(c.call(hello).status == 200);
    CHECK(c.closed());
  }
  SECTION("that do not read their answer") {
    client c(f.port());
    c.send("GET /much HTTP/1.1\r\nHost: x\r\n\r\n");
    c.read_until("\r\n\r\n");
    while (f.connections() > 0) std::this_thread::yield();
    CHECK(c.read_all().size() < much);
  }
  SECTION("a drip of bytes does not help") {
    client c(f.port());
    std::string bytes = "GET /hello/you HTTP/1.1\r\nHost: x\r\nX: ";
    c.send(bytes);
    while (c.send("y")) std::this_thread::yield();
    CHECK(f.connections() == 0);
  }
}

TEST_CASE("a large answer reaches a slow reader whole", "[server]") {
  running_server f;
  client c(f.port());
  CHECK(c.call("GET /much HTTP/1.1\r\nHost: x\r\n\r\n").body.size() == much);
  CHECK(c.call(hello).status == 200);
}

TEST_CASE("a stream is chunked, and the connection goes on", "[server]") {
  running_server f;
  client c(f.port());
  c.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" + hello);
  const std::string head = c.read_until("\r\n\r\n");
  CHECK(head.find("Transfer-Encoding: chunked\r\n") != std::string::npos);
  CHECK(head.find("Content-Length") == std::string::npos);
  CHECK(c.read_until("0\r\n\r\n") == "6\r\npiece\n\r\n6\r\npiece\n\r\n6\r\npiece\n\r\n0\r\n\r\n");
  CHECK(c.read_reply().body == "{\"hello\":\"you\"}");
  CHECK(c.call(hello).status == 200);
}

TEST_CASE("a stream that breaks is cut, so that its client can tell", "[server]") {
  running_server f;
  client c(f.port());
  c.send("GET /broken-stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string all = c.read_all();
  CHECK(all.ends_with("6\r\nfirst\n\r\n"));
  client next(f.port());
  CHECK(next.call(hello).status == 200);
}

TEST_CASE("a client that leaves its stream or wait is noticed at once", "[server]") {
  for (const char* path : {"/endless", "/wait"}) {
    INFO(path);
    running_server f;
    client c(f.port());
    c.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    while (f.watched.open == 0) std::this_thread::yield();
    if (path == std::string("/endless")) c.read_until("piece\n\r\n");
    c.leave();
    f.watched.left.get_future().get();
    while (f.connections() > 0) std::this_thread::yield();
    CHECK(f.watched.open == 0);
  }
}

TEST_CASE("of many refusals, most come late", "[server]") {
  const std::string too_much = "GET /too-much HTTP/1.1\r\nHost: x\r\n\r\n";
  server_options options;
  SECTION("so that who comes again at once takes no time from others") {
    options.refusal_delay = 20ms;
    running_server f(options);
    client c(f.port());
    const auto began = std::chrono::steady_clock::now();
    int refused = 0;
    for (int i = 0; i < 200; ++i) refused += c.call(too_much).status == 429;
    CHECK(refused == 200);
    // In T seconds 100 + 100 T of them were prompt, and each of the others took 10 ms or more.
    CHECK(std::chrono::steady_clock::now() - began >= 490ms);
  }
  SECTION("but nobody has to wait for them") {
    options.refusal_delay = 1h;
    running_server f(options);
    client held(f.port()), other(f.port());
    for (int i = 0; i < 300; ++i) held.send(too_much);
    CHECK(other.call(hello).status == 200);
    CHECK(f.stop(10s) == 0);
    CHECK(held.read_all().ends_with("\r\n\r\n"));
  }
  SECTION("and nobody is kept from connecting") {
    options.refusal_delay = 1h;
    options.connections = 4;
    running_server f(options);
    std::vector<client> held;
    for (int i = 0; i < 3; ++i) {
      held.emplace_back(f.port());
      for (int k = 0; k < 300; ++k) held.back().send(too_much);
    }
    client last(f.port());
    for (int i = 0; i < 300; ++i) CHECK(last.call(too_much).status == 429);
    CHECK(f.stop(10s) == 0);
  }
}

TEST_CASE("a request sent behind a stream waits for its end", "[server]") {
  running_server f;
  client c(f.port());
  c.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  c.read_until("piece\n\r\n");
  c.send(hello + std::string(200'000, 'x'));  // more than is kept: the rest stays in the socket
  CHECK(f.watched.open == 1);
  CHECK(f.stop(2s) == 0);
  CHECK(c.read_all().starts_with("4\r\nbye\n\r\n0\r\n\r\n"));
}

TEST_CASE("connections beyond the limit are answered and closed", "[server]") {
  server_options options;
  options.connections = 3;
  running_server f(options);
  std::vector<client> open;
  for (int i = 0; i < 3; ++i) {
    open.emplace_back(f.port());
    CHECK(open.back().call(hello).status == 200);
  }
  client c(f.port());
  c.send(hello);
  const std::string all = c.read_all();
  CHECK(all.starts_with("HTTP/1.1 503 "));
  CHECK(all.find("Retry-After: ") != std::string::npos);
  CHECK(all.find("application/problem+json") != std::string::npos);
  CHECK(f.ask([&] { return f.http().refused_connections(); }) == 1);
  open.clear();
  while (f.connections() > 0) std::this_thread::yield();
  client again(f.port());
  CHECK(again.call(hello).status == 200);
}

TEST_CASE("ten thousand quick connections", "[server]") {
  running_server f;
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2500; ++i) {
        client c(f.port());
        if (i % 5 == 0) continue;  // connects and leaves
        if (i % 5 == 1) {
          c.send("GET /hel");  // leaves within the header
          continue;
        }
        if (i % 5 == 2) {
          c.send(hello);  // does not wait for its answer
          continue;
        }
        if (c.call(hello).status == 200) ++good;
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(good == 4000);
  while (f.connections() > 0) std::this_thread::yield();
  client c(f.port());
  CHECK(c.call(hello).status == 200);
}

TEST_CASE("requests are counted by route and status", "[server]") {
  running_server f;
  client c(f.port());
  c.call(hello);
  c.call(hello);
  c.call("GET /nowhere/at/all HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto counts = f.ask([&] { return f.http().requests(); });
  REQUIRE(counts.size() == 2);
  CHECK(counts[0].path == "/hello/{name}");
  CHECK(counts[0].requests == 2);
  CHECK(counts[1].path == "unmatched");
  CHECK(counts[1].status == 404);
}

TEST_CASE("a stop is graceful", "[server]") {
  SECTION("idle connections close at once") {
    running_server f;
    client idle(f.port()), fresh(f.port());
    idle.call(hello);
    while (f.connections() < 2) std::this_thread::yield();
    CHECK(f.stop(10s) == 0);
    CHECK(idle.closed());
    CHECK(fresh.closed());
    CHECK_THROWS(client(f.port()));
  }
  SECTION("a request under way is finished") {
    running_server f;
    client c(f.port());
    c.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    c.read_until("\r\n\r\n");
    std::thread stopper([&] { f.stop(10s); });
    const reply r = c.call("body");
    stopper.join();
    CHECK(r.body == "body");
    CHECK(c.closed());
  }
  SECTION("a stream is told, and ends properly") {
    running_server f;
    client c(f.port());
    c.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    c.read_until("piece\n\r\n");
    CHECK(f.stop(10s) == 0);
    CHECK(c.read_all() == "4\r\nbye\n\r\n0\r\n\r\n");
  }
  SECTION("a wait is answered") {
    running_server f;
    client c(f.port());
    c.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    while (f.watched.open == 0) std::this_thread::yield();
    CHECK(f.stop(10s) == 0);
    const reply r = c.read_reply();
    CHECK(r.status == 200);
    CHECK(r.has("Connection: close\r\n"));
  }
  SECTION("what does not end is cut off and counted") {
    running_server f;
    client c(f.port());
    c.send("GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n");
    while (f.watched.open == 0) std::this_thread::yield();
    CHECK(f.stop(20ms) == 1);
    CHECK(c.closed());
  }
}

TEST_CASE("who comes by a socket's file is known on each of its requests", "[server]") {
  running_server f;
  const testing::temp_dir folder;
  const std::string file = (folder.path() / "s.sock").string();
  f.ask([&] { return f.http().listen(listen_address{.path = file}).shown(); });
  client near(file), far(f.port());
  for (int i = 0; i < 2; ++i) {
    CHECK(near.call("GET /trusted HTTP/1.1\r\nHost: x\r\n\r\n").body == "yes");
    CHECK(far.call("GET /trusted HTTP/1.1\r\nHost: x\r\n\r\n").body == "no");
  }
}

TEST_CASE("a request sent just before the stop is answered", "[server]") {
  running_server f;
  client fresh(f.port());
  while (f.connections() < 1) std::this_thread::yield();
  std::thread stopper([&] { f.stop(10s); });
  const reply r = fresh.call(hello);
  stopper.join();
  CHECK(r.status == 200);
  CHECK(fresh.closed());  // said beforehand ("Connection: close") only when the stop came before the answer
}

TEST_CASE("an address that cannot be had is named", "[server]") {
  running_server f;
  asio::io_context io;
  server other(io.get_executor(), {});
  CHECK_THROWS_WITH(other.listen("127.0.0.1", f.port()), Catch::Contains(std::to_string(f.port())));
  CHECK_THROWS_WITH(other.listen("203.0.113.1", 0), Catch::Contains("203.0.113.1"));
}
