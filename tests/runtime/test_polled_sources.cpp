// Sources that fetch: complete files out of a folder, and answers of a server. Crashes are new sources opened at an older
// position.
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/runtime/flow_bench.hpp"
#include "tests/runtime/scripted_server.hpp"

namespace test_polled_sources {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::scripted_server;
using penstock::testing::wait_for;

namespace {

using texts = std::vector<std::string>;

struct source_bench {
  flow_bench flow;
  asio::any_io_executor strand;
  std::unique_ptr<source> from;
  std::int64_t position = 0;  // of the last event read

  ~source_bench() { end(); }

  void open(const std::string& yaml, std::int64_t at = 0) {
    end();
    const config::dataflow definition = flow.parse("from: {" + yaml + "}\nto: drop");
    strand = asio::make_strand(flow.pool.get_executor());
    const component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(), strand};
    from = flow.components.source_of(*definition.from, context);
    wait_for(flow.pool, asio::co_spawn(strand, from->open(at), asio::use_awaitable));
  }
  void end() {
    if (from) asio::post(strand, asio::use_future([this] { from.reset(); })).get();
  }
  void on_strand(std::function<void()> call) { asio::post(strand, asio::use_future(std::move(call))).get(); }
  void acknowledge() {
    on_strand([this] { from->acknowledge(position); });
  }

  texts read(std::size_t count, std::size_t most = 100) {
    texts all;
    while (all.size() < count) {
      const std::optional<batch> events = asio::co_spawn(strand, from->read(most), asio::use_future).get();
      REQUIRE(events);
      for (const event& e : events->events) {
        all.emplace_back(e.data);
        position = e.position;
      }
    }
    CHECK(all.size() == count);
    return all;
  }
  // Stops, and does what is left to do.
  void drain() {
    on_strand([this] { from->stop_input(); });
    CHECK_FALSE(asio::co_spawn(strand, from->read(1), asio::use_future).get());
  }
  void arrive(const std::string& name, const std::string& text) {
    flow.write_file("in/." + name, text);
    std::filesystem::rename(flow.dir / ("in/." + name), flow.dir / ("in/" + name));
  }
  bool there(const std::string& name) const { return std::filesystem::exists(flow.dir / name); }
};

constexpr const char* folder = "folder: {path: 'in/*.txt', done: done, settle: 10ms}";

}  // namespace

TEST_CASE("files are read as they come complete, and moved when they are safe", "[folder]") {
  source_bench b;
  b.open(folder);  // there is no folder yet
  std::filesystem::create_directory(b.flow.dir / "in");
  b.arrive("a.txt", "1\n2");
  b.arrive("other.csv", "x\n");
  CHECK(b.read(2) == texts{"1", "2"});
  CHECK(b.there("in/a.txt"));
  b.acknowledge();
  b.arrive("b.txt", "3\n");
  CHECK(b.read(1) == texts{"3"});
  CHECK(b.there("in/done/a.txt"));
  CHECK(b.there("in/b.txt"));
  b.acknowledge();
  b.arrive("empty.txt", "");
  b.arrive("a.txt", "4\n");  // the same name again
  CHECK(b.read(1) == texts{"4"});
  b.acknowledge();
  b.arrive("c.txt", "5\n");
  CHECK(b.read(1) == texts{"5"});
  CHECK(b.there("in/done/a-2.txt"));
  CHECK(b.there("in/other.csv"));
}

TEST_CASE("after a crash the same files come again at the same positions", "[folder]") {
  source_bench b;
  std::filesystem::create_directory(b.flow.dir / "in");
  b.open(folder);
  b.arrive("z.txt", "1\n2\n");
  CHECK(b.read(2) == texts{"1", "2"});
  const std::int64_t second = b.position;
  b.arrive("b.txt", "3\n4\n");
  CHECK(b.read(2) == texts{"3", "4"});
  const std::int64_t fourth = b.position;
  b.arrive("a.txt", "5\n");
  b.open(folder, 0);
  CHECK(b.read(4, 1) == texts{"1", "2", "3", "4"});
  CHECK(b.position == fourth);
  b.open(folder, second);
  CHECK(b.read(3) == texts{"3", "4", "5"});
  CHECK_FALSE(b.there("in/z.txt"));  // safe, as the position says
  b.acknowledge();
  b.drain();
  CHECK_FALSE(b.there("in/b.txt"));
}

TEST_CASE("a file that changed after it was begun is another one", "[folder]") {
  source_bench b;
  std::filesystem::create_directory(b.flow.dir / "in");
  b.open("folder: {path: 'in/*.txt', remove: true, settle: 10ms}");
  b.arrive("a.txt", "1\n");
  CHECK(b.read(1) == texts{"1"});
  b.arrive("a.txt", "second\n");
  b.acknowledge();
  CHECK(b.read(1) == texts{"second"});
  CHECK_THROWS_WITH(b.open("folder: {path: '*/x.txt', remove: true}"), Contains("last part"));
}

TEST_CASE("answers become events, unchanged ones do not", "[poll]") {
  source_bench b;
  scripted_server server({"200 OK\r\nETag: \"v1\"\n\n[{\"n\":1},{\"n\":2}]", "304 Not Modified", "503 Down\r\nRetry-After: 0",
                          "200 OK\r\netag: \"v2\"\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\n\n{\"n\":3}\n{\"n\":4}\n",
                          "200 OK\n\n{\"n\":5}"});
  const std::string poll = "http_poll: {url: '" + server.url() + "', every: 20ms}";
  b.open(poll);
  CHECK(b.read(2) == texts{"{\"n\":1}", "{\"n\":2}"});
  b.acknowledge();
  CHECK(b.read(2) == texts{"{\"n\":3}", "{\"n\":4}"});
  b.open(poll);  // crashed: v2 was never safe
  CHECK(b.read(1) == texts{"{\"n\":5}"});
  const texts got = server.requests();
  REQUIRE(got.size() >= 5);
  CHECK_THAT(got[0], !Contains("If-None-Match"));
  CHECK_THAT(got[1], Contains("If-None-Match: \"v1\"\r\n"));
  CHECK_THAT(got[4], Contains("If-None-Match: \"v1\"\r\n") && !Contains("If-Modified-Since"));
}

TEST_CASE("a poll that needs a person fails, one under way can be stopped", "[poll]") {
  source_bench b;
  for (const char* wrong : {"401 Who", "404 Where", "302 Found", "200 OK\n\n{\"n\":", "200 OK\n\n12345678901234567890"}) {
    INFO(wrong);
    scripted_server server({wrong});
    b.open("http_poll: {url: '" + server.url() + "', max_answer: 19B}");
    CHECK_THROWS_WITH(b.read(1), Contains(server.url()));
  }
  scripted_server missing({"404 Where"});
  b.open("http_poll: '" + missing.url() + "?token=s3cret'");
  CHECK_THROWS_WITH(b.read(1), Contains("answered 404") && !Contains("s3cret"));
  scripted_server silent({"silence"});
  b.open("http_poll: {url: '" + silent.url() + "'}");
  auto read = asio::co_spawn(b.strand, b.from->read(1), asio::use_future);
  b.on_strand([&] { b.from->stop_input(); });
  CHECK_FALSE(read.get());
}

}  // namespace test_polled_sources
