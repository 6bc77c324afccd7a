// The step sql: results and their types, what a statement must not do, and collecting over a restart.
#include <string>

#include <catch2/catch.hpp>

#include "tests/runtime/one_step.hpp"

namespace test_sql_step {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::one_step;
using penstock::testing::texts;

namespace {

texts tens() {
  texts all;
  for (int n = 0; n < 10; ++n) all.push_back("{\"n\":" + std::to_string(n * 10) + "}");
  return all;
}

}  // namespace

TEST_CASE("the mean of ten events", "[steps]") {
  one_step b("sql: SELECT avg(n) AS mean FROM events");
  const batch left = b.process(one_step::events_of(tens()));
  REQUIRE(left.size() == 1);
  CHECK(left.events[0].data == R"({"mean":45.0})");
  CHECK(left.events[0].id == "j/0");
  CHECK(left.events[0].position == 10);
  CHECK(b.payloads({}).empty());
}

TEST_CASE("columns have the types of their values", "[steps]") {
  one_step b("sql: SELECT i, d, s, t, l, o, none, absent, typeof(i) AS ti, typeof(d) AS td, _id, _key, _time FROM events");
  CHECK(b.payloads({R"({"i":9007199254740993,"d":1.5,"s":"\u00e9\"","t":true,"l":[1, 2],"o":{"a":1},"none":null})"}) ==
        texts{"{\"i\":9007199254740993,\"d\":1.5,\"s\":\"é\\\"\",\"t\":1,\"l\":\"[1,2]\",\"o\":\"{\\\"a\\\":1}\",\"none\":null,"
              "\"absent\":null,\"ti\":\"integer\",\"td\":\"real\",\"_id\":\"a\",\"_key\":\"k\",\"_time\":\"1970-01-01T00:00:01.000000Z\"}"});
  one_step inner("sql: \"SELECT _data ->> '$.o.a' AS a FROM events\"");
  CHECK(inner.payloads({R"({"o":{"a":7}})"}) == texts{R"({"a":7})"});
}

TEST_CASE("groups, order, and fields that only some events have", "[steps]") {
  one_step b("sql: SELECT city, sum(total) AS total, count(*) AS n FROM events GROUP BY city ORDER BY city");
  const batch left = b.process(one_step::events_of({R"({"city":"B","total":2})", R"({"city":"A","total":0.5})",
                                                    R"({"city":"B"})", R"({"other":1})"}));
  CHECK(one_step::payloads_of(left) == texts{R"({"city":null,"total":null,"n":1})", R"({"city":"A","total":0.5,"n":1})",
                                             R"({"city":"B","total":2,"n":2})"});
  CHECK(one_step::ids_of(left) == texts{"d/0", "d/1", "d/2"});
  one_step all("sql: SELECT * FROM events");
  CHECK(all.payloads({R"({"ID":1,"id":2,"_id":"mine","a b":3})"}) ==
        texts{"{\"_id\":\"a\",\"_key\":\"k\",\"_time\":\"1970-01-01T00:00:01.000000Z\",\"_data\":"
              "\"{\\\"ID\\\":1,\\\"id\\\":2,\\\"_id\\\":\\\"mine\\\",\\\"a b\\\":3}\",\"ID\":2,\"a b\":3}"});
}

TEST_CASE("what is no object dies alone", "[steps]") {
  one_step b("sql: SELECT count(*) AS n FROM events");
  CHECK(b.payloads({R"({"a":1})", "[1]", "{broken", "5", "", R"({"a":2})"}) == texts{R"({"n":2})"});
  CHECK(b.out.died.size() == 4);
  CHECK(b.payloads({"x"}, "text/plain").empty());
}

TEST_CASE("only one SELECT over the events is possible", "[steps]") {
  for (const char* bad :
       {"DELETE FROM events", "SELECT 1; DROP TABLE events", "ATTACH 'x.db' AS x", "PRAGMA user_version", "DROP TABLE events",
        "SELECT load_extension('x')", "SELECT name FROM sqlite_master", "SELECT * FROM pragma_table_info('events')",
        "INSERT INTO events VALUES (1)", "CREATE TABLE x (a)", "SELECT ? FROM events", "SELECT 1 AS a, 2 AS a",
        "SELECT n FROM other", "SELECT nosuch(n) FROM events", "SELEKT 1", "VACUUM INTO 'x.db'", "--", "EXPLAIN SELECT 1",
        "BEGIN", "SELECT n FROM events WHERE"}) {
    INFO(bad);
    CHECK_THROWS_AS(one_step("sql: \"" + std::string(bad) + "\""), std::runtime_error);
  }
  CHECK_NOTHROW(one_step("sql: SELECT 1 AS one;"));
  CHECK_NOTHROW(one_step("sql: WITH big AS (SELECT n FROM events WHERE n > 5) SELECT avg(b.n) AS m FROM big b"));
}

TEST_CASE("a query without end is ended", "[steps]") {
  one_step b("sql: {select: \"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) AS m FROM c\", max_steps: 100000}");
  CHECK(b.payloads({"{}", "{}"}).empty());
  REQUIRE(b.out.died.size() == 2);
  CHECK_THAT(b.out.died[0].second, Contains("max_steps"));
  CHECK(b.payloads({"{}"}).empty());  // and the step still works
  one_step rows("sql: {select: \"SELECT a.n FROM events a, events b\", max_rows: 50}");
  CHECK(rows.payloads(tens()).empty());
  CHECK_THAT(rows.out.died.at(0).second, Contains("max_rows"));
  one_step huge("sql: SELECT zeroblob(1000000000) AS z FROM events");
  CHECK(huge.payloads({"{}"}).empty());
  CHECK(huge.out.died.size() == 1);
}

TEST_CASE("over all events, whatever the batches and restarts", "[steps]") {
  one_step b("sql: {select: \"SELECT avg(n) AS mean, count(*) AS n FROM events\", over: all}");
  batch all = one_step::events_of(tens());
  for (const event& e : all.events) {
    batch part;
    part.events.push_back(part.copy(e));
    CHECK(b.process(std::move(part)).empty());
    b.commit();
    b.restart();
  }
  CHECK(b.stored.size() == 10);
  batch left;
  b.one->finish(left, b.out);
  REQUIRE(left.size() == 1);
  CHECK(left.events[0].data == R"({"mean":45.0,"n":10})");
  CHECK(left.events[0].position == 10);
  b.commit();
  CHECK(b.stored.empty());
  batch nothing;
  b.one->finish(nothing, b.out);
  CHECK(nothing.empty());
}

TEST_CASE("collecting is bounded", "[steps]") {
  one_step b("sql: {select: SELECT count(*) AS n FROM events, over: all, max_events: 9}");
  CHECK_THROWS_WITH(b.payloads(tens()), Contains("max_events, 9"));
  one_step bytes("sql: {select: SELECT count(*) AS n FROM events, over: all, max_bytes: 50B}");
  CHECK_THROWS_WITH(bytes.payloads(tens()), Contains("max_bytes, 50B"));
}

}  // namespace test_sql_step
