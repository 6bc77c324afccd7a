// The step enrich against tables that change, break and vanish while it runs, and servers that fail. It is made from YAML
// as a person writes it and fed batch by batch.
#include <filesystem>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/json_field.hpp"
#include "runtime/sqlite.hpp"
#include "tests/runtime/flow_bench.hpp"
#include "tests/runtime/scripted_server.hpp"

namespace test_enrich {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;
using penstock::testing::scripted_server;
using penstock::testing::wait_for;

namespace {

using texts = std::vector<std::string>;

struct outcome final : step_output {
  texts reasons;
  void dead(const event&, std::string reason) override { reasons.push_back(std::move(reason)); }
  void duplicate(const event&) override {}
  void to_output(const event&, std::string_view) override {}
  void late(const event&) override {}
};

struct enrich_bench {
  flow_bench flow;
  outcome out;
  std::unique_ptr<step> one;

  void make(const std::string& settings) {
    const config::dataflow definition =
        flow.parse("from: {generate: {count: 1}}\nsteps:\n  - enrich: " + settings + "\nto: drop");
    const component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(),
                                    asio::make_strand(flow.pool.get_executor())};
    one = flow.components.step_of(definition.steps.at(0), context);
    wait_for(flow.pool, one->open());
  }

  texts payloads(const texts& given, std::string_view type = "") {
    batch events;
    for (const std::string& payload : given) {
      event e;
      e.id = "i";
      e.datacontenttype = type;
      e.data = events.keep(payload);
      events.events.push_back(e);
    }
    out.reasons.clear();
    wait_for(flow.pool, one->process_waiting(events, out));
    texts found;
    for (const event& e : events.events) found.emplace_back(e.data);
    return found;
  }

  // A rename, so that nobody sees half of it.
  void replace(const std::string& name, const std::string& text) {
    flow.write_file(name + ".new", text);
    std::filesystem::rename(flow.dir / (name + ".new"), flow.dir / name);
  }
};

constexpr const char* csv = "{from: {csv: {file: c.csv, look: 0s}}, key: event.k, into: found}";

texts with_field(const texts& objects) {
  batch memory;
  texts made;
  for (const std::string& object : objects) {
    std::string out;
    const std::string wrong = append_with_field(out, memory.keep(object), "f", "[1]");
    made.push_back(wrong.empty() ? out : "!");
  }
  return made;
}

}  // namespace

TEST_CASE("a field is added to an object and nothing else is touched", "[enrich]") {
  CHECK(with_field({R"({"a":1})", "{}", " { \n} ", R"({"a": {"f":1} , "b":1.50 } )"}) ==
        texts{R"({"a":1,"f":[1]})", R"({"f":[1]})", " { \n\"f\":[1]} ", R"({"a": {"f":1} , "b":1.50 ,"f":[1]} )"});
  // One that is there is replaced where it stands, whatever it was and however it is spelt.
  CHECK(with_field({R"({ "f" : {"x":[2]} , "b":2})", R"({"b":1,"f": 5 })", R"({"\u0066":"\"}"})", R"({"f":1,"f":2})"}) ==
        texts{R"({ "f" : [1] , "b":2})", R"({"b":1,"f": [1] })", R"({"\u0066":[1]})", R"({"f":[1],"f":2})"});
  CHECK(with_field({"[1]", "", "3", "{\"a\":}", "{", "\"{}\"", "null"}) == texts(7, "!"));
}

TEST_CASE("a CSV table answers by its key column", "[enrich][csv]") {
  enrich_bench b;
  b.flow.write_file("c.csv", "\xEF\xBB\xBFname,code\r\n\"Spain, the\",ES\r\nFrance,FR\n\"two\nlines\",XX\nshort\nold,DD\nnew,DD");
  b.make("{from: {csv: {file: c.csv, column: code}}, key: event.k, into: found}");
  CHECK(b.payloads({R"({"k":"ES", "n":1.0})", R"({"k":"XX"})", R"({"k":"DD"})", R"({"k":"??"})", R"({"n":1})"}) ==
        texts{R"({"k":"ES", "n":1.0,"found":{"name":"Spain, the","code":"ES"}})",
              R"({"k":"XX","found":{"name":"two\nlines","code":"XX"}})",
              R"({"k":"DD","found":{"name":"new","code":"DD"}})", R"({"k":"??"})", R"({"n":1})"});
  CHECK(b.out.reasons.empty());
  // What cannot get a field dies alone.
  CHECK(b.payloads({"[1]", "{", R"({"k":"FR"})"}).size() == 2);
  REQUIRE(b.out.reasons.size() == 1);
  CHECK_THAT(b.out.reasons[0], Contains("not valid JSON"));
  b.make("{from: {csv: {file: c.csv, column: code}}, key: \"'FR'\", into: found}");
  CHECK(b.payloads({"[1]", "text"}).empty());
  CHECK_THAT(b.out.reasons.at(0), Contains("not a JSON object"));
}

