// Sources against awkward input: CSV that few readers survive, files that grow, shrink or lie, restarts at
// every position, and claims that are extended and closed while somebody waits.
#include <future>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/inputs.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_sources {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::wait_for;

namespace {

struct seen {
  std::string id, data, type;
  std::int64_t position = 0;
  std::string fault{};
};

// Reads a source to its end, `most` at a time, from `position` on.
std::vector<seen> read_all(flow_bench& b, source& from, std::int64_t position = 0, std::size_t most = 100) {
  std::vector<seen> all;
  wait_for(b.pool, from.open(position));
  while (std::optional<batch> events = wait_for(b.pool, from.read(most))) {
    CHECK_FALSE(events->empty());
    CHECK(events->size() <= most);
    for (const event& e : events->events) {
      all.push_back({std::string(e.id), std::string(e.data), std::string(e.datacontenttype), e.position,
                     std::string(e.fault)});
    }
  }
  return all;
}

std::unique_ptr<source> make_source(flow_bench& b, const std::string& from) {
  const config::dataflow definition = b.parse("from: " + from + "\nto: drop");
  component_context context{b.offered, "test", "test/run/r/main", b.dir.path(), asio::make_strand(b.pool.get_executor())};
  context.run_context = std::make_shared<const std::string>("{}");  // in a flow a file is followed: test_file_follow.cpp
  return b.components.source_of(*definition.from, context);
}

std::vector<seen> read_file(flow_bench& b, const std::string& text, const std::string& from,
                            std::int64_t position = 0, std::size_t most = 100) {
  b.write_file("in", text);
  return read_all(b, *make_source(b, from), position, most);
}

std::vector<std::string> payloads(const std::vector<seen>& all) {
  std::vector<std::string> texts;
  for (const seen& s : all) texts.push_back(s.data);
  return texts;
}

using texts = std::vector<std::string>;
constexpr const char* csv = "{file: {path: in, format: csv}}";
constexpr const char* ndjson = "{file: {path: in, format: ndjson}}";
constexpr const char* lines = "{file: in}";

}  // namespace

TEST_CASE("CSV as RFC 4180 has it, and as it is in the wild", "[sources][csv]") {
  flow_bench b;
  const auto rows = [&](const std::string& text, const std::string& from = csv) {
    return payloads(read_file(b, text, from));
  };

  CHECK(rows("a,b\n1,2\n") == texts{R"({"a":"1","b":"2"})"});
  CHECK(rows("a,b\r\n1,2\r\n3,4") == texts{R"({"a":"1","b":"2"})", R"({"a":"3","b":"4"})"});
  CHECK(rows("a,b\n\"x,y\",\"he said \"\"no\"\"\"\n") == texts{R"({"a":"x,y","b":"he said \"no\""})"});
  CHECK(rows("a,b\n\"two\nlines\r\nand more\",2\n3,4\n") ==
        texts{R"({"a":"two\nlines\r\nand more","b":"2"})", R"({"a":"3","b":"4"})"});
  CHECK(rows("a,b\n\"\",\n") == texts{R"({"a":"","b":""})"});
  CHECK(rows("a,b\n\"\"\"\",\"\"\"\"\"\"\n") == texts{R"({"a":"\"","b":"\"\""})"});
  CHECK(rows("\xEF\xBB\xBF"
             "a,b\n1,2\n") == texts{R"({"a":"1","b":"2"})"});
  CHECK(rows("\"a \"\"q\"\"\",\"b\nb\"\n1,2\n") == texts{R"({"a \"q\"":"1","b\nb":"2"})"});
  // Fewer and more fields than names: nothing is lost.
  CHECK(rows("a,b\n1\n1,2,3,4\n") ==
        texts{R"({"a":"1"})", R"({"a":"1","b":"2","column_3":"3","column_4":"4"})"});
  // Blank lines are no rows, blank fields are.
  CHECK(rows("a,b\n\n\r\n,\n \n") == texts{R"({"a":"","b":""})", R"({"a":" "})"});
  // Quotes where they do not belong stay as they are.
  CHECK(rows("a,b\nx\"y\"\"z,1\n") == texts{R"({"a":"x\"y\"\"z","b":"1"})"});
  CHECK(rows("a,b\n\"x\"y,\"1\" \n") == texts{R"({"a":"xy","b":"1 "})"});
  CHECK(rows("a,b\n\"x\r\",\"y\r\"\r\n") == texts{R"({"a":"x\r","b":"y\r"})"});
  // Not UTF-8, and a NUL: still one JSON object.
  for (const std::string& row : rows(std::string("a,b\n\xff\xfe,x\0y\n", 10)))
    CHECK(nlohmann::json::accept(row));
  CHECK(rows("").empty());
  CHECK(rows("a,b").empty());
  CHECK(rows("a,b\n").empty());
  CHECK(rows("a;b\n1,5;2\n", "{file: {path: in, format: csv, delimiter: semicolon}}") ==
        texts{R"({"a":"1,5","b":"2"})"});
  CHECK(rows("a\tb\n1\t2\n", "{file: {path: in, format: csv, delimiter: tab}}") ==
        texts{R"({"a":"1","b":"2"})"});
  CHECK(rows("a|b\n1|2\n", "{file: {path: in, format: csv, delimiter: pipe}}") ==
        texts{R"({"a":"1","b":"2"})"});
  CHECK(rows("1,2\n3\n", "{file: {path: in, format: csv, header: false}}") ==
        texts{R"({"column_1":"1","column_2":"2"})", R"({"column_1":"3"})"});
}

