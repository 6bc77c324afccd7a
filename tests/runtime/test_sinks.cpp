// Sinks against bad rows, foreign hands on their files, full disks and unfriendly HTTP servers. How they
// behave across restarts of a whole dataflow is tested in test_dataflow.cpp; here they are called directly.
#include <arpa/inet.h>
#include <atomic>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <netinet/in.h>
#include <sstream>
#include <stdlib.h>
#include <string>
#include <sys/file.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/sqlite.hpp"
#include "tests/runtime/file_size_limit.hpp"
#include "tests/runtime/flow_bench.hpp"
#include "tests/runtime/scripted_server.hpp"

namespace test_sinks {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::file_size_limit;
using penstock::testing::flow_bench;
using penstock::testing::scripted_server;
using penstock::testing::wait_for;

namespace {

using texts = std::vector<std::string>;

struct payload {
  payload(std::string d, std::int64_t p = 0) : data(std::move(d)), position(p) {}
  payload(const char* d, std::int64_t p = 0) : data(d), position(p) {}
  std::string data;
  std::int64_t position;
  std::string type{};
  std::string id{};
};

std::shared_ptr<const batch> batch_of(const std::vector<payload>& payloads) {
  auto events = std::make_shared<batch>();
  for (const payload& p : payloads) {
    event e;
    e.id = events->keep(p.id.empty() ? "id" + std::to_string(events->size()) : p.id);
    e.source = "/test";
    e.type = "event";
    e.data = events->keep(p.data);
    e.datacontenttype = events->keep(p.type);
    e.position = p.position;
    events->events.push_back(e);
  }
  return events;
}

payload text(const std::string& data) {
  payload p(data);
  p.type = "text/plain";
  return p;
}

// A sink at work, as a dataflow would use it.
struct open_sink {
  open_sink(flow_bench& b, const std::string& to, const std::string& checkpoint = {},
            const std::string& consumer = "test/flow/f")
      : bench(b) {
    const config::dataflow definition = b.parse("from: {generate: {count: 1}}\nto: " + to);
    const component_context context{b.offered, "test", consumer, b.dir.path(),
                                    asio::make_strand(b.pool.get_executor())};
    made = b.components.sink_of(*definition.to, context);
    wait_for(b.pool, made->open(checkpoint));
  }
  write_result write(const std::vector<payload>& payloads) {
    return wait_for(bench.pool, made->write(batch_of(payloads)));
  }
  void close() { wait_for(bench.pool, made->close()); }

