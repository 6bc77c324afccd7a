// A file that grows, followed through renames, copies, cuts, vanishing and crashes; and several files as one input. A crash
// is a new source opened at an older position: what comes then must be what came before, at the same positions.
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

namespace test_file_follow {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::wait_for;

namespace {

using texts = std::vector<std::string>;

struct line {
  std::string text;
  std::int64_t position;
  bool operator==(const line&) const = default;
};

struct follow_bench {
  flow_bench flow;
  asio::any_io_executor strand;
  std::unique_ptr<source> from;

  ~follow_bench() { end(); }

  // As the process would see it after a crash or a restart.
  void open(std::int64_t position = 0, const std::string& more = "", bool run = false) {
    end();
    const config::dataflow definition =
        flow.parse("from: {file: {path: app.log, format: lines, follow: true" + more + "}}\nto: drop");
    make(definition, run);
    wait_for(flow.pool, asio::co_spawn(strand, from->open(position), asio::use_awaitable));
  }
  void make(const config::dataflow& definition, bool run) {
    strand = asio::make_strand(flow.pool.get_executor());
    component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(), strand};
    if (run) context.run_context = std::make_shared<const std::string>("{}");
    from = flow.components.source_of(*definition.from, context);
  }
  void end() {
    if (from) asio::post(strand, asio::use_future([this] { from.reset(); })).get();
  }

  std::future<std::optional<batch>> reading(std::size_t most = 100) {
    return asio::co_spawn(strand, from->read(most), asio::use_future);
  }

  // The next `count` lines, waiting for them.
  std::vector<line> lines(std::size_t count, std::size_t most = 100) {
    std::vector<line> all;
    while (all.size() < count) {
      const std::optional<batch> events = reading(most).get();
      REQUIRE(events);
      for (const event& e : events->events) all.push_back({std::string(e.data), e.position});
    }
    CHECK(all.size() == count);
    return all;
  }
  texts read(std::size_t count) {
    texts all;
    for (const line& l : lines(count)) all.push_back(l.text);
    return all;
  }

  void append(const std::string& text, const std::string& name = "app.log") {
    std::ofstream(flow.dir / name, std::ios::binary | std::ios::app) << text;
  }
  void rename(const std::string& from_name, const std::string& to_name) {
    std::filesystem::rename(flow.dir / from_name, flow.dir / to_name);
  }
  void cut() { std::filesystem::resize_file(flow.dir / "app.log", 0); }
};

}  // namespace

TEST_CASE("what is appended arrives, whole lines only", "[follow]") {
  follow_bench b;
  b.open();  // there is no file yet
  auto first = b.reading();
  b.append("one\ntw");
  CHECK(first.get()->events.at(0).data == "one");
  auto second = b.reading();
  b.append("o\nthree\n");
  const std::optional<batch> events = second.get();
  CHECK(events->events.at(0).data == "two");
  auto last = b.reading();
  asio::post(b.strand, asio::use_future([&b] { b.from->stop_input(); })).get();
  last.get();
}

TEST_CASE("a renamed file is read to its end before the new one", "[follow]") {
  follow_bench b;
  b.append("1\n2\n");
  b.open();
  CHECK(b.read(2) == texts{"1", "2"});
  b.append("3\n");
  b.rename("app.log", "app.log.1");
  b.append("4\n", "app.log.1");  // its writer has not noticed
  b.append("");                  // the new one is there, and empty
  b.append("5", "app.log.1");
  b.append("6\n");
  CHECK(b.read(4) == texts{"3", "4", "5", "6"});
  b.rename("app.log", "app.log.2");
  b.append("7\n");
  CHECK(b.read(1) == texts{"7"});
}

TEST_CASE("a file that was cut begins anew", "[follow]") {
  follow_bench b;
  b.append("1\n2\n");
  b.open();
  const auto before = b.lines(2);
  std::filesystem::copy_file(b.flow.dir / "app.log", b.flow.dir / "app.log.1");
  b.cut();
  b.append("3\n");
  const auto after = b.lines(1);
  CHECK(after[0].text == "3");
  CHECK(after[0].position > before[1].position);
  b.append("4\n");
  CHECK(b.read(1) == texts{"4"});
  // Cut and written again, longer than before: known by its first bytes.
  b.cut();
  b.append("a longer text than all there was\n");
  CHECK(b.read(1) == texts{"a longer text than all there was"});
}

