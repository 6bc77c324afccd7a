// Clients of live feeds against servers that hang up, refuse, fall silent, cut and flood. The servers are threads with
// blocking sockets that do as their script says; crashes are new sources on the same store.
#include <algorithm>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <catch2/catch.hpp>

#include "runtime/web_stream.hpp"
#include "tests/runtime/flow_bench.hpp"
#include "tests/runtime/scripted_server.hpp"
#include "tests/runtime/tls_server.hpp"

namespace test_live_feeds {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::scripted_server;
using penstock::testing::wait_for;

namespace {

namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;
using texts = std::vector<std::string>;
using socket_stream = websocket::stream<asio::ip::tcp::socket>;

struct feed_bench {
  flow_bench flow;
  asio::any_io_executor strand;
  std::unique_ptr<source> from;
  texts ids, types, faults;  // of what was read

  ~feed_bench() { end(); }

  void open(const std::string& yaml) {
    end();
    const config::dataflow definition = flow.parse("from: {" + yaml + "}\nto: drop");
    strand = asio::make_strand(flow.pool.get_executor());
    const component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(), strand};
    from = flow.components.source_of(*definition.from, context);
    wait_for(flow.pool, asio::co_spawn(strand, from->open(0), asio::use_awaitable));
  }
  void end() {
    if (from) asio::post(strand, asio::use_future([this] { from.reset(); })).get();
  }
  void on_strand(std::function<void()> call) { asio::post(strand, asio::use_future(std::move(call))).get(); }
  void acknowledge() {
    on_strand([this] { from->acknowledge(0); });
  }
  std::future<std::optional<batch>> begin_read(std::size_t most = 100) {
    return asio::co_spawn(strand, from->read(most), asio::use_future);
  }
  texts read(std::size_t count, std::size_t most = 100) {
    texts all;
    while (all.size() < count) {
      const std::optional<batch> events = begin_read(std::min(most, count - all.size())).get();
      REQUIRE(events.has_value());
      for (const event& e : events->events) {
        all.emplace_back(e.data);
        ids.emplace_back(e.id);
        types.emplace_back(e.type);
        faults.emplace_back(e.fault);
      }
    }
    CHECK(all.size() == count);
    return all;
  }
  void drain() {
    on_strand([this] { from->stop_input(); });
    CHECK_FALSE(begin_read().get().has_value());
  }
};

// Each connection is a script's; what comes when all are used up waits for ever.
class socket_server {
 public:
  using script = std::function<void(socket_stream&)>;

  explicit socket_server(std::vector<script> scripts)
      : scripts_(std::move(scripts)), acceptor_(io_, {asio::ip::address_v4::loopback(), 0}) {
    port_ = acceptor_.local_endpoint().port();
    thread_ = std::thread([this] { serve(); });
  }
  ~socket_server() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      if (now_ >= 0) ::shutdown(now_, SHUT_RDWR);
    }
    ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
    thread_.join();
  }
  std::string url() const { return "ws://127.0.0.1:" + std::to_string(port_) + "/feed?x=1"; }
  texts heads() {
    const std::lock_guard lock(mutex_);
    return heads_;
  }

 private:
  void serve() {
    for (const script& next : scripts_) {
      asio::ip::tcp::socket socket(io_);
      boost::system::error_code failure;
      acceptor_.accept(socket, failure);
      if (failure) return;
      {
        const std::lock_guard lock(mutex_);
        if (over_) return;
        now_ = socket.native_handle();
      }
      try {
        beast::flat_buffer buffer;
        beast::http::request<beast::http::string_body> asked;
        beast::http::read(socket, buffer, asked);
        socket_stream stream(std::move(socket));
        {
          const std::lock_guard lock(mutex_);
          heads_.push_back(std::string(asked.target()) + " " + std::string(asked["Host"]) + " " + std::string(asked["X-Token"]));
        }
        stream.accept(asked);
        next(stream);
        const std::lock_guard lock(mutex_);
        now_ = -1;
      } catch (const std::exception&) {  // the client has gone
        const std::lock_guard lock(mutex_);
        now_ = -1;
      }
    }
  }

  std::vector<script> scripts_;
  asio::io_context io_;
  asio::ip::tcp::acceptor acceptor_;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  texts heads_;
  int now_ = -1;
  bool over_ = false;
  std::thread thread_;
};

void say(socket_stream& to, const std::string& text) {
  to.text(true);
  to.write(asio::buffer(text));
}

std::string hear(socket_stream& from) {
  beast::flat_buffer buffer;
  from.read(buffer);
  return beast::buffers_to_string(buffer.data());
}

void wait_for_end(socket_stream& of) {
  beast::flat_buffer buffer;
  boost::system::error_code failure;
  while (!failure) of.read(buffer, failure);
}