TEST_CASE("a quote that is never closed spoils its own record only", "[sources][csv]") {
  flow_bench b;
  const auto all = read_file(b, "a,b\n1,2\n\"open,3\n4,5\n", csv);
  REQUIRE(all.size() == 2);
  CHECK(all[0].data == R"({"a":"1","b":"2"})");
  CHECK(all[1].data == "\"open,3\n4,5\n");
  CHECK(all[1].type == "text/csv");
  CHECK(all[0].fault == "");
  CHECK_THAT(all[1].fault, Contains("never closed"));
}

TEST_CASE("a record with a fault is a dead letter whatever the steps and sinks are, and nothing comes twice", "[sources][csv]") {
  flow_bench b;
  b.topic("out");
  b.write_file("in.csv", "a,b\n1,2\n3,\"open\n");
  for (int start = 0; start < 2; ++start) {
    CHECK(b.run("test/flow/plain", "from: {file: in.csv}\nto: {file: {path: out.txt, format: lines}}").reason == "");
    CHECK(b.run("test/flow/passing", "from: {file: in.csv}\nsteps: [{filter: \"true\"}]\nto: drop").reason == "");
  }
  CHECK(b.file_text("out.txt") == "{\"a\":\"1\",\"b\":\"2\"}\n");
  const auto dead = b.dead();
  REQUIRE(dead.size() == 2);
  for (const dead_letter& d : dead) {
    CHECK(d.step == "from");
    CHECK(d.data == "3,\"open\n");
    CHECK(d.datacontenttype == "text/csv");
    CHECK_THAT(d.reason, Contains("never closed"));
  }
  CHECK(b.balanced());
}

TEST_CASE("every record's position is where a restart goes on", "[sources]") {
  flow_bench b;
  struct format_case {
    const char* from;
    std::string text;
  };
  const format_case cases[] = {
      {csv,
       "\xEF\xBB\xBF"
       "a,\"b\nb\"\r\n1,2\r\n\"3\n3\",\"4\"\"\"\n\n5,6\n7"},
      {ndjson, "{\"n\":1}\n\n{\"n\":2}\r\nbroken\n  {\"n\":4}"},
      {lines, "one\n\ntwo\r\nthree"},
  };
  for (const format_case& c : cases) {
    INFO(c.from);
    const auto all = read_file(b, c.text, c.from);
    REQUIRE(all.size() == 4);
    CHECK(all.back().position == static_cast<std::int64_t>(c.text.size()));
    for (std::size_t most : {1, 2, 3})
      CHECK(payloads(read_file(b, c.text, c.from, 0, most)) == payloads(all));
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto rest = read_file(b, c.text, c.from, all[i].position);
      REQUIRE(rest.size() == all.size() - i - 1);
      for (std::size_t k = 0; k < rest.size(); ++k) {
        CHECK(rest[k].data == all[i + 1 + k].data);
        CHECK(rest[k].id == all[i + 1 + k].id);
        CHECK(rest[k].position == all[i + 1 + k].position);
      }
    }
  }
}