TEST_CASE("a miss is passed, dropped or buried", "[enrich]") {
  enrich_bench b;
  b.flow.write_file("c.csv", "code,n\nA,1\n");
  const std::string begin = "{from: {csv: c.csv}, key: event.k, into: found, miss: ";
  b.make(begin + "drop}");
  CHECK(b.payloads({R"({"k":"B"})", R"({"k":"A"})", "{}"}).size() == 1);
  CHECK(b.out.reasons.empty());
  b.make(begin + "dead_letter}");
  CHECK(b.payloads({R"({"k":"B"})", R"({"k":"A"})", "{}"}).size() == 1);
  CHECK(b.out.reasons == texts{"nothing found for key 'B'", "there is no key"});
}

TEST_CASE("a replaced table is taken; a broken one leaves the old", "[enrich][csv]") {
  enrich_bench b;
  b.replace("c.csv", "k,v\na,1\n");
  b.make(csv);
  const auto value = [&] { return b.payloads({R"({"k":"a"})"}).at(0); };
  const std::string one = R"({"k":"a","found":{"k":"a","v":"1"}})", two = R"({"k":"a","found":{"k":"a","v":"22"}})";
  CHECK(value() == one);
  b.replace("c.csv", "k,v\na,22\n");
  CHECK(value() == two);
  for (const char* broken : {"", "k,v\na,\"3333\n"}) {
    b.replace("c.csv", broken);
    CHECK(value() == two);
    CHECK(value() == two);
  }
  std::filesystem::remove(b.flow.dir / "c.csv");
  CHECK(value() == two);
  std::filesystem::create_directory(b.flow.dir / "c.csv");
  CHECK(value() == two);
  std::filesystem::remove(b.flow.dir / "c.csv");
  b.replace("c.csv", "k,v\na,1\n");
  CHECK(value() == one);
}

TEST_CASE("a table that cannot be used at the start says why", "[enrich]") {
  enrich_bench b;
  CHECK_THROWS_WITH(b.make(csv), Contains("c.csv") && Contains("no such file"));
  b.flow.write_file("c.csv", "");
  CHECK_THROWS_WITH(b.make(csv), Contains("empty"));
  b.flow.write_file("c.csv", "a,b\n1,2\n");
  CHECK_THROWS_WITH(b.make("{from: {csv: {file: c.csv, column: code}}, key: event.k, into: f}"),
                    Contains("no column 'code'"));
  CHECK_THROWS_WITH(b.make("{from: {csv: {file: c.csv, max_size: 5B}}, key: event.k, into: f}"), Contains("max_size"));
  for (const char* query : {"SELECT 1", "DELETE FROM t WHERE a = ?", "SELECT ?, ?", "", "SELECT * FROM nowhere WHERE a = ?"}) {
    INFO(query);
    sqlite::connection(b.flow.dir / "x.db", sqlite::open_mode::read_write_create).execute("CREATE TABLE IF NOT EXISTS t (a)");
    CHECK_THROWS(b.make(std::string("{from: {sqlite: {file: x.db, query: \"") + query + "\"}}, key: event.k, into: f}"));
  }
}

