// The file sink where it does more than append: CSV under one header, rotation, and files that appear whole. A crash is a
// sink that is destroyed without close(); what it had not yet reported must not be there twice afterwards.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/runtime/flow_bench.hpp"

namespace test_file_sink {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::wait_for;

namespace {

using texts = std::vector<std::string>;

struct open_sink {
  open_sink(flow_bench& b, const std::string& settings, const std::string& checkpoint = {}, bool run = false)
      : bench(b) {
    const config::dataflow definition = b.parse("from: {generate: {count: 1}}\nto: {file: " + settings + "}");
    component_context context{b.offered, "test", "test/flow/f", b.dir.path(),
                              asio::make_strand(b.pool.get_executor())};
    if (run) context.run_context = std::make_shared<const std::string>("{}");
    made = b.components.sink_of(*definition.to, context);
    wait_for(b.pool, made->open(checkpoint));
  }
  write_result write(const texts& payloads) {
    auto events = std::make_shared<batch>();
    for (const std::string& payload : payloads) {
      event e;
      e.id = "i";
      e.data = events->keep(payload);
      events->events.push_back(e);
    }
    return wait_for(bench.pool, made->write(std::shared_ptr<const batch>(events)));
  }
  void close() { wait_for(bench.pool, made->close()); }

  flow_bench& bench;
  std::unique_ptr<sink> made;
};

// What the folder holds, in the order of names: hidden files last.
texts files(flow_bench& b) {
  texts names;
  for (const auto& entry : std::filesystem::directory_iterator(b.dir / "out")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end(), [](const std::string& x, const std::string& y) {
    return std::pair(x.starts_with('.'), x) < std::pair(y.starts_with('.'), y);
  });
  return names;
}

std::vector<std::size_t> refused(const write_result& r) {
  std::vector<std::size_t> indexes;
  for (const refused_event& e : r.refused) indexes.push_back(e.index);
  return indexes;
}

using indexes = std::vector<std::size_t>;

}  // namespace

TEST_CASE("rows stand under the columns of the first event", "[file_sink][csv]") {
  flow_bench b;
  std::string kept;
  {
    open_sink s(b, "{path: out.csv, format: csv}");
    const auto r = s.write({R"({"a":1,"b":"x,y"})", R"({"b":"q\"\n","a":null})", R"({"a":1.50})", R"({"c":1})", "[1]", "{",
                            R"({"b":{"k":[1, 2]},"a":true,"a":false})"});
    CHECK(refused(r) == indexes{3, 4, 5});
    CHECK_THAT(r.refused[0].reason, Contains("no column 'c'"));
    kept = r.checkpoint;
  }
  const std::string rows = "a,b\n1,\"x,y\"\n,\"q\"\"\n\"\n1.50,\ntrue,\"{\"\"k\"\":[1, 2]}\"\n";
  CHECK(b.file_text("out.csv") == rows);
  // A restart knows the header from the file.
  open_sink s(b, "{path: out.csv, format: csv}", kept);
  CHECK(refused(s.write({R"({"b":2,"a":1})", R"({"z":1})"})) == indexes{1});
  CHECK(b.file_text("out.csv") == rows + "1,2\n");
}