  flow_bench& bench;
  std::unique_ptr<sink> made;
};

std::vector<std::size_t> refused(const write_result& r) {
  std::vector<std::size_t> indexes;
  for (const refused_event& e : r.refused) indexes.push_back(e.index);
  return indexes;
}

// Every value of a query, row by row, as quote() shows it.
texts query(flow_bench& b, const std::string& file, const std::string& sql) {
  sqlite::connection db(b.dir / file, sqlite::open_mode::read_only);
  sqlite::statement rows(db, sql);
  texts all;
  while (rows.step()) all.emplace_back(rows.text(0));
  return all;
}

using indexes = std::vector<std::size_t>;

}  // namespace

// ---------------------------------------------------------------------------------------------------------------
// sqlite

TEST_CASE("rows become what their JSON was", "[sinks][sqlite]") {
  flow_bench b;
  open_sink s(b, "{sqlite: {file: sub/out.db, table: 'od\"d name'}}");
  const auto r = s.write(
      {R"({"i":-9007199254740993,"r":2.5,"s":"a'b\u0000c","t":true,"f":false,"z":null,"l":[1,{"x":2}],"o":{"k":"v"}})",
       R"({"i":18446744073709551615,"quo\"te":1,"sel ect":2,"":3})"});
  CHECK(r.refused.empty());
  CHECK(query(b, "sub/out.db",
              "SELECT quote(i)||quote(r)||hex(s)||quote(t)||quote(f)||quote(z)||quote(l)||quote(o) FROM "
              "\"od\"\"d name\" WHERE rowid=1") == texts{"-90071992547409932.561276200"
                                                         "6310NULL'[1,{\"x\":2}]''{\"k\":\"v\"}'"});
  CHECK(query(b, "sub/out.db",
              "SELECT \"quo\"\"te\" || \"sel ect\" || \"\" FROM \"od\"\"d name\" WHERE rowid=2") ==
        texts{"123"});
  CHECK(query(b, "sub/out.db", "SELECT name || ':' || type FROM pragma_table_info('od\"d name')") ==
        texts{"i:INTEGER", "r:REAL", "s:TEXT", "t:INTEGER", "f:INTEGER", "z:", "l:TEXT", "o:TEXT",
              "quo\"te:INTEGER", "sel ect:INTEGER", ":INTEGER"});
}

TEST_CASE("bad rows are refused one by one and the rest is stored", "[sinks][sqlite]") {
  flow_bench b;
  {
    sqlite::connection db(b.dir / "out.db", sqlite::open_mode::read_write_create);
    db.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (length(name) < 5), n INTEGER "
        "UNIQUE)");
  }
  open_sink s(b, "{sqlite: {file: out.db, table: t}}");
  const auto r =
      s.write({R"({"id":1,"name":"a","n":1})", R"({"id":1,"name":"b2"})", R"({"id":2})",
               R"({"id":3,"name":"toolong"})", R"({"id":"x","name":"b"})", "[1]", "{\"id\":", "", "{}", "7",
               R"({"id":4,"name":"d","n":1})", R"({"id":5,"ID":6,"name":"e"})",
               R"({"id":7,"name":"g","name":"h"})", R"({"id":8,"name":"h","n":8})", text("plain")});
  CHECK(refused(r) == indexes{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14});
  CHECK(query(b, "out.db", "SELECT id FROM t ORDER BY id") == texts{"1", "8"});
  CHECK_THAT(r.refused[0].reason, Contains("UNIQUE constraint failed: t.id"));
  CHECK_THAT(r.refused[1].reason, Contains("NOT NULL constraint failed: t.name"));
  CHECK_THAT(r.refused[2].reason, Contains("CHECK constraint failed"));
  CHECK_THAT(r.refused[3].reason, Contains("table 't' refuses the row: datatype mismatch (its INTEGER PRIMARY KEY"));
  CHECK_THAT(r.refused[4].reason, Contains("not a JSON object"));
  CHECK_THAT(r.refused[5].reason, Contains("not JSON"));
  CHECK_THAT(r.refused[6].reason, Contains("no data"));
  CHECK_THAT(r.refused[7].reason, Contains("no fields"));
  CHECK_THAT(r.refused[10].reason, Contains("there twice"));
}

TEST_CASE("a table grows by the columns that appear, in whatever case", "[sinks][sqlite]") {
  flow_bench b;
  open_sink s(b, "{sqlite: {file: out.db, table: t, columns: {c: text}}}");
  CHECK(s.write({R"({"a":1})", R"({"A":2,"b":"x"})", R"({"c":3})"}).refused.empty());
  // Another program adds a column of its own between two batches.
  {
    sqlite::connection other(b.dir / "out.db", sqlite::open_mode::read_write_create);
    other.execute("ALTER TABLE t ADD COLUMN d");
  }
  CHECK(s.write({R"({"d":4})", R"({"e":5})"}).refused.empty());
  CHECK(query(b, "out.db", "SELECT name||type FROM pragma_table_info('t')") ==
        texts{"aINTEGER", "bTEXT", "cTEXT", "d", "eINTEGER"});
  CHECK(query(b, "out.db", "SELECT group_concat(a) FROM t") == texts{"1,2"});

  open_sink fixed(b, "{sqlite: {file: out.db, table: t, create: false}}");
  CHECK(refused(fixed.write({R"({"a":1})", R"({"zz":1})"})) == indexes{1});
  open_sink missing(b, "{sqlite: {file: out.db, table: nobody, create: false}}");
  CHECK_THROWS_WITH(missing.write({R"({"a":1})"}), Contains("no table 'nobody'"));
}

