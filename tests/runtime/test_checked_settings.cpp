// Definitions that fit every record but could never run: refused when they are put, at the component's own place, all at
// once; and those that only look so are not.
#include <algorithm>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "config/definition.hpp"
#include "runtime/http_client.hpp"
#include "runtime/registry.hpp"

namespace test_checked_settings {

using namespace penstock;
using Catch::Matchers::Contains;

namespace {

const runtime::registry& components() {
  static const runtime::registry all = runtime::make_registry();
  return all;
}

result<config::pipeline> parsed(const std::string& text, bool stored = false) {
  return config::parse_pipeline(text, components().catalog(), {.stored = stored});
}

std::string flow(const std::string& from, const std::string& steps, const std::string& to, const std::string& more = "") {
  return "name: p\nflows:\n  f:\n    from: {" + from + "}\n    steps: [" + steps + "]\n    to: {" + to + "}\n" + more;
}
std::string with_step(const std::string& one, const std::string& outputs = "") {
  return flow("topic: t", one, "drop: {}", outputs);
}
std::string job(const std::string& from, const std::string& to) {
  return "name: p\njobs:\n  j:\n    from: {" + from + "}\n    to: {" + to + "}\n";
}

struct row {
  std::string text;
  const char* pointer;
  const char* says;
};

}  // namespace

TEST_CASE("settings that can never work are refused at their component", "[checked]") {
  const std::vector<row> rows{
      {flow("topic: t", "", "http: 'ftp://a/b'"), "/flows/f/to/http", "must begin with http://"},
      {flow("topic: t", "", "http: 'http://'"), "/flows/f/to/http", "url 'http://'"},
      {flow("topic: t", "", "http: 'http://a b/'"), "/flows/f/to/http", "url 'http://a b/': holds a blank"},
      {flow("topic: t", "", "http: 'https://a:x/'"), "/flows/f/to/http", "url 'https://a:x/': the port is"},
      {flow("topic: t", "", "http: 'ftp://${env:NOBODY_SET_THIS}/'"), "/flows/f/to/http", "must begin with http://"},
      {flow("http_poll: 'ftp://a/b'", "", "drop: {}"), "/flows/f/from/http_poll", "must begin with http://"},
      {flow("websocket: 'ws://u@a/'", "", "drop: {}"), "/flows/f/from/websocket", "url 'ws://u@a/': must not hold a user"},
      {flow("websocket: 'http://${env:NOBODY_SET_THIS}/'", "", "drop: {}"), "/flows/f/from/websocket", "must begin with ws://"},
      {flow("sse: 'https://a:x/'", "", "drop: {}"), "/flows/f/from/sse", "url 'https://a:x/': the port is"},
      {flow("topic: t", "", "http: {url: 'http://a', headers: {X: \"a\\r\\nY: b\"}}"), "/flows/f/to/http", "header 'X': its value holds"},
      {flow("topic: t", "", "http: {url: 'http://a', headers: {'A B': c}}"), "/flows/f/to/http", "header 'A B': this is no name"},
      {flow("topic: t", "", "http: {url: 'http://a', headers: {content-length: '3'}}"), "/flows/f/to/http", "is set with each message"},
      {flow("http_poll: {url: 'http://a', headers: {'': b}}", "", "drop: {}"), "/flows/f/from/http_poll", "no name of a header"},
      {flow("sse: {url: 'http://a', headers: {'X:': b}}", "", "drop: {}"), "/flows/f/from/sse", "no name of a header"},
      {flow("websocket: {url: 'ws://a', headers: {X: \"\\x1b\"}}", "", "drop: {}"), "/flows/f/from/websocket", "its value holds"},
      {flow("topic: t", "", "sqlite: {file: a.db, table: t, mode: upsert}"), "/flows/f/to/sqlite", "needs key"},
      {flow("topic: t", "", "file: {path: a, columns: [b]}"), "/flows/f/to/file", "format: csv"},
      {flow("topic: t", "", "file: {path: a, rotate: {keep: 3}}"), "/flows/f/to/file", "size, every or both"},
      {flow("topic: t", "", "file: {path: a, atomic: true}"), "/flows/f/to/file", "for jobs"},
      {flow("file: 'in/*.csv'", "", "drop: {}"), "/flows/f/from/file", "for jobs"},
      {flow("folder: {path: 'i*/a.csv', done: d}", "", "drop: {}"), "/flows/f/from/folder", "last part"},
      {flow("folder: {path: 'in/*.csv', remove: false}", "", "drop: {}"), "/flows/f/from/folder", "needs done"},
      {job("file: {path: a.log, follow: true}", "drop: {}"), "/jobs/j/from/file", "'follow: true' it never ends"},
      {with_step("{rename: {a: x, b: x}}"), "/flows/f/steps/0/rename", "two fields would be named 'x'"},
      {with_step("{rename: {a: 'x..y'}}"), "/flows/f/steps/0/rename", "is not a field"},
      {with_step("{select: [a, b, a]}"), "/flows/f/steps/0/select", "'a' is named twice"},
      {with_step("{cast: {'a..b': number}}"), "/flows/f/steps/0/cast", "is not a field"},
      {with_step("{split: {items: event.l, into: x, keep: {x: event.y}}}"), "/flows/f/steps/0/split", "field that the item"},
      {with_step("{window: {tumbling: 1m, aggregates: {key: count}}}"), "/flows/f/steps/0/window", "field 'key' already"},
      {with_step("{window: {sliding: {size: 1m, every: 2m}}}"), "/flows/f/steps/0/window", "longer than `size`"},
      {with_step("{window: {tumbling: 1m, clock: processing, time: event.t}}"), "/flows/f/steps/0/window", "exclude"},
      {with_step("{window: {session: {gap: 2h, longest: 1h}}}"), "/flows/f/steps/0/window", "longer than `longest`"},
      {with_step("{window: {count: 200000, aggregates: {all: {collect: event.x}}}}"), "/flows/f/steps/0/window", "max_values"},
      {with_step("{sql: DELETE FROM events}"), "/flows/f/steps/0/sql", "only a SELECT"},
      {with_step("{sql: SELEC 1}"), "/flows/f/steps/0/sql", "syntax error"},
      {with_step("{sql: SELECT 1; SELECT 2}"), "/flows/f/steps/0/sql", "one statement only"},
      {with_step("{sql: {select: SELECT 1 AS a FROM events, over: all}}"), "/flows/f/steps/0/sql", "never comes here"},
      {flow("file: {path: a, follow: true}", "{sql: {select: SELECT 1 AS a FROM events, over: all}}", "drop: {}"),
       "/flows/f/steps/0/sql", "never comes here"},
      {with_step("{exec: ['']}"), "/flows/f/steps/0/exec", "name is empty"},
      {with_step("{enrich: {from: {http: 'http://a/b'}, key: event.k, into: x}}"), "/flows/f/steps/0/enrich", "must hold {key}"},
      {with_step("{enrich: {from: {http: 'ftp://a/{key}'}, key: event.k, into: x}}"), "/flows/f/steps/0/enrich", "http://"},
      {with_step("{enrich: {from: {sqlite: {file: a.db, query: 'SELEC ?'}}, key: event.k, into: x}}"),
       "/flows/f/steps/0/enrich", "syntax error"},
      {with_step("{enrich: {from: {sqlite: {file: a.db, query: 'DELETE FROM t WHERE a = ?'}}, key: event.k, into: x}}"),
       "/flows/f/steps/0/enrich", "must be a SELECT"},
      {with_step("{enrich: {from: {sqlite: {file: a.db, query: 'SELECT a FROM t'}}, key: event.k, into: x}}"),
       "/flows/f/steps/0/enrich", "with one ?"},
      {with_step("{route: {big: event.n > 1}}", "    outputs: {big: {http: 'ftp://a'}}\n"), "/flows/f/outputs/big/http", "http://"},
      {"name: p\nflows: {f: {run: [x], to: {http: 'ftp://a'}}}\n", "/flows/f/to/http", "http://"},
      {"name: p\njobs: {j: {tasks: {t: {run: [x], to: {http: 'ftp://a'}}}}}\n", "/jobs/j/tasks/t/to/http", "http://"},
      {"name: p\njobs: {j: {run: [x], alerts: [{on: failure, to: {http: 'ftp://a'}}]}}\n", "/jobs/j/alerts/0/to/http",
       "http://"},
      {"name: p\njobs: {j: {run: [x], alerts: {on: failure, to: {file: {path: a, atomic: true}}}}}\n",
       "/jobs/j/alerts/to/file", "for jobs"},
  };
  for (const row& r : rows) {
    INFO(r.text);
    const auto refused = parsed(r.text);
    REQUIRE(!refused);
    const error e = refused.error();
    REQUIRE(e.problems.size() == 1);
    CHECK(e.problems[0].pointer == r.pointer);
    CHECK(e.problems[0].line > 0);
    CHECK_THAT(e.problems[0].detail, Contains(r.says));
    // What is stored already goes on.
    CHECK(parsed(r.text, true).has_value());
  }
}

TEST_CASE("what may work, or will when something is there, is accepted", "[checked]") {
  for (const std::string& text : std::vector<std::string>{
           flow("topic: t", "", "http: '${env:NOBODY_SET_THIS}/in'"),
           flow("http_poll: 'https://${secret:nobody_made_this}@a/'", "", "drop: {}"),
           flow("http_poll: 'HTTPS://me:pw@[fe80::1%25eth0]:8443/?filter={a|b}'", "", "drop: {}"),
           with_step("{enrich: {from: {http: '${env:NOBODY_SET_THIS}'}, key: event.k, into: x}}"),
           with_step("{enrich: {from: {http: 'http://{key}.example/'}, key: event.k, into: x}}"),
           with_step("{enrich: {from: {sqlite: {file: no.db, query: 'SELECT a FROM nowhere WHERE b = ?'}}, key: event.k, into: x}}"),
           with_step("{enrich: {from: {sqlite: {file: no.db, query: 'with a as (select 1) select my_function(:k)'}}, key: event.k, "
                "into: x}}"),
           with_step("{enrich: {from: {csv: no.csv}, key: event.k, into: x}}"),
           with_step("{split: {items: event.l, keep: {x: event.y}}}"), with_step("{window: {tumbling: 1m}}"),
           with_step("{exec: [no-such-program-anywhere]}"),
           flow("generate: {count: 3}", "{sql: {select: SELECT 1 AS a FROM events, over: all}}", "drop: {}"),
           job("file: 'in/*.csv'", "file: {path: a, atomic: true}"),
           "name: p\ntopics: {t: {}}\njobs: {j: {trigger: {topic: t}, steps: [{sql: {select: SELECT 1 AS a FROM events, "
           "over: all}}], to: drop}}\n",
       }) {
    INFO(text);
    const auto accepted = parsed(text);
    CHECK((accepted ? std::string() : accepted.error().detail) == "");
  }
}

TEST_CASE("all problems come at once, those of records and those of components", "[checked]") {
  const auto refused = parsed(
      "name: p\nflows:\n"
      "  a: {from: {topic: t}, to: {http: 'ftp://a'}}\n"
      "  b: {from: {topic: t}, too: drop}\n"
      "  c: {from: {file: {path: a, follow: maybe}}, steps: [{select: [x, x]}, {sql: {select: SELEC, over: al}}], to: drop}\n"
      "jobs:\n  j: {from: {file: {path: a, follow: 1}}, to: {sqlite: {file: a, table: b, mode: upsert}}}\n");
  REQUIRE(!refused);
  std::vector<std::string> pointers;
  for (const problem& p : refused.error().problems) pointers.push_back(p.pointer);
  const auto count = [&](const char* pointer) { return std::count(pointers.begin(), pointers.end(), pointer); };
  for (const char* wanted : {"/flows/a/to/http", "/flows/b/too", "/flows/c/from/file/follow", "/flows/c/steps/0/select",
                             "/flows/c/steps/1/sql/over", "/jobs/j/from/file/follow", "/jobs/j/to/sqlite"}) {
    INFO(wanted);
    CHECK(count(wanted) == 1);
  }
  CHECK(count("/flows/c/steps/1/sql") == 0);  // its settings were not even read
}

TEST_CASE("a program that is not there is a warning, for it may come", "[checked]") {
  const auto warnings = [](const std::string& program, const std::string& more = "") {
    const auto made = parsed(with_step("{exec: {run: ['" + program + "']" + more + "}}"));
    return made ? made->warnings : std::vector<problem>{{"", 0, 0, made.error().detail}};
  };
  for (const char* missing : {"no-such-program-anywhere", "/no/such/program"}) {
    const auto said = warnings(missing);
    REQUIRE(said.size() == 1);
    CHECK(said[0].pointer == "/flows/f/steps/0/exec");
    CHECK(said[0].line == 5);
    CHECK_THAT(said[0].detail, Contains(missing));
  }
  for (const char* fine : {"sh", "/bin/sh", "tools/later", "${dir}/later", "${env:NOBODY_SET_THIS}"}) {
    INFO(fine);
    CHECK(warnings(fine).empty());
  }
  CHECK(warnings("sh", ", environment: {PATH: /nowhere}").size() == 1);
}

TEST_CASE("a URL in a message has no user and no query", "[checked][http]") {
  CHECK(runtime::without_query("https://a.example/in?token=1#x") == "https://a.example/in");
  CHECK(runtime::without_query("https://me:pw@a.example/in/@b") == "https://a.example/in/@b");
  CHECK(runtime::without_query("http://a.example") == "http://a.example");
  CHECK(runtime::without_query("${env:URL}") == "${env:URL}");
  CHECK(runtime::without_query("") == "");
}

}  // namespace test_checked_settings