TEST_CASE("given columns choose the fields", "[file_sink][csv]") {
  flow_bench b;
  {
    open_sink s(b, "{path: out.csv, format: csv, columns: [b, \"a \\\"q\\\"\"]}");
    CHECK(s.write({R"({"a \"q\"":1,"b":2,"c":3})", R"({"c":3})"}).refused.empty());
  }
  CHECK(b.file_text("out.csv") == "b,\"a \"\"q\"\"\"\n2,1\n,\n");
  CHECK_THROWS_WITH(open_sink(b, "{path: out.csv, format: csv, columns: [x]}"), Contains("other columns"));
  CHECK_THROWS_WITH(open_sink(b, "{path: out.csv, columns: [x]}"), Contains("format: csv"));
}

TEST_CASE("a header is written again when the batch that made it was lost", "[file_sink][csv]") {
  flow_bench b;
  std::string kept;
  {
    open_sink s(b, "{path: out.csv, format: csv}");
    kept = s.made->first_checkpoint();
    s.write({R"({"a":1})"});  // crashed before it was committed
  }
  open_sink s(b, "{path: out.csv, format: csv}", kept);
  s.write({R"({"a":1})"});
  CHECK(b.file_text("out.csv") == "a\n1\n");
}

TEST_CASE("a full file is put away, and only so many are kept", "[file_sink][rotate]") {
  flow_bench b;
  open_sink s(b, "{path: out/x.csv, format: csv, rotate: {size: 8B, keep: 2}}");
  for (int i = 0; i < 12; ++i) s.write({"{\"n\":" + std::to_string(100 + i) + "}"});
  const texts names = files(b);
  REQUIRE(names.size() == 3);
  CHECK(names.back() == "x.csv");
  CHECK(b.file_text("out/x.csv") == "n\n111\n");
  CHECK(texts{b.file_text("out/" + names[0]), b.file_text("out/" + names[1])} == texts{"n\n109\n", "n\n110\n"});
  CHECK_THROWS_WITH(open_sink(b, "{path: y, rotate: {keep: 1}}"), Contains("size, every or both"));
}

TEST_CASE("no line is lost or doubled by a crash around a rotation", "[file_sink][rotate]") {
  flow_bench b;
  const std::string to = "{path: out/x.ndjson, rotate: {size: 4B}}";
  const auto all = [&] {
    texts contents;
    for (const std::string& name : files(b)) contents.push_back(b.file_text("out/" + name));
    std::sort(contents.begin(), contents.end());
    return contents;
  };
  std::string kept;
  {
    open_sink s(b, to);
    kept = s.write({"1", "2"}).checkpoint;
  }
  for (int crashes = 0; crashes < 3; ++crashes) {
    open_sink s(b, to, kept);
    s.write({"3", "4"});  // rotates, and is never committed
  }
  {
    open_sink s(b, to, kept);
    kept = s.write({"3", "4"}).checkpoint;
    kept = s.write({"5"}).checkpoint;
  }
  CHECK(all() == texts{"1\n2\n", "3\n4\n", "5\n"});
  // Somebody else's file in its place stays whole.
  std::filesystem::remove(b.dir / "out/x.ndjson");
  b.write_file("out/x.ndjson", "7\n");
  open_sink(b, to, kept).write({"8"});
  CHECK(b.file_text("out/x.ndjson") == "7\n8\n");
}

TEST_CASE("time rotates, when an event comes", "[file_sink][rotate]") {
  flow_bench b;
  open_sink s(b, "{path: out/x.ndjson, rotate: {every: 1ms}}");
  s.write({"1"});
  while (files(b).size() < 2) s.write({"2"});
  CHECK(b.file_text("out/x.ndjson") == "2\n");
}

TEST_CASE("an atomic file is there when it is whole", "[file_sink][atomic]") {
  flow_bench b;
  const std::string to = "{path: out/x.csv, format: csv, atomic: true}";
  CHECK_THROWS_WITH(open_sink(b, to), Contains("for jobs"));
  std::string kept;
  {
    open_sink s(b, to, {}, true);
    kept = s.write({R"({"a":1})"}).checkpoint;
    CHECK(files(b) == texts{".x.csv.part"});
  }
  {
    open_sink s(b, to, kept, true);  // the next attempt
    kept = s.write({R"({"a":2})"}).checkpoint;
    s.close();
  }
  CHECK(files(b) == texts{"x.csv"});
  CHECK(b.file_text("out/x.csv") == "a\n1\n2\n");
  {
    open_sink s(b, to, kept, true);  // it crashed before the run knew that it had ended
    s.close();
  }
  CHECK(b.file_text("out/x.csv") == "a\n1\n2\n");
  {
    open_sink s(b, to, {}, true);  // another run
    s.write({R"({"b":3})"});
    CHECK(b.file_text("out/x.csv") == "a\n1\n2\n");
    s.close();
  }
  CHECK(b.file_text("out/x.csv") == "b\n3\n");
}

TEST_CASE("atomic and rotated: finished files only", "[file_sink][atomic]") {
  flow_bench b;
  open_sink s(b, "{path: out/x.ndjson, atomic: true, rotate: {size: 4B}}");
  s.write({"1", "2"});
  s.write({"3"});
  texts names = files(b);
  REQUIRE(names.size() == 2);
  CHECK(names[1] == ".x.ndjson.part");
  CHECK(b.file_text("out/" + names[0]) == "1\n2\n");
  s.close();
  names = files(b);
  REQUIRE(names.size() == 2);
  CHECK(b.file_text("out/" + names[0]) + b.file_text("out/" + names[1]) == "1\n2\n3\n");
}

}  // namespace test_file_sink