TEST_CASE("more fields than SQLite has columns are one refused event", "[sinks][sqlite]") {
  flow_bench b;
  open_sink s(b, "{sqlite: {file: out.db, table: t}}");
  std::string wide = "{";
  for (int i = 0; i < 3000; ++i) wide += (i ? ",\"c" : "\"c") + std::to_string(i) + "\":1";
  CHECK(refused(s.write({R"({"a":1})", wide + "}", R"({"a":2})"})) == indexes{1});
  CHECK(query(b, "out.db", "SELECT a FROM t ORDER BY a") == texts{"1", "2"});
}

TEST_CASE("upsert changes the fields that an event has", "[sinks][sqlite]") {
  flow_bench b;
  open_sink s(b, "{sqlite: {file: out.db, table: t, mode: upsert, key: [shop, id]}}");
  const auto r = s.write({R"({"shop":"a","id":1,"total":5,"note":"x"})", R"({"id":1,"shop":"a","total":6})",
                          R"({"shop":"b","id":1,"total":7})", R"({"shop":"a","id":1})", R"({"shop":"a"})",
                          R"({"shop":null,"id":1})"});
  CHECK(refused(r) == indexes{4, 5});
  CHECK(query(b, "out.db", "SELECT shop||id||total||ifnull(note,'-') FROM t ORDER BY 1") ==
        texts{"a16x", "b17-"});

  CHECK_THROWS_WITH(open_sink(b, "{sqlite: {file: out.db, table: t, mode: upsert}}"), Contains("needs key"));
  open_sink other_key(b, "{sqlite: {file: out.db, table: t, mode: upsert, key: total}}");
  CHECK_THROWS_WITH(other_key.write({R"({"total":5})"}), Contains("ON CONFLICT"));
}

TEST_CASE("what was stored is not stored again, and what was refused is refused again",
          "[sinks][sqlite][exactly_once]") {
  flow_bench b;
  const std::string to = "{sqlite: {file: out.db, table: t}}";
  {
    open_sink s(b, to);
    const auto r =
        s.write({{R"({"n":1})", 10}, {"bad", 11}, {R"({"n":2})", 12}, {"[]", 12}, {R"({"n":3})", 12}});
    CHECK(refused(r) == indexes{1, 3});
  }
  // The commit of the cursor never happened: the same events come again, cut into other batches.
  {
    open_sink s(b, to);
    const auto first = s.write({{R"({"n":1})", 10}, {"bad", 11}});
    CHECK(refused(first) == indexes{1});
    CHECK(first.duplicates == 1);
  }
  {
    open_sink s(b, to);
    const auto rest =
        s.write({{R"({"n":2})", 12}, {"[]", 12}, {R"({"n":3})", 12}, {"[4]", 13}, {R"({"n":4})", 14}});
    CHECK(refused(rest) == indexes{1, 3});
    CHECK(rest.duplicates == 2);
    // And once more, because this commit was lost, too.
    const auto again =
        s.write({{R"({"n":2})", 12}, {"[]", 12}, {R"({"n":3})", 12}, {"[4]", 13}, {R"({"n":4})", 14}});
    CHECK(refused(again) == indexes{1, 3});
    CHECK(again.duplicates == 3);
    CHECK(again.refused[0].reason == "not a JSON object");
  }
  CHECK(query(b, "out.db", "SELECT group_concat(n) FROM t") == texts{"1,2,3,4"});
  // Another producer's positions are its own.
  open_sink other(b, to, {}, "test/run/R/main");
  CHECK(other.write({{R"({"n":5})", 1}}).duplicates == 0);
  CHECK(query(b, "out.db", "SELECT producer||' '||position FROM penstock_positions ORDER BY 1") ==
        texts{"test/flow/f 14", "test/run/R/main 1"});
}

TEST_CASE("positions of runs long gone are forgotten, those of flows never", "[sinks][sqlite]") {
  flow_bench b;
  const std::string to = "{sqlite: {file: out.db, table: t}}";
  open_sink(b, to, {}, "test/flow/f").write({{R"({"n":1})", 1}});
  open_sink(b, to, {}, "test/run/A/main").write({{R"({"n":1})", 1}});
  {
    sqlite::connection db(b.dir / "out.db", sqlite::open_mode::read_write_create);
    db.execute("UPDATE penstock_positions SET written_at = 1000");
  }
  open_sink(b, to, {}, "test/run/B/main").write({{R"({"n":1})", 1}});
  CHECK(query(b, "out.db", "SELECT producer FROM penstock_positions ORDER BY 1") ==
        texts{"test/flow/f", "test/run/B/main"});
}