TEST_CASE("records that cross block borders come out whole", "[sources]") {
  flow_bench b;
  std::string text = "name,text\n";
  texts expected;
  for (int i = 0; i < 2000; ++i) {
    const std::string body(static_cast<std::size_t>(i * 37 % 1900), static_cast<char>('a' + i % 26));
    text += std::to_string(i) + ",\"" + body + "\"\"\n,\"\n";
    expected.push_back("{\"name\":\"" + std::to_string(i) + "\",\"text\":\"" + body + "\\\"\\n,\"}");
  }
  REQUIRE(text.size() > 6 * 256 * 1024);
  CHECK(payloads(read_file(b, text, csv)) == expected);

  std::string one_line(900'000, 'x');
  CHECK(payloads(read_file(b, one_line + "\n" + one_line, lines)) == texts{one_line, one_line});
}

TEST_CASE("a record without an end is refused before it fills the memory", "[sources]") {
  flow_bench b;
  const std::string endless(3 << 20, 'x');
  CHECK_THROWS_WITH(
      read_file(b, "a,b\n1,2\n\"" + endless, csv),
      Contains("record at byte 8 is longer than max_record, 1MiB") && Contains("quote never closed"));
  CHECK_THROWS_WITH(read_file(b, "ok\n" + endless, lines), Contains("record at byte 3"));
  CHECK_THROWS_WITH(read_file(b, "12345\n123456\n", "{file: {path: in, max_record: 5B}}"),
                    Contains("byte 6"));
}

TEST_CASE("the file's ending chooses the format", "[sources]") {
  flow_bench b;
  b.write_file("a.csv", "x\n1\n");
  b.write_file("a.jsonl", "{\"x\":1}\n\n");
  b.write_file("a.log", "x\n\n");
  CHECK(payloads(read_all(b, *make_source(b, "{file: a.csv}"))) == texts{R"({"x":"1"})"});
  CHECK(payloads(read_all(b, *make_source(b, "{file: a.jsonl}"))) == texts{R"({"x":1})"});
  const auto logged = read_all(b, *make_source(b, "{file: a.log}"));
  CHECK(payloads(logged) == texts{"x", ""});
  CHECK(logged[0].type == "text/plain");
  CHECK(logged[0].id == "a.log:2");
}

TEST_CASE("a file that is not what it was, or not a file, says so", "[sources]") {
  flow_bench b;
  CHECK_THROWS_WITH(read_file(b, "short\n", lines, 1000), Contains("has 6 bytes, but 1000 were read before"));
  CHECK_THROWS_WITH(read_all(b, *make_source(b, "{file: nowhere/in.csv}")), Contains("No such file"));
  CHECK_THROWS_WITH(read_all(b, *make_source(b, "{file: .}")), Contains("Is a directory"));
}

TEST_CASE("malformed lines become dead letters, not failures", "[sources]") {
  flow_bench b;
  b.topic("out");
  b.write_file("in.ndjson", "{\"n\":1}\n{\"n\":\n\xff\n{\"n\":4}\n");
  CHECK(b.run("test/flow/straight", "from: {file: in.ndjson}\nto: {topic: out}").reason == "");
  CHECK(b.content("out") == texts{"{\"n\":1}", "{\"n\":4}"});
  const auto dead = b.dead("test/flow/straight");
  REQUIRE(dead.size() == 2);
  CHECK(dead[0].step == "to");
  CHECK(dead[0].data == "{\"n\":");
  CHECK(
      b.run("test/flow/mapped", "from: {file: in.ndjson}\nsteps:\n  - map: {n: event.n}\nto: drop").reason ==
      "");
  CHECK(b.dead("test/flow/mapped").size() == 2);
  CHECK(b.balanced());
}

TEST_CASE("a flow over a file ends and a later start reads what was added", "[sources]") {
  flow_bench b;
  b.topic("out");
  b.write_file("in.ndjson", "{\"n\":1}\n");
  CHECK(b.run("test/flow/f", "from: {file: in.ndjson}\nto: {topic: out}").end == dataflow_end::input_ended);
  b.write_file("in.ndjson", "{\"n\":1}\n{\"n\":2}\n");
  CHECK(b.run("test/flow/f", "from: {file: in.ndjson}\nto: {topic: out}").end == dataflow_end::input_ended);
  CHECK(b.content("out") == texts{"{\"n\":1}", "{\"n\":2}"});
}

TEST_CASE("generated events count on after a restart", "[sources]") {
  flow_bench b;
  const std::string from = "{generate: {count: 5, data: {n: 9, place: \"a\\\"b\", deep: {x: [1]}}}}";
  const auto all = read_all(b, *make_source(b, from), 0, 2);
  REQUIRE(all.size() == 5);
  CHECK(all[0].data == R"({"n":1,"place":"a\"b","deep":{"x":[1]}})");
  CHECK(all[4].position == 5);
  CHECK(payloads(read_all(b, *make_source(b, from), 4)) == texts{all[4].data});
  CHECK(read_all(b, *make_source(b, from), 5).empty());
}

