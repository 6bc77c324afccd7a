// from: lines and to: tcp against senders and receivers that are many, slow, rude or gone. Senders are plain sockets of the
// test's own thread.
#include <arpa/inet.h>
#include <filesystem>
#include <functional>
#include <future>
#include <netinet/in.h>
#include <signal.h>
#include <string>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "runtime/line_input.hpp"
#include "runtime/socket_address.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_socket_lines {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::wait_for;

namespace {

using texts = std::vector<std::string>;

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A port that was free a moment ago.
int free_port(int type = SOCK_STREAM) {
  const unique_fd probe(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  REQUIRE(::bind(probe.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin_port);
}

unique_fd dial(int port, int type = SOCK_STREAM) {
  unique_fd made(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  REQUIRE(::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return made;
}

unique_fd dial(const std::filesystem::path& path) {
  unique_fd made(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.native().copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return made;
}

void say(const unique_fd& to, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::send(to.get(), text.data(), text.size(), MSG_NOSIGNAL);
    REQUIRE(sent > 0);
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
}

void reset(unique_fd& one) {  // RST instead of FIN
  const linger now{1, 0};
  ::setsockopt(one.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  one = unique_fd();
}

struct source_bench {
  flow_bench flow;
  int port = free_port();
  asio::any_io_executor strand = asio::make_strand(flow.pool.get_executor());
  std::unique_ptr<source> from;
  std::vector<lost_line> lost;  // of what was read

  ~source_bench() { end(); }

  void open(const std::string& settings) {
    const config::dataflow definition = flow.parse("from: {lines: {" + settings + "}}\nto: drop");
    const component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(), strand};
    from = flow.components.source_of(*definition.from, context);
    asio::co_spawn(strand, from->open(0), asio::use_future).get();
  }
  void open_tcp(const std::string& more = "") { open("listen: '127.0.0.1:" + std::to_string(port) + "'" + more); }
  void end() {
    if (from) on_strand([this] { from.reset(); });
  }
  void on_strand(std::function<void()> call) { asio::post(strand, asio::use_future(std::move(call))).get(); }

  texts read_once(std::size_t most = 100) {
    const std::optional<batch> events = asio::co_spawn(strand, from->read(most), asio::use_future).get();
    REQUIRE(events);
    CHECK(events->size() <= most);
    texts all;
    sort_out(*events, all);
    return all;
  }
  void sort_out(const batch& events, texts& good) {
    for (const event& e : events.events) {
      good.insert(good.end(), e.fault.empty() ? 1 : 0, std::string(e.data));
      if (!e.fault.empty()) lost.push_back({std::string(e.data), std::string(e.fault)});
    }
  }
  texts read(std::size_t count, std::size_t most = 100) {
    texts all;
    while (all.size() < count) {
      for (std::string& text : read_once(most)) all.push_back(std::move(text));
    }
    CHECK(all.size() == count);
    return all;
  }
  // What comes after a stop, to the end.
  texts drain() {
    on_strand([this] { from->stop_input(); });
    texts all;
    while (const std::optional<batch> events = asio::co_spawn(strand, from->read(100), asio::use_future).get()) {
      sort_out(*events, all);
    }
    return all;
  }
};

// A peer of the sink: takes connections, reads lines, closes when told.
class peer {
 public:
  explicit peer(int port = 0) {
    listener_ = unique_fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address = loopback(port);
    socklen_t size = sizeof address;
    REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener_.get(), 8) == 0);
    REQUIRE(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  unique_fd accept() const { return unique_fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }
  static std::string read_to_end(const unique_fd& from) {
    std::string all;
    char bytes[4096];
    for (ssize_t got = 0; (got = ::recv(from.get(), bytes, sizeof bytes, 0)) > 0;) all.append(bytes, static_cast<std::size_t>(got));
    return all;
  }
  static std::string read_lines(const unique_fd& from, int count) {
    std::string all;
    for (char c = 0; count > 0 && ::recv(from.get(), &c, 1, 0) == 1;) {
      all += c;
      count -= c == '\n' ? 1 : 0;
    }
    return all;
  }

 private:
  unique_fd listener_;
  int port_ = 0;
};

}  // namespace

TEST_CASE("lines of many connections, each in its order", "[lines]") {
  source_bench b;
  b.open_tcp();
  std::vector<unique_fd> senders;
  for (int i = 0; i < 50; ++i) senders.push_back(dial(b.port));
  for (int line = 0; line < 20; ++line) {
    for (std::size_t i = 0; i < senders.size(); ++i) say(senders[i], "[" + std::to_string(i) + "," + std::to_string(line) + "]\n");
  }
  std::vector<int> next(senders.size(), 0);
  for (const std::string& text : b.read(1000, 64)) {
    const auto pair = nlohmann::json::parse(text);
    CHECK(pair[1] == next.at(pair[0].get<std::size_t>())++);
  }
  CHECK(b.drain().empty());
}

TEST_CASE("one who sends much does not keep others waiting", "[lines]") {
  source_bench b;
  b.open_tcp();
  const unique_fd greedy = dial(b.port), modest = dial(b.port);
  std::string flood;
  for (int i = 0; i < 20'000; ++i) flood += "1\n";
  say(greedy, flood);
  CHECK(b.read_once(10) == texts(10, "1"));
  say(modest, "2\n");
  int before = 0;
  for (bool found = false; !found;) {
    for (const std::string& text : b.read_once(100)) {
      found = found || text == "2";
      before += found ? 0 : 1;
    }
  }
  CHECK(before < 15'000);  // the rest of the flood has to wait
}

TEST_CASE("the end of a connection, in all its ways", "[lines]") {
  source_bench b;
  b.open_tcp(", format: text");
  {
    const unique_fd whole = dial(b.port);
    say(whole, "a\r\nb");
  }
  CHECK(b.read(2) == texts{"a", "b"});  // closed in order: the last line is whole
  unique_fd torn = dial(b.port);
  say(torn, "c\nd");
  CHECK(b.read(1) == texts{"c"});
  reset(torn);
  const unique_fd after = dial(b.port);
  say(after, "e\n");
  CHECK(b.read(1) == texts{"e"});
  while (b.lost.empty()) {  // its turn comes with another read
    say(after, "f\n");
    CHECK(b.read(1) == texts{"f"});
  }
  REQUIRE(b.lost.size() == 1);
  CHECK(b.lost[0].begin == "d");
  CHECK_THAT(b.lost[0].reason, Contains("connection broke"));
}

TEST_CASE("a line that is too long is a dead letter, the next one is not", "[lines]") {
  source_bench b;
  b.open_tcp(", max_line: 1KiB");
  const unique_fd sender = dial(b.port);
  say(sender, "1\n" + std::string(300'000, '7') + "\n2\n");
  CHECK(b.read(2) == texts{"1", "2"});
  REQUIRE(b.lost.size() == 1);
  CHECK_THAT(b.lost[0].reason, Contains("max_line"));
}

TEST_CASE("what has arrived by the stop is taken, then all is closed", "[lines]") {
  source_bench b;
  b.open_tcp();
  const unique_fd known = dial(b.port);
  say(known, "1\n");
  CHECK(b.read(1) == texts{"1"});
  std::string more;
  for (int i = 0; i < 10'000; ++i) more += "2\n";
  say(known, more + "{\"torn\":");
  const unique_fd unknown = dial(b.port);  // not accepted yet
  say(unknown, "3\n4");
  ::shutdown(unknown.get(), SHUT_WR);
  texts all = b.drain();
  std::sort(all.begin(), all.end());
  REQUIRE(all.size() == 10'002);
  CHECK(all[9'999] == "2");
  CHECK(all[10'000] == "3");
  CHECK(all[10'001] == "4");
  char byte = 0;
  CHECK(::recv(known.get(), &byte, 1, 0) <= 0);
  b.end();
  b.open_tcp();  // the port is free again
}

TEST_CASE("a sender stands still while nobody reads", "[lines]") {
  source_bench b;
  b.open_tcp();
  const unique_fd sender = dial(b.port);
  const std::string block(64 * 1024, '1');
  std::size_t sent = 0;
  for (int full = 0; full < 3 && sent < (std::size_t{256} << 20);) {
    const ssize_t put = ::send(sender.get(), block.data(), block.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put > 0) sent += static_cast<std::size_t>(put);
    full += put < 0 ? 1 : 0;
  }
  CHECK(sent < (std::size_t{64} << 20));
}

TEST_CASE("connections over the limit wait for their turn, idle ones are closed", "[lines]") {
  source_bench b;
  b.open_tcp(", max_connections: 2, idle: 50ms");
  const unique_fd one = dial(b.port), two = dial(b.port), three = dial(b.port);
  say(three, "3\n");
  CHECK(b.read(1) == texts{"3"});  // once the first two were idle too long
  char byte = 0;
  CHECK(::recv(one.get(), &byte, 1, 0) == 0);
  CHECK(::recv(two.get(), &byte, 1, 0) == 0);
}

TEST_CASE("lost lines count towards a batch", "[lines]") {
  source_bench b;
  b.open_tcp(", max_line: 1B, idle: 50ms");
  const unique_fd first = dial(b.port), second = dial(b.port);
  for (const unique_fd* sender : {&first, &second}) {
    std::string text;
    for (int i = 0; i < 500; ++i) text += "22\n";
    say(*sender, text + "1\n3");
  }
  std::size_t faulty = 0, good = 0;
  while (faulty + good < 1004) {  // two of them broken off
    const auto events = asio::co_spawn(b.strand, b.from->read(64), asio::use_future).get();
    REQUIRE(events);
    CHECK(events->size() <= 64);
    for (const event& e : events->events) ++(e.fault.empty() ? good : faulty);
  }
  CHECK(good == 2);
  CHECK(faulty == 1002);
}

TEST_CASE("a wait that came too late does not end the next one", "[lines]") {
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
  const unique_fd other(pair[1]);
  asio::io_context context;
  auto socket = std::make_shared<asio::posix::stream_descriptor>(context, pair[0]);
  const auto wait = asio::posix::stream_descriptor::wait_read;
  // Ready and late at once: the timer's handler is queued behind the socket's.
  const auto twice = [](std::shared_ptr<asio::posix::stream_descriptor> on, asio::posix::stream_descriptor::wait_type what,
                        int* ended) -> asio::awaitable<bool> {
    co_await wait_ready(on, what, std::chrono::steady_clock::now());
    char byte = 0;
    static_cast<void>(::read(on->native_handle(), &byte, 1));
    ++*ended;
    const bool ready = co_await wait_ready(on, what, std::chrono::steady_clock::time_point::max());
    ++*ended;
    co_return ready;
  };
  for (int round = 0; round < 100; ++round) {
    say(other, "x");
    int ended = 0;
    std::future<bool> second = asio::co_spawn(context, twice(socket, wait, &ended), asio::use_future);
    context.restart();
    while (ended == 0) context.run_one();
    context.poll();
    if (ended == 1) say(other, "y");
    context.run();
    REQUIRE(second.get());
    char byte = 0;
    static_cast<void>(::read(socket->native_handle(), &byte, 1));
  }
}

TEST_CASE("datagrams have lines, too", "[lines]") {
  source_bench b;
  b.port = free_port(SOCK_DGRAM);
  b.open("listen: 'udp:127.0.0.1:" + std::to_string(b.port) + "', max_line: 2KiB");
  const unique_fd sender = dial(b.port, SOCK_DGRAM);
  say(sender, "1");
  say(sender, "2\n3\n");
  REQUIRE(::send(sender.get(), "", 0, 0) == 0);
  say(sender, std::string(5000, '4'));
  say(sender, "5\n");
  CHECK(b.read(4) == texts{"1", "2", "3", "5"});
  CHECK(b.lost.size() == 1);
  say(sender, "6");
  CHECK(b.drain() == texts{"6"});
}

TEST_CASE("a local socket: left behind by the dead, in use, in the way", "[lines]") {
  source_bench b;
  const std::string at = "listen: 'unix:s.sock', format: text";
  {
    const socket_address address = socket_address::of("unix:s.sock");
    const unique_fd killed = listen_at(resolve(address, b.flow.dir.path()).front(), address);
  }
  b.open(at);
  const unique_fd sender = dial(b.flow.dir / "s.sock");
  say(sender, "x\n");
  CHECK(b.read(1) == texts{"x"});
  std::unique_ptr<source> first = std::move(b.from);
  CHECK_THROWS_WITH(b.open(at), Contains("another program does"));
  b.end();
  CHECK(std::filesystem::exists(b.flow.dir / "s.sock"));
  b.from = std::move(first);
  b.end();
  CHECK_FALSE(std::filesystem::exists(b.flow.dir / "s.sock"));
  b.flow.write_file("s.sock", "precious");
  CHECK_THROWS_WITH(b.open(at), Contains("no socket"));
  CHECK(b.flow.file_text("s.sock") == "precious");
}

TEST_CASE("a port in use, and addresses that do not work or are not safe", "[lines]") {
  source_bench b;
  const peer other;
  const std::string used = "listen: '" + other.address() + "'";
  CHECK_THROWS_WITH(b.open(used), Contains("cannot listen at " + other.address()) && Contains("in use"));
  CHECK_THROWS_WITH(b.open("listen: nowhere"), Contains("is no address"));
  CHECK_THROWS_WITH(b.open("listen: '0.0.0.0:7000'"), Contains("insecure: true"));
  b.open("listen: '0.0.0.0:" + std::to_string(b.port) + "', insecure: true");
}

// ---- to: tcp -------------------------------------------------------------------------------------------------------------

TEST_CASE("events arrive as lines, and the last ones before the end", "[tcp]") {
  flow_bench b;
  const peer there;
  auto reading = std::async(std::launch::async, [&] { return peer::read_to_end(there.accept()); });
  CHECK(b.run("test/flow/f", "from: {generate: {count: 50000}}\nto: {tcp: '" + there.address() + "'}").end == dataflow_end::input_ended);
  const std::string all = reading.get();
  CHECK(std::count(all.begin(), all.end(), '\n') == 50'000);
  CHECK(all.ends_with("{\"n\":50000}\n"));
}

TEST_CASE("a peer that has closed is called again before the next events", "[tcp]") {
  flow_bench b;
  const peer there;
  b.append("in", {"1"});
  const auto run = b.make("test/flow/f", b.parse("from: {topic: in}\nto: {tcp: '" + there.address() + "'}"));
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  {
    const unique_fd first = there.accept();
    CHECK(peer::read_lines(first, 1) == "1\n");
    say(first, "who are you?");
    while (b.counters->emitted < 1) {
    }
  }
  b.append("in", {"2"});
  const unique_fd second = there.accept();
  CHECK(peer::read_lines(second, 1) == "2\n");
  while (b.counters->emitted < 2) {
  }
  run->request_drain();
  CHECK(peer::read_to_end(second) == "");
  CHECK(ended.get().end == dataflow_end::drained);
}

TEST_CASE("a connection is ended in order when the flow fails for another reason", "[tcp]") {
  flow_bench b;
  const peer there;
  REQUIRE(::mkfifo((b.dir / "go").c_str(), 0600) == 0);
  const std::string from = "from: {command: {run: [sh, -c, 'echo 1; read line < go; exit 3']}}\n";
  const auto run = b.make("test/flow/f", b.parse(from + "to: {tcp: '" + there.address() + "'}"));
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  const unique_fd connection = there.accept();
  CHECK(peer::read_lines(connection, 1) == "1\n");
  while (b.counters->emitted < 1) {
  }
  say(connection, "who are you?");  // unread, it would make a reset of the connection's end
  b.write_file("go", "");
  CHECK_THAT(ended.get().reason, Contains("exit code 3"));
  char byte = 0;
  CHECK(::recv(connection.get(), &byte, 1, 0) == 0);
}

TEST_CASE("a peer that is away or does not read holds the events back", "[tcp]") {
  flow_bench b;
  const int port = free_port();
  b.append("in", {"1"});
  const std::string to = "to: {tcp: {address: '127.0.0.1:" + std::to_string(port) + "', timeout: 100ms}}";
  const dataflow_outcome away = b.run("test/flow/f", "from: {topic: in}\n" + to);
  CHECK_THAT(away.reason, Contains("to tcp: 127.0.0.1:") && Contains("cannot connect: Connection refused"));
  CHECK(b.flows.load("test/flow/f").position == 0);
  const peer deaf(port);
  const dataflow_outcome full = b.run("test/flow/g", "from: {generate: {count: 10000000}}\n" + to);
  CHECK_THAT(full.reason, Contains("the peer has not read for 100ms"));
}

TEST_CASE("addresses that a sink cannot use are refused", "[tcp]") {
  flow_bench b;
  CHECK_THAT(b.run("test/flow/f", "from: {generate: {count: 1}}\nto: {tcp: 'unix:nobody.sock'}").reason, Contains("No such file"));
  const auto parse = [&](const std::string& address) {
    return b.run("test/flow/f", "from: {generate: {count: 1}}\nto: {tcp: '" + address + "'}").reason;
  };
  CHECK_THAT(parse("udp:127.0.0.1:1"), Contains("not sent by UDP"));
  CHECK_THAT(parse("127.0.0.1"), Contains("is no address"));
}

}  // namespace test_socket_lines