TEST_CASE("a full disk leaves nothing of a batch", "[sinks][sqlite]") {
  flow_bench b;
  open_sink s(b, "{sqlite: {file: out.db, table: t}}");
  s.write({{R"({"n":1})", 1}});
  const std::string big = "{\"n\":2,\"pad\":\"" + std::string(500'000, 'x') + "\"}";
  {
    const file_size_limit full(200'000);
    CHECK_THROWS_AS(s.write({{R"({"n":2})", 2}, {big, 3}}), sqlite::failure);
  }
  open_sink again(b, "{sqlite: {file: out.db, table: t}}");
  CHECK(again.write({{R"({"n":2})", 2}, {big, 3}}).duplicates == 0);
  CHECK(query(b, "out.db", "SELECT n FROM t ORDER BY rowid") == texts{"1", "2", "2"});
}

TEST_CASE("two writers share one database", "[sinks][sqlite]") {
  flow_bench b;
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&b, t] {
      open_sink s(b, "{sqlite: {file: out.db, table: t}}", {}, "test/run/" + std::to_string(t) + "/main");
      for (int i = 1; i <= 20; ++i)
        s.write({{"{\"n\":" + std::to_string(i) + ",\"w" + std::to_string(t) + "\":1}", i}});
      s.close();
    });
  }
  for (auto& w : writers) w.join();
  CHECK(query(b, "out.db", "SELECT count(*)||' '||sum(n) FROM t") == texts{"60 630"});
}

// ---------------------------------------------------------------------------------------------------------------
// file

TEST_CASE("a file takes lines and refuses what would spoil them", "[sinks][file]") {
  flow_bench b;
  open_sink s(b, "{file: deep/er/out.ndjson}");
  const auto r = s.write({"{\"a\":\n1}", "{\"a\":", text("two\nlines \"quoted\""), "[1]", "\xff"});
  CHECK(refused(r) == indexes{1, 4});
  CHECK(b.file_text("deep/er/out.ndjson") == "{\"a\": 1}\n\"two\\nlines \\\"quoted\\\"\"\n[1]\n");
  open_sink l(b, "{file: {path: out.txt, format: lines}}");
  CHECK(l.write({"{\"a\":", text("two\nlines"), text("")}).refused.empty());
  CHECK(b.file_text("out.txt") == "{\"a\":\ntwo lines\n\n");
}

TEST_CASE("an unacknowledged tail is cut off, and only that", "[sinks][file]") {
  flow_bench b;
  b.write_file("out.ndjson", "\"mine before\"\n");
  const std::string to = "{file: out.ndjson}";
  std::string kept;
  {
    open_sink s(b, to);
    kept = s.made->first_checkpoint();
    s.write({"1"});  // and the commit that would tell never comes
  }
  {
    open_sink s(b, to, kept);
    CHECK(b.file_text("out.ndjson") == "\"mine before\"\n");
    kept = s.write({"1"}).checkpoint;
    CHECK(s.write({"2"}).checkpoint != kept);
  }
  {
    open_sink s(b, to, kept);
    CHECK(b.file_text("out.ndjson") == "\"mine before\"\n1\n");
    kept = s.write({"2"}).checkpoint;
    s.close();
  }
  // After a clean end the file is anybody's; what they add stays.
  b.write_file("out.ndjson", b.file_text("out.ndjson") + "\"by hand\"\n");
  {
    open_sink s(b, to, kept);
    s.write({"3"});
  }
  CHECK(b.file_text("out.ndjson") == "\"mine before\"\n1\n2\n\"by hand\"\n3\n");
}

TEST_CASE("what another run has written since is not cut off", "[sinks][file]") {
  flow_bench b;
  const std::string to = "{file: out.ndjson}";
  std::string kept;
  {
    open_sink first(b, to, {}, "test/run/A/main");
    kept = first.write({"1"}).checkpoint;
    first.write({"2"});
  }
  open_sink(b, to, {}, "test/run/B/main").write({"\"b\""});
  open_sink again(b, to, kept, "test/run/A/main");
  CHECK(b.file_text("out.ndjson") == "1\n2\n\"b\"\n");
}