TEST_CASE("a paced generator waits between events and stops at once", "[sources]") {
  flow_bench b;
  const auto generated = read_all(b, *make_source(b, "{generate: {count: 3, every: 1ms}}"));
  CHECK(generated.size() == 3);

  // An hour between events: only stop_input can end the second read.
  const auto strand = asio::make_strand(b.pool.get_executor());
  const auto run = b.make_on(strand, "test/flow/f", b.parse("from: {generate: {every: 1h}}\nto: drop"));
  auto ended = asio::co_spawn(b.pool, run->run(), asio::use_future);
  run->request_drain();
  CHECK(ended.get().end == dataflow_end::drained);
}

TEST_CASE("a topic is read from its beginning, its end, or the cursor", "[sources]") {
  flow_bench b;
  b.append("in", {"1", "2", "3"});
  const auto first = [&](const std::string& from, std::int64_t position) {
    const auto s = make_source(b, from);
    wait_for(b.pool, s->open(position));
    s->stop_input();  // only what read() finds without waiting counts
    return wait_for(b.pool, s->read(10)).has_value();
  };
  CHECK_FALSE(first("{topic: in}", 3));
  const auto s = make_source(b, "{topic: in}");
  wait_for(b.pool, s->open(1));
  const auto events = wait_for(b.pool, s->read(10));
  REQUIRE(events);
  REQUIRE(events->size() == 2);
  CHECK(events->events[0].position == 2);

  const auto late = make_source(b, "{topic: {topic: in, start: end}}");
  wait_for(b.pool, late->open(0));
  auto next = asio::co_spawn(b.pool, late->read(10), asio::use_future);
  b.append("in", {"4"});
  CHECK(next.get()->events.front().data == "4");
  const auto resumed = make_source(b, "{topic: {topic: in, start: end}}");
  wait_for(b.pool, resumed->open(2));
  CHECK(wait_for(b.pool, resumed->read(10))->events.front().data == "3");

  CHECK_THROWS_WITH(first("{topic: in}", 99), Contains("ends at 4") && Contains("older copy"));
  CHECK_THROWS_WITH(first("{topic: inn}", 0), Contains("no topic 'inn'; nearest is 'in'"));
}

// ---------------------------------------------------------------------------------------------------------------