TEST_CASE("after a crash the same lines have the same positions", "[follow]") {
  follow_bench b;
  b.append("1\n2\n");
  b.open();
  auto all = b.lines(2);
  b.rename("app.log", "app.log.1");
  b.append("3\n", "app.log.1");
  b.append("4\n5\n");
  for (const line& l : b.lines(3)) all.push_back(l);
  b.rename("app.log", "app.log.2");
  b.append("6\n7");
  for (const line& l : b.lines(1)) all.push_back(l);
  b.append("late\n", "app.log.1");  // behind the end that was seen
  for (std::size_t done = 0; done <= all.size(); ++done) {
    INFO(done);
    b.open(done == 0 ? 0 : all[done - 1].position);
    const std::vector<line> rest(all.begin() + static_cast<std::ptrdiff_t>(done), all.end());
    CHECK(b.lines(rest.size(), 1) == rest);
  }
  b.append("\n");
  CHECK(b.read(1) == texts{"7"});
}

TEST_CASE("a rotation while nobody read is found again", "[follow]") {
  follow_bench b;
  b.append("1\n2\n");
  b.open();
  const auto first = b.lines(2);
  b.end();
  b.append("3\n");
  b.rename("app.log", "app.log.1");
  b.append("4\n");
  b.open(first[0].position);
  CHECK(b.read(3) == texts{"2", "3", "4"});
  b.end();
  // Removed and another in its place: what was not read of it is gone, and no other line.
  std::filesystem::remove(b.flow.dir / "app.log");
  b.append("other\n");
  b.open(first[1].position + 4);
  CHECK(b.read(1) == texts{"other"});
}

TEST_CASE("parts that are safe are forgotten", "[follow]") {
  follow_bench b;
  b.append("0\n");
  b.open();
  for (int i = 0; i < 10; ++i) {
    const auto got = b.lines(1);
    CHECK(got[0].text == std::to_string(i));
    b.from->acknowledge(got[0].position);
    b.rename("app.log", "app.log." + std::to_string(i));
    b.append(std::to_string(i + 1) + "\n");
  }
  CHECK(b.flow.flows.load("test/flow/f/follow").steps.size() <= 4);  // the path, and the last parts
}

TEST_CASE("start: end passes over what is there, once", "[follow]") {
  follow_bench b;
  b.append("old\n");
  b.open(0, ", start: end");
  b.append("new\n");
  b.open(0, ", start: end");  // crashed before anything was read
  CHECK(b.read(1) == texts{"new"});
}

TEST_CASE("a CSV that grows keeps its header through a restart and a rotation", "[follow]") {
  follow_bench b;
  b.append("a,");
  const auto definition =
      b.flow.parse("from: {file: {path: app.log, format: csv, follow: true}}\nto: drop");
  b.make(definition, false);
  wait_for(b.flow.pool, asio::co_spawn(b.strand, b.from->open(0), asio::use_awaitable));
  auto first = b.reading();
  b.append("b\n1,\"x\n");
  b.append("y\"\n");
  const std::optional<batch> events = first.get();
  CHECK(events->events.at(0).data == R"({"a":"1","b":"x\ny"})");
  const std::int64_t position = events->events.at(0).position;
  b.end();
  b.append("2,z\n");
  b.make(definition, false);
  wait_for(b.flow.pool, asio::co_spawn(b.strand, b.from->open(position), asio::use_awaitable));
  CHECK(b.read(1) == texts{R"({"a":"2","b":"z"})"});
  b.rename("app.log", "app.log.1");
  b.append("c\n3\n");
  CHECK(b.read(1) == texts{R"({"c":"3"})"});
}