TEST_CASE("a file that was cut, removed or renamed is gone on with", "[sinks][file]") {
  flow_bench b;
  const std::string to = "{file: out.ndjson}";
  std::string kept;
  {
    open_sink s(b, to);
    kept = s.write({"1", "2", "3"}).checkpoint;
  }
  std::filesystem::resize_file(b.dir / "out.ndjson", 2);
  {
    open_sink s(b, to, kept);
    kept = s.write({"4"}).checkpoint;
  }
  CHECK(b.file_text("out.ndjson") == "1\n4\n");
  std::filesystem::remove(b.dir / "out.ndjson");
  { open_sink(b, to, kept).write({"5"}); }
  CHECK(b.file_text("out.ndjson") == "5\n");
  b.write_file("other.ndjson", "\"a longer file with a checkpoint of another\"\n");
  { open_sink(b, "{file: other.ndjson}", kept).write({"6"}); }
  CHECK(b.file_text("other.ndjson") == "\"a longer file with a checkpoint of another\"\n6\n");
}

TEST_CASE("one writer at a time", "[sinks][file]") {
  flow_bench b;
  const std::string to = "{file: out.ndjson}";
  {
    open_sink s(b, to);
    CHECK_THROWS_WITH(open_sink(b, to),
                      Contains("another flow, run or program is writing to") && Contains("out.ndjson"));
  }
  open_sink s(b, to);
  s.close();
  open_sink t(b, to);
}

TEST_CASE("a full disk leaves no part of a batch in the file", "[sinks][file]") {
  flow_bench b;
  open_sink s(b, "{file: out.ndjson}");
  s.write({"1"});
  {
    const file_size_limit full(1000);
    CHECK_THROWS_WITH(s.write({"2", "\"" + std::string(5000, 'x') + "\""}), Contains("cannot write to"));
  }
  CHECK(b.file_text("out.ndjson") == "1\n");
  s.write({"2"});
  CHECK(b.file_text("out.ndjson") == "1\n2\n");
  CHECK_THROWS_WITH(open_sink(b, "{file: .}"), Contains("cannot open"));
}

// ---------------------------------------------------------------------------------------------------------------
// topic, stdout

