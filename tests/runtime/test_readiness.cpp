// Readiness against servers that answer, refuse, stay silent or never end, and against programs. Check and server share
// one io_context that the test turns itself; only libcurl's thread is another.
#include <chrono>
#include <fstream>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>
#include <catch2/catch.hpp>

#include "runtime/process.hpp"
#include "runtime/readiness.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_readiness {

using namespace penstock;
using namespace penstock::runtime;
using namespace std::chrono_literals;
using asio::ip::tcp;
using Catch::Matchers::Contains;

namespace {

// Gives each connection the next of its answers, as raw text, the last one again and again; nothing: silence. What it is
// serving is shared with its coroutine: a connection may still be open when the server goes.
class server {
 public:
  server(asio::io_context& io, std::vector<std::optional<std::string>> answers)
      : desk_(std::make_shared<desk>(io, std::move(answers))) {
    asio::co_spawn(io, serve(desk_), asio::detached);
  }
  ~server() { desk_->acceptor.close(); }
  std::string place() const { return "127.0.0.1:" + std::to_string(desk_->acceptor.local_endpoint().port()); }
  int asked() const { return desk_->asked; }
  const std::string& request() const { return desk_->request; }  // the last one's beginning

 private:
  struct desk {
    desk(asio::io_context& io, std::vector<std::optional<std::string>> its_answers)
        : answers(std::move(its_answers)), acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {}
    const std::vector<std::optional<std::string>> answers;
    tcp::acceptor acceptor;
    std::vector<tcp::socket> silent;
    int asked = 0;
    std::string request;
  };

  static asio::awaitable<void> serve(std::shared_ptr<desk> own) {
    const auto token = asio::as_tuple(asio::use_awaitable);
    for (;;) {
      auto [failed, socket] = co_await own->acceptor.async_accept(token);
      if (failed) co_return;
      const auto answer = own->answers[std::min(static_cast<std::size_t>(own->asked++), own->answers.size() - 1)];
      char bytes[1000];
      const auto buffer = asio::buffer(bytes);
      const auto [unread, size] = co_await socket.async_read_some(buffer, token);
      own->request.assign(bytes, size);
      if (answer) {
        const auto text = asio::buffer(*answer);
        co_await asio::async_write(socket, text, token);
      } else {
        own->silent.push_back(std::move(socket));
      }
    }
  }

  const std::shared_ptr<desk> desk_;
};

std::string status(int code) { return "HTTP/1.1 " + std::to_string(code) + " X\r\nContent-Length: 0\r\n\r\n"; }

struct bench {
  asio::io_context io;  // first: threads of `world` use it until they are joined
  testing::flow_bench world;
  std::optional<readiness_check> check;

  bench() {
    adopt_orphans();
    std::filesystem::create_directories(world.dir / "work");
  }
  ~bench() {
    check.reset();
    turn();
    CHECK((::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD));
  }

  command_options command() {
    command_options options;
    options.definition.run = {"/bin/false"};
    options.definition.environment = {{"OWN", "yes"}};
    options.pipeline = "p";
    options.consumer = "p/flow/f";
    options.workdir = world.dir / "work";
    options.environment = {{"PATH", "/usr/bin:/bin"}, {"PENSTOCK_FLOW", "f"}};
    options.log = world.dir / "logs" / "f.log";
    options.continuous = true;
    return options;
  }
  readiness_check& make(config::readiness_probe probe, nanoseconds interval = 20s, nanoseconds timeout = 60s) {
    probe.interval = interval;
    probe.timeout = timeout;
    readiness_surroundings around{world.components, world.offered, asio::make_strand(world.pool),
                                  [this] { return command(); }};
    check.emplace(io.get_executor(), std::move(probe), std::move(around));
    return *check;
  }
  readiness_check& make_http(const std::string& url, nanoseconds interval = 20s, nanoseconds timeout = 60s) {
    return make({.http = url, .tcp = {}, .run = {}}, interval, timeout);
  }
  readiness_check& make_tcp(const std::string& place) { return make({.http = {}, .tcp = place, .run = {}}); }
  readiness_check& make_run(const std::string& script, nanoseconds interval = 20s, nanoseconds timeout = 60s) {
    return make({.http = {}, .tcp = {}, .run = {"/bin/sh", "-c", script}}, interval, timeout);
  }