TEST_CASE("a folder that is moved away and made anew is found", "[follow]") {
  follow_bench b;
  std::filesystem::create_directory(b.flow.dir / "logs");
  const auto definition =
      b.flow.parse("from: {file: {path: logs/app.log, format: lines, follow: true}}\nto: drop");
  b.make(definition, false);
  wait_for(b.flow.pool, asio::co_spawn(b.strand, b.from->open(0), asio::use_awaitable));
  auto first = b.reading();
  b.append("1\n", "logs/app.log");
  CHECK(first.get()->size() == 1);
  auto second = b.reading();
  b.rename("logs", "old");
  std::filesystem::create_directory(b.flow.dir / "logs");
  b.append("2\n", "logs/app.log");
  CHECK(second.get()->events.at(0).data == "2");
}

TEST_CASE("a file that cannot be followed says so", "[follow]") {
  follow_bench b;
  CHECK_THROWS_WITH(b.open(0, "", true), Contains("for flows"));
}

TEST_CASE("a flow's file without follow is read to its end, and once", "[follow][files]") {
  flow_bench b;
  b.topic("out");
  const auto start = [&] { return b.run("test/flow/f", "from: {file: {path: in.txt, format: lines}}\nto: {topic: out}"); };
  const auto ends_with = [&](std::size_t count) {
    const dataflow_outcome end = start();
    CHECK(end.reason == "");
    CHECK(end.end == dataflow_end::input_ended);
    CHECK(b.content("out").size() == count);
  };
  CHECK_THAT(start().reason, Contains("from file: cannot open") && Contains("in.txt: No such file"));
  b.write_file("in.txt", "1\n2\n");
  ends_with(2);
  ends_with(2);  // the daemon's next start
  b.write_file("in.txt", "1\n2\n3\n");
  ends_with(3);
  b.write_file("in.txt", "a\n");  // cut and written anew
  ends_with(4);
  ends_with(4);
  b.write_file("new", "another file, longer than all before\nand its second line\n");
  std::filesystem::rename(b.dir / "new", b.dir / "in.txt");
  ends_with(6);
  std::filesystem::remove(b.dir / "in.txt");
  ends_with(6);
  b.write_file("in.txt", "back\n");
  ends_with(7);
  CHECK(b.content("out").back() == "back");
}

TEST_CASE("a file that came and went while nobody read is not read, and its neighbours are", "[follow]") {
  follow_bench b;
  b.append("1\n");
  b.open();
  const auto first = b.lines(1);
  b.end();
  b.rename("app.log", "app.log.2");
  b.append("lost\n", "app.log.1");
  std::filesystem::last_write_time(b.flow.dir / "app.log.1",
                                   std::filesystem::last_write_time(b.flow.dir / "app.log.2") + std::chrono::seconds(1));
  b.append("2\n");
  b.open(first[0].position);
  CHECK(b.read(1) == texts{"2"});
}

TEST_CASE("several files are one input that stays the same", "[files]") {
  follow_bench b;
  b.append("1\n2", "b.txt");
  b.append("0\n", "a.txt");
  b.append("", "empty.txt");
  b.append("3\n", "c.txt");
  b.append("x\n", "c.csv");
  const auto definition = b.flow.parse("from: {file: {path: '[a-z]*.txt'}}\nto: drop");
  const auto read_all = [&](std::int64_t position) {
    b.end();
    b.make(definition, true);
    wait_for(b.flow.pool, asio::co_spawn(b.strand, b.from->open(position), asio::use_awaitable));
    std::vector<line> all;
    while (const std::optional<batch> events = b.reading(1).get()) {
      for (const event& e : events->events) all.push_back({std::string(e.data), e.position});
    }
    return all;
  };
  const auto all = read_all(0);
  REQUIRE(all.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(all[i].text == std::to_string(i));
  // A second attempt: more has come since.
  b.append("new\n", "aa.txt");
  b.append("more\n", "b.txt");
  for (std::size_t done = 0; done <= 4; ++done) {
    INFO(done);
    CHECK(read_all(done == 0 ? 0 : all[done - 1].position) ==
          std::vector<line>(all.begin() + static_cast<std::ptrdiff_t>(done), all.end()));
  }
  b.end();
  b.make(definition, false);
  const auto in_flow = [&] { wait_for(b.flow.pool, asio::co_spawn(b.strand, b.from->open(0), asio::use_awaitable)); };
  CHECK_THROWS_WITH(in_flow(), Contains("for jobs"));
}

}  // namespace test_file_follow