TEST_CASE("a topic sink skips what it has, sets keys, and says when the topic is full", "[sinks][topic]") {
  flow_bench b;
  b.topic("out");
  open_sink s(b, "{topic: {topic: out, key: event.k}}");
  CHECK(refused(s.write({{R"({"k":"a"})", 1}, {"{", 2}, {R"({"k":7})", 3}, {"[1]", 4}})) == indexes{1});
  CHECK(s.write({{R"({"k":"a"})", 1}, {"{", 2}, {R"({"k":8})", 5}}).duplicates == 1);
  const batch all = b.topic("out")->read(0, 100);
  REQUIRE(all.size() == 4);
  CHECK(all.events[0].key == "a");
  CHECK(all.events[1].key == "7");
  CHECK(all.events[2].key == "");
  CHECK(all.events[3].data == R"({"k":8})");
  CHECK(refused(s.write({{"{", 6}})) == indexes{0});

  b.topics.declare({.name = "full", .retain = {}, .max_bytes = 4096, .dedupe = {}});
  open_sink full(b, "{topic: full}");
  full.write({"\"" + std::string(20'000, 'x') + "\""});
  CHECK_THROWS_WITH(full.write({"2"}), Contains("topic 'full'"));
}

TEST_CASE("lines on standard output stay whole", "[sinks][stdout]") {
  flow_bench b;
  const int saved = ::dup(STDOUT_FILENO);
  const int file = ::open((b.dir / "stdout").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  std::fflush(stdout);
  ::dup2(file, STDOUT_FILENO);
  std::vector<std::thread> writers;
  std::atomic<int> refusals{0};
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&b, t, &refusals] {
      open_sink s(b, "stdout");
      const std::string line = "\"" + std::string(20'000, static_cast<char>('a' + t)) + "\"";
      for (int i = 0; i < 20; ++i) refusals += static_cast<int>(s.write({line, "{", line}).refused.size());
      s.close();
    });
  }
  for (auto& w : writers) w.join();
  ::dup2(saved, STDOUT_FILENO);
  ::close(saved);
  ::close(file);
  CHECK(refusals == 60);
  std::istringstream out(b.file_text("stdout"));
  int lines = 0;
  for (std::string line; std::getline(out, line); ++lines) {
    REQUIRE(line.size() == 20'002);
    REQUIRE(line.find_first_not_of(line[1], 1) == 20'001);
  }
  CHECK(lines == 120);
}

// ---------------------------------------------------------------------------------------------------------------
// http

namespace {

std::string body_of(const std::string& request) { return request.substr(request.find("\r\n\r\n") + 4); }

}  // namespace

TEST_CASE("a secret does not end a header before its time, nor show itself", "[sinks][http]") {
  flow_bench b;
  scripted_server server({});
  const auto with = [&server](const std::string& header) { return "{http: {url: '" + server.url() + "', headers: {" + header + "}}}"; };
  for (const char* broken : {"s3cret\r\nX-Injected: 1", "s3cret\n", "s3cret\r", "s3cret\x7f"}) {
    ::setenv("ALERTS_TOKEN", broken, 1);
    CHECK_THROWS_WITH(open_sink(b, with("X-Key: '${env:ALERTS_TOKEN}'")), Contains("header 'X-Key'") && !Contains("s3cret"));
  }
  ::setenv("ALERTS_TOKEN", "a\tb \xc3\xbc", 1);
  open_sink s(b, with("X-Key: '${env:ALERTS_TOKEN}', X-Empty: ''"));
  CHECK(s.write({"1"}).refused.empty());
  s.close();
  REQUIRE(server.requests().size() == 1);
  CHECK_THAT(server.requests()[0], Contains("X-Key: a\tb \xc3\xbc\r\n") && Contains("X-Empty:\r\n"));
}

TEST_CASE("a header of the settings takes the place of the sink's own", "[sinks][http]") {
  flow_bench b;
  ::setenv("BLANK", " \t", 1);
  scripted_server server({});
  open_sink s(b, "{http: {url: '" + server.url() +
                     "', headers: {content-type: application/vnd.x+json, IDEMPOTENCY-KEY: mine, X-Blank: '${env:BLANK}'}}}");
  CHECK(s.write({"{\"n\":1}"}).refused.empty());
  s.close();
  ::unsetenv("BLANK");
  const std::string got = server.requests().at(0);
  CHECK_THAT(got, Contains("content-type: application/vnd.x+json\r\n") && !Contains("Content-Type"));
  CHECK_THAT(got, Contains("IDEMPOTENCY-KEY: mine\r\n") && !Contains("Idempotency-Key"));
  CHECK_THAT(got, Contains("X-Blank:\r\n"));
}

TEST_CASE("each event is a request with its own key", "[sinks][http]") {
  flow_bench b;
  ::setenv("ALERTS_TOKEN", "top secret", 1);
  ::setenv("http_proxy", "http://127.0.0.1:1", 1);
  scripted_server server({});
  open_sink s(b, "{http: {url: '" + server.url() +
                     "', method: PUT, headers: {Authorization: 'Bearer ${env:ALERTS_TOKEN}'}}}");
  payload odd = text("plain");
  odd.id = "a b\r\nX-Injected: 1\xc3\xa9%";
  payload nasty("{\"n\":2}");
  nasty.type = "application/json\r\nX-Injected: 2";
  CHECK(s.write({"{\"n\":1}", odd, nasty}).refused.empty());
  s.close();
  ::unsetenv("http_proxy");
  const texts got = server.requests();
  REQUIRE(got.size() == 3);
  CHECK_THAT(got[0], Catch::StartsWith("PUT /in HTTP/1.1\r\n") && Contains("Idempotency-Key: id0\r\n") &&
                         Contains("Content-Type: application/json\r\n") &&
                         Contains("Authorization: Bearer top secret\r\n") &&
                         Contains("User-Agent: penstock/"));
  CHECK(body_of(got[0]) == "{\"n\":1}");
  CHECK_THAT(got[1], Contains("Content-Type: text/plain\r\n") &&
                         Contains("Idempotency-Key: a%20b%0D%0AX-Injected:%201%C3%A9%25\r\n"));
  CHECK(body_of(got[1]) == "plain");
  for (const std::string& request : got) CHECK_THAT(request, !Contains("\r\nX-Injected"));
}

TEST_CASE("a status says whether to try again or to give up", "[sinks][http]") {
  flow_bench b;
  for (const char* again :
       {"408 Request Timeout", "429 Too Many Requests", "500 Oops", "503 Down", "302 Found"}) {
    INFO(again);
    scripted_server server({"200 OK", again});
    open_sink s(b, "{http: {url: '" + server.url() + "', retry_for: 0s}}");
    CHECK_THROWS_WITH(s.write({"1", "2", "3"}), Contains(server.url()));
    CHECK(server.requests().size() == 2);
    // Tried again, all of it goes through: at least once, told apart by the key.
    CHECK(s.write({"1", "2", "3"}).refused.empty());
    CHECK(server.requests().size() == 5);
  }
  scripted_server rude({"hang up"});
  open_sink hung_up(b, "{http: {url: '" + rude.url() + "', retry_for: 0s}}");
  CHECK_THROWS_WITH(hung_up.write({"1"}), Contains(rude.url()));
  CHECK(hung_up.write({"1"}).refused.empty());
  for (const char* never : {"400 Bad", "401 Who", "404 Where", "422 What"}) {
    scripted_server server({"200 OK", never, "201 Made"});
    open_sink s(b, "{http: '" + server.url() + "'}");
    const auto r = s.write({"1", "2", "{", "3"});
    CHECK(refused(r) == indexes{1, 2});
    CHECK_THAT(r.refused[0].reason,
               Contains(std::string("answered ").append(never, 3)) && Contains("because"));
    CHECK(server.requests().size() == 3);
  }
}

TEST_CASE("a batch is one request, and refused as one", "[sinks][http]") {
  flow_bench b;
  scripted_server server({"200 OK", "200 OK", "422 No"});
  {
    open_sink s(b, "{http: {url: '" + server.url() + "', batch: array}}");
    CHECK(refused(s.write({"{\"a\":\n1}", "{", text("x\ny")})) == indexes{1});
  }
  {
    open_sink s(b, "{http: {url: '" + server.url() + "', batch: ndjson}}");
    CHECK(s.write({"1", "2"}).refused.empty());
    const auto r = s.write({"1", "{", "2"});
    CHECK(refused(r) == indexes{0, 1, 2});
    CHECK_THAT(r.refused[0].reason, Contains("422"));
    CHECK_THAT(r.refused[1].reason, Contains("not valid JSON"));
    CHECK(refused(s.write({"{"})) == indexes{0});
  }
  const texts got = server.requests();
  REQUIRE(got.size() == 3);
  CHECK(nlohmann::json::parse(body_of(got[0])) == nlohmann::json::parse("[{\"a\":1},\"x\\ny\"]"));
  CHECK_THAT(got[1], Contains("Content-Type: application/x-ndjson"));
  CHECK(body_of(got[1]) == "1\n2\n");
}

TEST_CASE("a failed request is sent again and those before it are not", "[sinks][http]") {
  flow_bench b;
  scripted_server server({"200 OK", "503 Down\r\nRetry-After: 0", "hang up", "429 Slow", "200 OK", "404 No"});
  open_sink s(b, "{http: '" + server.url() + "'}");
  CHECK(refused(s.write({"1", "2", "3"})) == indexes{2});
  texts bodies;
  for (const std::string& request : server.requests()) bodies.push_back(body_of(request));
  CHECK(bodies == texts{"1", "2", "2", "2", "2", "3"});
  // A pause that is longer than the time there is: at once.
  for (const char* later : {"503 Down\r\nRetry-After: 3600", "429 Slow\r\nRetry-After: Fri, 31 Dec 2100 23:59:59 GMT"}) {
    scripted_server busy({later});
    open_sink t(b, "{http: '" + busy.url() + "'}");
    CHECK_THROWS_WITH(t.write({"1"}), Contains("answered"));
    CHECK(busy.requests().size() == 1);
  }
}

TEST_CASE("what was delivered is neither sent again nor buried, and each dead letter has its own reason", "[sinks][http]") {
  flow_bench b;
  b.write_file("in.ndjson", "1\n2\n3\n4\n");
  scripted_server server({"200 OK", "503 Down", "422 No", "429 Slow"});
  const std::string url = server.url();
  const std::string to = "to: {http: {url: '" + url + "?token=hidden', retry_for: 0s}}\n";
  const std::string delivery = "delivery: {attempts: 2, backoff: 1ms, then: dead_letter}";
  CHECK(b.run("test/flow/f", "from: {file: in.ndjson}\n" + to + delivery).reason == "");
  texts bodies;
  for (const std::string& request : server.requests()) bodies.push_back(body_of(request));
  CHECK(bodies == texts{"1", "2", "2", "3"});
  std::map<std::string, std::string> reasons;
  for (const dead_letter& d : b.dead("test/flow/f")) {
    reasons[d.data] = d.reason;
    CHECK(d.attempts == 2);
    CHECK_THAT(d.reason, Contains(url + ": answered") && !Contains("hidden"));
  }
  REQUIRE(reasons.size() == 3);
  CHECK_THAT(reasons["2"], Contains("422"));
  CHECK_THAT(reasons["3"], Contains("429"));
  CHECK_THAT(reasons["4"], Contains("429"));
  CHECK(b.counters->emitted == 1);
  CHECK(b.balanced());
}

TEST_CASE("with hold nothing is buried: what is refused for good dies, the rest waits", "[sinks][http]") {
  flow_bench b;
  b.write_file("in.ndjson", "1\n2\n3\n");
  scripted_server server({"200 OK", "422 No", "503 Down"});
  const std::string yaml = "from: {file: in.ndjson}\nto: {http: {url: '" + server.url() + "', retry_for: 0s}}";
  CHECK_THAT(b.run("test/flow/f", yaml).reason, Contains(server.url() + ": answered 503"));
  CHECK(b.dead().empty());
  CHECK(b.run("test/flow/f", yaml).reason == "");
  CHECK(server.requests().size() == 6);  // at least once
  CHECK(b.counters->emitted == 3);
}

TEST_CASE("a request takes so many events at most", "[sinks][http]") {
  flow_bench b;
  scripted_server server({"200 OK", "422 No", "200 OK"});
  open_sink s(b, "{http: {url: '" + server.url() + "', batch: {events: 2}}}");
  CHECK(refused(s.write({"1", "{", "2", "3", "4", "5", "{"})) == indexes{1, 3, 4, 6});
  texts bodies;
  for (const std::string& request : server.requests()) bodies.push_back(body_of(request));
  CHECK(bodies == texts{"[1,2]", "[3,4]", "[5]"});
}

TEST_CASE("nobody there, and no URL", "[sinks][http]") {
  flow_bench b;
  std::string url;
  {
    scripted_server gone({});
    url = gone.url();
  }
  ::setenv("HOOK_URL", url.c_str(), 1);
  open_sink s(b, "{http: {url: '${env:HOOK_URL}', retry_for: 0s}}");
  CHECK_THROWS_WITH(s.write({"1"}), Contains("${env:HOOK_URL}") && !Contains(url));
  CHECK_THROWS_WITH(open_sink(b, "{http: 'file:///etc/passwd'}"), Contains("must begin with http"));
  CHECK_THROWS_WITH(open_sink(b, "{http: 'gopher://x'}"), Contains("must begin with http"));
}

TEST_CASE("a server that never answers costs one timeout", "[sinks][http]") {
  flow_bench b;
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::listen(listener, 1) == 0);
  REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  open_sink s(
      b, "{http: {url: 'http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "', timeout: 50ms, retry_for: 0s}}");
  CHECK_THROWS_WITH(s.write({"1"}), Contains("Timeout"));
  ::close(listener);
}

}  // namespace test_sinks