std::string websocket_yaml(const std::string& url, const std::string& more = {}) {
  return "websocket: {url: '" + url + "', reconnect: 1ms..20ms" + more + "}";
}

std::string sse_yaml(const std::string& url, const std::string& more = {}) {
  return "sse: {url: '" + url + "', reconnect: 1ms..20ms" + more + "}";
}

// Why a connection is not made; empty: it is.
std::string why_not(const std::string& url, const std::string& scheme) {
  asio::thread_pool pool{1};
  blocking_pool blocking{1};
  web_stream stream(asio::make_strand(pool.get_executor()), blocking);
  const web_url to = parse_web_url(url, scheme, url);
  auto connected = asio::co_spawn(stream.get_executor(), stream.connect(to, std::chrono::seconds{20}), asio::use_future);
  pool.join();
  try {
    connected.get();
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return {};
}

std::string feed(const std::string& events) { return "200 OK\r\nContent-Type: text/event-stream\n\n" + events; }

}  // namespace

TEST_CASE("messages of a WebSocket become events, over connections that end", "[feed][websocket]") {
  std::mutex mutex;
  texts heard;
  const auto greeted = [&](socket_stream& s) {
    for (int i = 0; i < 2; ++i) {
      std::string text = hear(s);
      const std::lock_guard lock(mutex);
      heard.push_back(std::move(text));
    }
  };
  socket_server server({[&](socket_stream& s) {
                          greeted(s);
                          say(s, "{\"n\":1}");
                          say(s, "not json");
                          s.close({websocket::close_code::service_restart, "again"});
                        },
                        [&](socket_stream& s) {
                          greeted(s);
                          say(s, "{\"n\":2}");
                        },  // and hangs up
                        [&](socket_stream& s) {
                          greeted(s);
                          s.binary(true);
                          s.write(asio::buffer(std::string("{\"n\":3}")));
                          wait_for_end(s);
                        }});
  feed_bench b;
  b.open(websocket_yaml(server.url(), ", send: [{subscribe: prices}, hello], headers: {X-Token: t}"));
  CHECK(b.read(4) == texts{"{\"n\":1}", "not json", "{\"n\":2}", "{\"n\":3}"});
  b.drain();
  const std::lock_guard lock(mutex);
  CHECK(heard.size() == 6);
  CHECK(heard.at(0) == "{\"subscribe\":\"prices\"}");
  CHECK(heard.at(1) == "hello");
  const texts heads = server.heads();
  REQUIRE(heads.size() == 3);
  CHECK_THAT(heads[0], Contains("/feed?x=1 127.0.0.1:") && Contains(" t"));
  CHECK(b.ids.at(0).size() == 26);
}