TEST_CASE("an SQLite query answers with its first row", "[enrich][sqlite]") {
  enrich_bench b;
  sqlite::connection db(b.flow.dir / "x.db", sqlite::open_mode::read_write_create);
  db.execute(
      "CREATE TABLE c (code INTEGER, name TEXT, rate REAL, none, inf REAL);"
      "INSERT INTO c VALUES (1, 'a \"b\"', 2.5, NULL, 9e999), (1, 'second', 0, 0, 0)");
  b.make("{from: {sqlite: {file: x.db, query: \"SELECT * FROM c WHERE code = ?\", look: 0s}}, key: event.k, into: c}");
  CHECK(b.payloads({R"({"k":1})", R"({"k":2})", R"({"k":"1' OR 1=1"})"}) ==
        texts{R"({"k":1,"c":{"code":1,"name":"a \"b\"","rate":2.5,"none":null,"inf":null}})", R"({"k":2})",
              R"({"k":"1' OR 1=1"})"});
  db.execute("UPDATE c SET name = 'new' WHERE rate > 1; INSERT INTO c VALUES (2, 'two', 1, 1, 1)");
  CHECK_THAT(b.payloads({R"({"k":2})"}).at(0), Contains("two"));
  CHECK_THAT(b.payloads({R"({"k":1})"}).at(0), Contains("new"));
  // What the query says of one key is that key's affair.
  b.make("{from: {sqlite: {file: x.db, query: \"SELECT json_extract(?, '$.a') AS a\"}}, key: event.k, into: c}");
  CHECK(b.payloads({R"({"k":"{\"a\":7}"})", R"({"k":"{"})", R"({"k":"{}"})"}).size() == 2);
  CHECK(b.out.reasons.size() == 1);
  b.make("{from: {sqlite: {file: x.db, timeout: 1ms, query: \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
         "FROM n) SELECT max(i) FROM n WHERE i > ?\"}}, key: event.k, into: c}");
  CHECK(b.payloads({R"({"k":1})"}).empty());
  CHECK_THAT(b.out.reasons.at(0), Contains("timeout"));
}

TEST_CASE("a server is asked once for each key while answers are kept", "[enrich][http]") {
  enrich_bench b;
  scripted_server server({"200 OK\n\n{\"name\": \"A\"}", "404 Not Found", "200 OK\n\n7"});
  b.make("{from: {http: '" + server.url("/c/{key}?x=1") + "'}, key: event.k, into: c}");
  const texts expected{R"({"k":"a b/ä","c":{"name": "A"}})", R"({"k":"a b/ä","n":2,"c":{"name": "A"}})"};
  CHECK(b.payloads({R"({"k":"a b/ä"})", R"({"k":"a b/ä","n":2})"}) == expected);
  CHECK(b.payloads({R"({"k":"b"})"}) == texts{R"({"k":"b"})"});
  CHECK(b.payloads({R"({"k":"b"})", R"({"k":"a b/ä"})", R"({"k":"c"})"}) ==
        texts{R"({"k":"b"})", expected[0], R"({"k":"c","c":7})"});
  const texts got = server.requests();
  REQUIRE(got.size() == 3);
  CHECK_THAT(got[0], Catch::StartsWith("GET /c/a%20b%2F%C3%A4?x=1 HTTP/1.1\r\n"));
}

TEST_CASE("kept answers are bounded, or not kept at all", "[enrich][http]") {
  enrich_bench b;
  scripted_server server(texts(8, "200 OK\n\n1"));
  b.make("{from: {http: {url: '" + server.url("/{key}") + "', cache: 0s}}, key: event.k, into: c}");
  b.payloads({R"({"k":"a"})"});
  b.payloads({R"({"k":"a"})", R"({"k":"a"})"});
  CHECK(server.requests().size() == 2);
  b.make("{from: {http: {url: '" + server.url("/{key}") + "', max_cache: 400B}}, key: event.k, into: c}");
  for (const char* key : {"a", "b", "c", "c", "b", "a"}) b.payloads({std::string(R"({"k":")") + key + "\"}"});
  CHECK(server.requests().size() == 6);
}

TEST_CASE("a server that fails is asked again, and then its events die", "[enrich][http]") {
  enrich_bench b;
  {
    scripted_server server({"503 Down", "hang up", "200 OK\n\n1"});
    b.make("{from: {http: '" + server.url("/{key}") + "'}, key: event.k, into: c}");
    CHECK(b.payloads({R"({"k":"a"})"}) == texts{R"({"k":"a","c":1})"});
  }
  {
    scripted_server server({"500 Oops", "429 Slow\r\nRetry-After: 0", "503 Down", "200 OK\n\n1"});
    b.make("{from: {http: '" + server.url("/{key}") + "'}, key: event.k, into: c}");
    CHECK(b.payloads({R"({"k":"a"})"}).empty());
    CHECK_THAT(b.out.reasons.at(0), Contains("answered 503") && Contains("{key}"));
    CHECK(b.payloads({R"({"k":"a"})"}) == texts{R"({"k":"a","c":1})"});  // a failure is not kept
  }
  for (const char* wrong : {"400 Bad", "401 Who", "200 OK\n\nnot json", "200 OK\n\n{\"a\":\"0123456789\"}"}) {
    INFO(wrong);
    scripted_server server({wrong});
    b.make("{from: {http: {url: '" + server.url("/{key}") + "', max_answer: 10B}}, key: event.k, into: c}");
    CHECK(b.payloads({R"({"k":"a"})"}).empty());
    CHECK(b.out.reasons.size() == 1);
    CHECK(server.requests().size() == 1);
  }
  CHECK_THROWS_WITH(b.make("{from: {http: 'http://localhost/'}, key: event.k, into: c}"), Contains("{key}"));
  CHECK_THROWS_WITH(b.make("{from: {http: 'file:///etc/{key}'}, key: event.k, into: c}"), Contains("http://"));
}

TEST_CASE("a key at which the server hangs does not hold up the others", "[enrich][http]") {
  enrich_bench b;
  scripted_server server({"silence", "200 OK\n\n1", "200 OK\n\n1"});
  b.make("{from: {http: {url: '" + server.url("/{key}") + "', timeout: 100ms}}, key: event.k, into: c}");
  CHECK(b.payloads({R"({"k":"a"})", R"({"k":"b"})"}).size() == 2);
  CHECK(server.requests().size() == 3);
}

}  // namespace test_enrich