TEST_CASE("an open claim waits for more and ends when it is closed", "[sources][claim]") {
  flow_bench b;
  texts payload;
  for (int i = 1; i <= 20; ++i) payload.push_back(std::to_string(i));
  b.append("in", payload);
  topic_claim claim(b.topic("in"), 5, 10, true);
  CHECK(claim.after() == 5);
  const auto strand = asio::make_strand(b.pool.get_executor());
  const auto s = claim.make_source(strand);
  const auto read = [&] { return asio::co_spawn(strand, s->read(100), asio::use_future); };
  asio::co_spawn(strand, s->open(0), asio::use_future).get();
  CHECK(read().get()->size() == 5);

  auto waiting = read();
  claim.extend(12);
  claim.extend(11);  // never back
  CHECK(claim.until() == 12);
  const auto more = waiting.get();
  CHECK(more->events.front().position == 11);
  CHECK(more->events.back().position == 12);

  auto last = read();
  claim.close();
  CHECK_FALSE(last.get().has_value());
  CHECK_FALSE(read().get().has_value());

  // Another task of the run reads it all again, or from where it was.
  CHECK(read_all(b, *claim.make_source(strand), 0, 3).size() == 7);
  const auto rest = read_all(b, *claim.make_source(strand), 11);
  REQUIRE(rest.size() == 1);
  CHECK(rest[0].position == 12);
}

TEST_CASE("a claim's source can be stopped while it waits", "[sources][claim]") {
  flow_bench b;
  b.append("in", {"1"});
  topic_claim claim(b.topic("in"), 0, 1, true);
  const auto strand = asio::make_strand(b.pool.get_executor());
  const auto s = claim.make_source(strand);
  asio::co_spawn(strand, s->open(1), asio::use_future).get();
  auto waiting = asio::co_spawn(strand, s->read(10), asio::use_future);
  asio::post(strand, [&] { s->stop_input(); });
  CHECK_FALSE(waiting.get().has_value());
}

TEST_CASE("a claim that is destroyed ends the sources made from it", "[sources][claim]") {
  flow_bench b;
  b.append("in", {"1"});
  const auto strand = asio::make_strand(b.pool.get_executor());
  std::unique_ptr<source> s;
  {
    topic_claim claim(b.topic("in"), 0, 1, true);
    s = claim.make_source(strand);
  }
  CHECK(read_all(b, *s).size() == 1);
}

TEST_CASE("a claim on events that are gone fails instead of being empty", "[sources][claim]") {
  flow_bench b;
  const bool open = GENERATE(false, true);
  topic_claim claim(b.topic("empty"), 0, 50, open);
  CHECK_THROWS_WITH(read_all(b, *claim.make_source(asio::make_strand(b.pool.get_executor()))),
                    Contains("no longer kept in topic 'empty'"));
}

TEST_CASE("a claim whose first events are gone fails instead of passing them over", "[sources][claim]") {
  flow_bench b;
  const auto from = b.topic("in");
  from->go_on_after(2);
  b.append("in", {"3", "4"});
  const auto source_after = [&](std::int64_t after) {
    return topic_claim(from, after, 4, false).make_source(asio::make_strand(b.pool.get_executor()));
  };
  CHECK_THROWS_WITH(read_all(b, *source_after(1)), Contains("no longer kept in topic 'in'"));
  CHECK(read_all(b, *source_after(2)).size() == 2);
}

TEST_CASE("events given with a trigger are the same at each reading", "[sources]") {
  flow_bench b;
  const std::string text = "{\"n\":1}\n\n [2] \r\n\"three\"";
  const auto all = read_all(b, *make_inline_source(text, "/runs/R"), 0, 2);
  REQUIRE(all.size() == 3);
  CHECK(all[0].id == "/runs/R:1");
  CHECK(all[1].position == 3);
  CHECK(all[2].data == "\"three\"");
  const auto rest = read_all(b, *make_inline_source(text, "/runs/R"), 1);
  REQUIRE(rest.size() == 2);
  CHECK(rest[0].id == all[1].id);
  CHECK(read_all(b, *make_inline_source("", "/runs/R")).empty());
  CHECK_THROWS_WITH(read_all(b, *make_inline_source("1\n{", "/runs/R")), Contains("line 2"));
  CHECK(read_all(b, *make_empty_source()).empty());
}

}  // namespace test_sources