TEST_CASE("a message that is too long has a fault instead of data, and its neighbours are whole", "[feed][websocket]") {
  socket_server server({[](socket_stream& s) {
    say(s, "1");
    say(s, std::string(300'000, 'x'));
    s.auto_fragment(true);
    s.write_buffer_bytes(16);
    say(s, std::string(1001, 'y'));
    say(s, std::string(1000, 'z'));
    wait_for_end(s);
  }});
  feed_bench b;
  b.open(websocket_yaml(server.url(), ", max_message: 1000B, format: text"));
  CHECK(b.read(4) == texts{"1", "", "", std::string(1000, 'z')});
  CHECK(b.faults == texts{"", "the message is longer than 1kB (max_message)", "the message is longer than 1kB (max_message)", ""});
}

TEST_CASE("a silent server is asked for a sign of life, and left when it gives none", "[feed][websocket]") {
  socket_server server({[](socket_stream& s) {
                          say(s, "1");
                          boost::system::error_code failure;  // reads as bytes, so pings are not answered
                          char bytes[100];
                          while (!failure) s.next_layer().read_some(asio::buffer(bytes), failure);
                        },
                        [](socket_stream& s) {
                          int pings = 0;
                          s.control_callback([&](websocket::frame_type kind, beast::string_view) {
                            if (kind == websocket::frame_type::ping && ++pings == 2) say(s, "2");
                          });
                          wait_for_end(s);
                        }});
  feed_bench b;
  b.open(websocket_yaml(server.url(), ", idle: 500ms"));
  CHECK(b.read(2) == texts{"1", "2"});
  CHECK(server.heads().size() == 2);
}

TEST_CASE("a full buffer is not read on, and nothing is lost by that", "[feed][websocket]") {
  constexpr int many = 5000;
  socket_server server({[](socket_stream& s) {
    for (int n = 0; n < many; ++n) say(s, std::to_string(n) + std::string(5000, ' '));
    wait_for_end(s);
  }});
  feed_bench b;
  b.open(websocket_yaml(server.url(), ", idle: 2s"));
  for (int n = 0; n < many; n += 50) {
    const texts some = b.read(50, 50);
    for (int i = 0; i < 50; ++i) REQUIRE(std::stoi(some[static_cast<std::size_t>(i)]) == n + i);
  }
  CHECK(server.heads().size() == 1);
}

TEST_CASE("a refusal that needs a person fails, a passing one is tried again", "[feed]") {
  feed_bench b;
  for (const char* wrong : {"401 Who", "404 Where", "302 Found", "204 No Content", "200 OK\r\nContent-Type: text/html\n\nx"}) {
    INFO(wrong);
    scripted_server server({wrong});
    b.open(sse_yaml(server.url("/in?token=secret")));
    CHECK_THROWS_WITH(b.begin_read().get(), Contains(server.url()) && !Contains("secret"));
  }
  scripted_server forbidden({"403 No"});
  b.open(websocket_yaml("ws" + forbidden.url().substr(4)));
  CHECK_THROWS_WITH(b.begin_read().get(), Contains("403"));
  scripted_server busy({"503 Busy", "429 Slow down", "hang up", feed("data: 1\n\n")});
  b.open(sse_yaml(busy.url()));
  CHECK(b.read(1) == texts{"1"});
  const auto refusal = [&b](const std::string& from) {
    const auto put = config::parse_pipeline("name: a\nflows: {f: {from: " + from + ", to: drop}}", b.flow.components.catalog());
    REQUIRE_FALSE(put.has_value());
    return config::describe(put.error().problems.at(0), "a");
  };
  CHECK_THAT(refusal("{sse: 'ftp://x'}"), Contains("http://"));
  CHECK_THAT(refusal("{websocket: 'http://x'}"), Contains("ws://"));
}

TEST_CASE("what waits can be stopped: for a message, for an answer, for the next attempt", "[feed]") {
  feed_bench b;
  scripted_server silent({"silence", "silence"});
  for (const std::string& yaml : {sse_yaml(silent.url()), websocket_yaml("ws" + silent.url().substr(4)),
                                  std::string("sse: {url: 'http://127.0.0.1:1', reconnect: 1h}")}) {
    b.open(yaml);
    auto read = b.begin_read();
    b.on_strand([&] { b.from->stop_input(); });
    CHECK_FALSE(read.get().has_value());
  }
}

TEST_CASE("events of a server go on after the last one that is safe", "[feed][sse]") {
  scripted_server server({feed(": hello\n\nid: 1\nevent: price\ndata: {\"n\":1}\n\ndata: {\"n\":2}\n\nid: 3\ndata: {\"n\":3}\n\ndata: cut"),
                          feed("id: 4\ndata: {\"n\":4}\n\n"), "silence"});
  feed_bench b;
  b.open(sse_yaml(server.url()));
  CHECK(b.read(2, 2) == texts{"{\"n\":1}", "{\"n\":2}"});
  CHECK(b.types == texts{"price", "event"});
  CHECK(b.ids[0] == "1");
  CHECK(b.ids[1].size() == 26);
  b.acknowledge();
  CHECK(b.read(2, 2) == texts{"{\"n\":3}", "{\"n\":4}"});  // not acknowledged
  b.end();
  texts asked = server.requests();
  REQUIRE(asked.size() >= 2);
  CHECK_THAT(asked[0], !Contains("Last-Event-ID") && Contains("Accept: text/event-stream"));
  CHECK_THAT(asked[1], Contains("Last-Event-ID: 3\r\n"));

  scripted_server later({feed("id: 9\ndata: 9\n\n"), "silence"});
  b.open(sse_yaml(later.url()));  // another one: it is not
  CHECK(b.read(1) == texts{"9"});
  b.acknowledge();
  b.drain();
  CHECK_THAT(later.requests().at(0), !Contains("Last-Event-ID"));
}

TEST_CASE("only events of the wanted names are taken, and the others do not come again", "[feed][sse]") {
  scripted_server server({feed("data: 1\n\nevent: note\ndata: 2\n\nid: 7\nevent: gap\ndata: 3\n\n"),
                          feed("event: note\ndata: 4\n\n")});
  feed_bench b;
  b.open(sse_yaml(server.url(), ", events: [message, note]"));
  CHECK(b.read(3) == texts{"1", "2", "4"});
  CHECK_THAT(server.requests().at(1), Contains("Last-Event-ID: 7\r\n"));
}

TEST_CASE("an id is stored once its event is safe, also at a drain", "[feed][sse]") {
  scripted_server server({feed("id: a\ndata: 1\n\nid: b\ndata: 2\n\n")});
  feed_bench b;
  b.open("sse: {url: '" + server.url() + "', reconnect: 1h}");
  CHECK(b.read(1, 1) == texts{"1"});
  b.acknowledge();
  CHECK(b.read(1, 1) == texts{"2"});
  b.acknowledge();
  b.drain();
  CHECK(b.flow.flows.find_state("test/flow/f/sse", server.url(), "last_id") == "b");
}

TEST_CASE("an event that is too long keeps its place, id and name", "[feed][sse]") {
  const std::string big(2000, 'x');
  scripted_server server({feed("id: 1\nevent: note\ndata: 1\n\nid: 2\nevent: other\ndata: " + big + "\n\n: " + big +
                               "\nid: 3\nevent: note\ndata: " + big + "\n\nid: 4\nevent: note\ndata: 4\n\n")});
  feed_bench b;
  b.open("sse: {url: '" + server.url() + "', reconnect: 1h, events: note, max_message: 1000B}");
  CHECK(b.read(2, 2) == texts{"1", ""});
  b.acknowledge();
  CHECK(b.read(1) == texts{"4"});
  CHECK(b.flow.flows.find_state("test/flow/f/sse", server.url(), "last_id") == "3");
  CHECK(b.ids == texts{"1", "3", "4"});
  CHECK(b.types == texts{"note", "note", "note"});
  CHECK(b.faults == texts{"", "the message is longer than 1kB (max_message)", ""});
}

TEST_CASE("a server may ask for any pause", "[feed][sse]") {
  scripted_server server({feed("retry: 9223372036854775807\ndata: 1\n\nretry: 0\n\n"), feed("data: 2\n\nretry: 9223372036854775807\n\n")});
  feed_bench b;
  b.open(sse_yaml(server.url()));
  CHECK(b.read(2) == texts{"1", "2"});
  auto read = b.begin_read();
  b.on_strand([&] { b.from->stop_input(); });
  CHECK_FALSE(read.get().has_value());
}

TEST_CASE("secrets are filled in within messages, too", "[feed][websocket]") {
  ::setenv("PENSTOCK_TEST_TOKEN", "s\"3", 1);
  std::promise<std::string> heard;
  socket_server server({[&](socket_stream& s) {
    const std::string first = hear(s);
    heard.set_value(first + hear(s));
    wait_for_end(s);
  }});
  feed_bench b;
  b.open(websocket_yaml(server.url(), ", send: [{auth: ['${env:PENSTOCK_TEST_TOKEN}', 7]}, '${env:PENSTOCK_TEST_TOKEN}']"));
  CHECK(heard.get_future().get() == "{\"auth\":[\"s\\\"3\",7]}s\"3");
}

TEST_CASE("a name that takes long to look up holds up nobody", "[feed]") {
  std::promise<void> release;
  blocking_pool blocking{1};
  blocking.submit([over = release.get_future().share()] { over.wait(); });  // so nothing is looked up
  {
    asio::thread_pool pool{1};
    const web_url to = parse_web_url("ws://localhost:1", "ws", "U");
    web_stream hasty(asio::make_strand(pool.get_executor()), blocking), closed(asio::make_strand(pool.get_executor()), blocking);
    auto late = asio::co_spawn(hasty.get_executor(), hasty.connect(to, std::chrono::milliseconds{5}), asio::use_future);
    auto given_up = asio::co_spawn(closed.get_executor(), closed.connect(to, std::chrono::hours{1}), asio::use_future);
    asio::post(closed.get_executor(), [&closed] { closed.close(); });
    CHECK_THROWS_WITH(late.get(), Contains("in time"));
    CHECK_THROWS_WITH(given_up.get(), "closed");
    pool.join();
  }
  release.set_value();  // and what asked is not there any more
}

TEST_CASE("a server is trusted when its certificate is of a known authority and has its name", "[feed][tls]") {
  const auto here = testing::make_certificate("DNS:localhost"), elsewhere = testing::make_certificate("DNS:example.com,IP:127.0.0.2");
  const testing::temp_dir dir;
  std::ofstream(dir / "known.pem") << here.text << elsewhere.text;
  testing::tls_server server(here), other(elsewhere);
  CHECK_THAT(why_not(server.url("https", "localhost"), "http"), Contains("certificate is refused: self") && Contains("signed"));
  const testing::trusted_file trusted((dir / "known.pem").string());
  CHECK(why_not(server.url("https", "localhost"), "http") == "");
  CHECK_THAT(why_not(server.url("wss", "127.0.0.1"), "ws"), Contains("certificate is refused: IP address mismatch"));
  CHECK_THAT(why_not(other.url("wss", "localhost"), "ws"), Contains("certificate is refused: ") && Contains("ostname mismatch"));
  CHECK_THAT(why_not(other.url("wss", "127.0.0.1"), "ws"), Contains("certificate is refused: IP address mismatch"));
  feed_bench b;
  b.open(sse_yaml(server.url("https", "localhost")));
  CHECK(b.read(1) == texts{"1"});
  b.open(websocket_yaml(server.url("wss", "localhost")));
  CHECK(b.read(1) == texts{"2"});
}

}  // namespace test_live_feeds