  template <class T>
  std::future<T> start(asio::awaitable<T> work) {
    return asio::co_spawn(io, std::move(work), asio::use_future);
  }
  template <class T>
  T wait(std::future<T> f) {
    while (f.wait_for(0s) != std::future_status::ready) {
      io.restart();
      io.run_one_for(10s);
    }
    return f.get();
  }
  void turn() {
    do {
      io.restart();
    } while (io.poll() > 0);
  }
  std::string once() { return wait(start(check->probe_once())); }
  bool until_ready() { return wait(start(check->until_ready())); }
};

std::string free_place(asio::io_context& io) {
  tcp::acceptor taken(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  return "127.0.0.1:" + std::to_string(taken.local_endpoint().port());
}

}  // namespace

TEST_CASE("readiness: TCP", "[readiness]") {
  bench b;
  server s(b.io, {std::nullopt});
  b.make_tcp(s.place());
  CHECK(b.once() == "");
  CHECK(b.until_ready());
  b.make_tcp("localhost" + s.place().substr(s.place().find(':')));
  CHECK(b.once() == "");
  b.make_tcp(free_place(b.io));
  CHECK(b.once() == "connection refused");
  CHECK(b.check->failure() == "connection refused");
  b.make_tcp("[::1]" + free_place(b.io).substr(9));
  CHECK_THAT(b.once(), Contains("refused") || Contains("assign") || Contains("unreachable"));
  b.make_tcp("no-such-host.invalid:80");
  CHECK_THAT(b.once(), Contains("resolve host"));
}

TEST_CASE("readiness: HTTP statuses", "[readiness]") {
  bench b;
  for (const int code : {200, 204, 299, 302, 399}) {
    server s(b.io, {status(code)});
    b.make_http("http://" + s.place() + "/healthz?x=1");
    CHECK(b.once() == "");
    CHECK(s.asked() == 1);  // no redirect is followed
    CHECK_THAT(s.request(), Catch::Matchers::StartsWith("GET /healthz?x=1 HTTP/1.1\r\n"));
  }
  for (const int code : {400, 404, 500, 503}) {
    server s(b.io, {status(code)});
    b.make_http("http://" + s.place() + "/");
    CHECK(b.once() == "HTTP " + std::to_string(code));
  }
}

TEST_CASE("readiness: HTTP answers of other kinds", "[readiness]") {
  bench b;
  const auto answered = [&](const std::string& raw) {
    server s(b.io, {raw});
    b.make_http("http://" + s.place() + "/");
    return b.once();
  };
  CHECK(answered("HTTP/1.1 100 Continue\r\n\r\n" + status(200)) == "");
  CHECK(answered("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + status(503)) == "HTTP 503");
  CHECK(answered("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nand no more") == "");
  CHECK(answered("HTTP/1.0 200 OK\r\n\r\n") == "");
  CHECK_FALSE(answered("").empty());
  CHECK_FALSE(answered("SSH-2.0-OpenSSH_9.2\r\n").empty());
  CHECK_FALSE(answered("HTTP/1.1 200 OK\r\nContent-").empty());

  b.make_http("http://" + free_place(b.io) + "/");
  CHECK(b.once() == "connection refused");
  b.make_http("ftp://127.0.0.1/");
  CHECK_FALSE(b.once().empty());
  {
    server s(b.io, {status(200)});
    b.make_http("https://" + s.place() + "/");
    CHECK_THAT(b.once(), Contains("SSL"));
  }
}

TEST_CASE("readiness: silence is no answer", "[readiness]") {
  bench b;
  server s(b.io, {std::nullopt});
  b.make_http("http://" + s.place() + "/", 50ms);
  CHECK(b.once() == "no answer within 50ms");
  CHECK(b.once() == "no answer within 50ms");
  b.make_http("http://" + s.place() + "/", 50ms, 200ms);
  CHECK_FALSE(b.until_ready());
  CHECK(b.check->failure() == "no answer within 50ms");
}

TEST_CASE("readiness: a busy blocking pool is no answer, and nothing is left behind", "[readiness]") {
  bench b;
  std::promise<void> go;
  const auto held = go.get_future().share();
  for (int i = 0; i < 4; ++i) b.world.blocking.submit([held] { held.wait(); });
  server s(b.io, {status(200)});
  b.make_http("http://" + s.place() + "/", 50ms, 300ms);
  CHECK_FALSE(b.until_ready());
  CHECK(b.check->failure() == "no answer within 50ms");
  CHECK(s.asked() == 0);
  go.set_value();
  CHECK(b.make_http("http://" + s.place() + "/").failure().empty());
  CHECK(b.once() == "");
}

TEST_CASE("readiness: a program", "[readiness]") {
  bench b;
  b.make_run("exit 0");
  CHECK(b.once() == "");
  b.make_run("exit 1");
  CHECK(b.once() == "exit code 1");
  b.make_run("sleep 1000 & sleep 1000", 50ms);
  CHECK(b.once() == "no answer within 50ms");
  b.make({.http = {}, .tcp = {}, .run = {"/no/such/program"}});
  CHECK_THAT(b.once(), Contains("/no/such/program"));

  b.make_run("test \"$OWN\" = yes && test \"$PENSTOCK_TASK\" = ready && test $PWD -ef " +
             (b.world.dir / "work").string() + " && echo hello");
  CHECK(b.once() == "");
  CHECK_THAT(b.world.file_text("logs/f.ready.log"), Contains(" o hello\n"));
  CHECK_FALSE(std::filesystem::exists(b.world.dir / "logs" / "f.log"));
}

TEST_CASE("readiness: it is tried until it is ready", "[readiness]") {
  bench b;
  SECTION("HTTP") {
    server s(b.io, {"", status(503), status(503), status(200)});
    b.make_http("http://" + s.place() + "/", 100ms);
    const auto before = std::chrono::steady_clock::now();
    CHECK(b.until_ready());
    CHECK(s.asked() == 4);
    CHECK(std::chrono::steady_clock::now() - before >= 300ms);  // not faster than `interval`
    CHECK(b.check->failure().empty());
  }
  SECTION("a program") {
    b.make_run("echo x >> tries; test $(wc -l < tries) -ge 3", 200ms);
    CHECK(b.until_ready());
    CHECK(b.world.file_text("work/tries") == "x\nx\nx\n");
  }
}

TEST_CASE("readiness: not within its timeout", "[readiness]") {
  bench b;
  server s(b.io, {status(503)});
  b.make_http("http://" + s.place() + "/", 20ms, 100ms);
  CHECK_FALSE(b.until_ready());
  CHECK(b.check->failure() == "HTTP 503");
  CHECK(s.asked() >= 2);
  b.make_run("exit 7", 20ms, 60ms);
  CHECK_FALSE(b.until_ready());
  CHECK(b.check->failure() == "exit code 7");
}

TEST_CASE("readiness: a stop ends whatever it waits for", "[readiness]") {
  bench b;
  // None of these would end by itself while the test runs.
  const auto stop_when = [&](auto reached) {
    auto ended = b.start(b.check->until_ready());
    while (!reached()) {
      b.io.restart();
      b.io.run_one_for(10s);
    }
    b.check->stop();
    CHECK_FALSE(b.wait(std::move(ended)));
    CHECK(b.check->failure() == "stopped");
    CHECK_FALSE(b.until_ready());
    CHECK(b.once() == "stopped");
  };
  SECTION("a request") {
    server s(b.io, {std::nullopt});
    b.make_http("http://" + s.place() + "/", 1h, 2h);
    stop_when([&] { return s.asked() == 1; });
  }
  SECTION("the time between two tries") {
    server s(b.io, {status(503)});
    b.make_http("http://" + s.place() + "/", 1h, 2h);
    stop_when([&] { return b.check->failure() == "HTTP 503"; });
  }
  SECTION("a program") {
    const auto here = b.world.dir / "work" / "here";
    REQUIRE(::mkfifo(here.c_str(), 0600) == 0);
    b.make_run("echo here > here; exec sleep 1000", 1h, 2h);
    stop_when([&] {
      b.turn();
      std::string line;
      return static_cast<bool>(std::getline(std::ifstream(here), line));  // waits for its writer
    });
  }
  SECTION("before it has begun") {
    b.make_run("exit 0");
    b.check->stop();
    CHECK_FALSE(b.until_ready());
    CHECK(b.once() == "stopped");
  }
  SECTION("by the end of the check itself") {
    server s(b.io, {std::nullopt});
    b.make_http("http://" + s.place() + "/", 1h, 2h);
    auto ended = b.start(b.check->until_ready());
    while (s.asked() == 0) b.io.run_one_for(10s);
    b.check.reset();
    CHECK_FALSE(b.wait(std::move(ended)));
  }
}

TEST_CASE("readiness: the executor may end while a try hangs", "[readiness]") {
  testing::flow_bench world;
  for (int i = 0; i < 20; ++i) {
    asio::io_context io;
    server s(io, {std::nullopt});
    readiness_surroundings around{world.components, world.offered, asio::make_strand(world.pool), {}};
    readiness_check check(io.get_executor(),
                          {.http = "http://" + s.place(), .tcp = {}, .run = {}, .interval = 1h, .timeout = 1h},
                          std::move(around));
    asio::co_spawn(io, check.until_ready(), asio::detached);
    while (s.asked() == 0) io.run_one_for(10s);
  }
}

}  // namespace test_readiness
