// One row per rule: a definition with one mistake, and exactly where and how it must be reported.
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "config/definition.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

struct broken {
  const char* rule;
  const char* yaml;
  const char* pointer;
  int line, column;
  const char* says;  // a key phrase of the detail
};

const std::vector<broken>& broken_definitions() {
  static const std::vector<broken> all{
      // The text itself.
      {"empty text", "", "", 1, 1, "the document is empty"},
      {"only comments", "# nothing\n", "", 1, 1, "the document is empty"},
      {"not a mapping", "- name: a\n", "", 1, 1, "expected a mapping, got a list"},
      {"value with colon", "name: a\ndescription: b: c\n", "", 2, 15, "must be in quotes"},
      {"unclosed bracket", "name: a\nflows: {f: {run: [a, b}\n", "/flows/f/run/1", 2, 23, "not valid YAML"},
      {"tab as indentation", "name: a\ntopics:\n\torders: {}\n", "", 3, 1, "not with tabs"},
      {"duplicate key", "name: a\ntopics:\n  t: {}\n  u: {}\n  t: {}\n", "/topics/t", 5, 3,
       "duplicate key 't'; the first is on line 3"},
      {"merge key", "name: a\nx: &x {}\n", "/x", 2, 1, "unknown key 'x'"},
      {"merge keys are YAML 1.1", "name: a\ntopics: {t: &t {retain: 1d}, u: {<<: *t}}\n", "/topics/u/<<", 2,
       34, "merge keys"},
      {"second document", "name: a\n---\nname: b\n", "", 2, 1, "a second document"},
      {"text after the document", "{name: a} b\n", "", 1, 11, "unexpected text"},
      {"tag", "name: !secret a\n", "/name", 1, 7, "the tag '!secret' has no meaning"},
      {"list as key", "name: a\n? [x]\n: y\n", "", 2, 3, "a key must be a text"},
      {"a quote that is not closed", "name: a\ndescription: \"orders\ntopics: {t: {}}\n", "/description", 2, 14, "never closed"},
      {"the same with the other quote", "name: a\ndescription: 'it''s\ntopics: {t: {}}\n", "/description", 2, 14, "never closed"},
      {"one whose last is escaped", "name: a\ndescription: \"orders\\\"\n", "/description", 2, 14, "never closed"},
      {"unknown alias", "name: *nobody\n", "/name", 1, 7, "not valid YAML"},
      {"control character", "name: a\ndescription: \"\x01\"\n", "", 2, 15, "control character"},
      {"not UTF-8", "name: a\ndescription: \xff\n", "", 2, 14, "not valid UTF-8"},

      // Keys and types.
      {"unknown key at the top", "name: a\nflow: {}\n", "/flow", 2, 1,
       "unknown key 'flow'; did you mean 'flows'?"},
      {"unknown key far from any", "name: a\nquux: 1\n", "/quux", 2, 1,
       "known: name, description, workdir, max_active, pools, topics, flows, jobs"},
      {"misspelt from", "name: a\nflows:\n  intake:\n    form: {topic: x}\n    to: {topic: y}\n",
       "/flows/intake/form", 4, 5, "unknown key 'form'; did you mean 'from'?"},
      {"camel case", "name: a\njobs:\n  j: {run: [x], onOverlap: skip}\n", "/jobs/j/onOverlap", 3, 17,
       "did you mean 'on_overlap'?"},
      {"pointer with / and ~", "name: a\n\"b/c~d\": 1\n", "/b~1c~0d", 2, 1, "unknown key 'b/c~d'"},
      {"name missing", "description: x\n", "", 1, 1, "the key 'name' is missing"},
      {"name empty", "name:\n", "/name", 1, 1, "nothing stands here"},
      {"name with capitals", "name: My Orders\n", "/name", 1, 7, "write 'my_orders'"},
      {"topic name", "name: a\ntopics:\n  2fast: {}\n", "/topics/2fast", 3, 3, "'2fast' is not a name"},
      {"flow is a text", "name: a\nflows:\n  f: run\n", "/flows/f", 3, 6, "expected a mapping, got a text"},
      {"topics is a list", "name: a\ntopics: [orders]\n", "/topics", 2, 9, "expected a mapping"},
      {"steps is a mapping", "name: a\njobs: {j: {steps: {filter: x}, to: drop}}\n", "/jobs/j/steps", 2, 19,
       "expected a list"},
      {"columns count characters", "name: a\ndescription: \"äöü€😀\"\njobs: {j: {run: [\"äöü\"], x: 1}}\n",
       "/jobs/j/x", 3, 26, "unknown key 'x'"},

      // Units and numbers.
      {"duration without unit", "name: a\ntopics: {t: {retain: 30}}\n", "/topics/t/retain", 2, 22,
       "expected a duration with its unit, such as 7d, got the number 30"},
      {"duration of nothing", "name: a\ntopics: {t: {retain: 0s}}\n", "/topics/t/retain", 2, 22,
       "at least 1ms"},
      {"duration beyond all time", "name: a\ntopics: {t: {retain: 40000d}}\n", "/topics/t/retain", 2, 22,
       "longer than 36500d"},
      {"size without unit", "name: a\ntopics: {t: {max_bytes: 1000}}\n", "/topics/t/max_bytes", 2, 25,
       "expected a size with its unit"},
      {"size with a wrong unit", "name: a\ntopics: {t: {max_bytes: 5 gigs}}\n", "/topics/t/max_bytes", 2, 25,
       "got the text '5 gigs'"},
      {"range backwards", "name: a\njobs: {j: {run: [x], retry: {backoff: 5m..10s}}}\n",
       "/jobs/j/retry/backoff", 2, 39, "runs backwards"},
      {"number in quotes", "name: a\njobs: {j: {run: [x], retry: {attempts: \"3\"}}}\n",
       "/jobs/j/retry/attempts", 2, 40, "expected a whole number, got the text '3'"},
      {"number out of range", "name: a\njobs: {j: {run: [x], retry: {attempts: 0}}}\n",
       "/jobs/j/retry/attempts", 2, 40, "must be from 1 to 1000, not 0"},
      {"fraction for a whole number", "name: a\njobs: {j: {run: [x], queue_limit: 1.5}}\n",
       "/jobs/j/queue_limit", 2, 35, "expected a whole number"},
      {"grace too long", "name: a\njobs: {j: {run: [x], grace: 2d}}\n", "/jobs/j/grace", 2, 29, "at most 1d"},
      {"choice", "name: a\njobs: {j: {run: [x], on_overlap: repalce}}\n", "/jobs/j/on_overlap", 2, 34,
       "did you mean 'replace'?"},
      {"yes is no boolean", "name: a\nflows: {f: {from: {topic: t}, to: {http: {url: u, compress: yes}}}}\n",
       "/flows/f/to/http/compress", 2, 61, "expected true or false, got the text 'yes'"},
      {"not a time", "name: a\njobs: {j: {from: {file: {path: a, since: 2018-02-30T00:00:00Z}}, to: drop}}\n",
       "/jobs/j/from/file/since", 2, 42, "RFC 3339"},

      // Flows, jobs and tasks.
      {"flow without work", "name: a\nflows:\n  f: {}\n", "/flows/f", 3, 3,
       "a flow needs 'from' and 'to', or 'run'"},
      {"flow with nothing at all", "name: a\nflows:\n  f:\n", "/flows/f", 3, 3, "a flow needs"},
      {"flow without to", "name: a\nflows:\n  f:\n    from: {topic: t}\n", "/flows/f", 3, 3,
       "the key 'to' is missing"},
      {"flow with both", "name: a\nflows: {f: {run: [x], from: {topic: t}}}\n", "/flows/f/from", 2, 23,
       "exclude each other"},
      {"flow with environment but no run",
       "name: a\nflows: {f: {from: {topic: t}, to: drop, environment: {A: b}}}\n", "/flows/f/environment", 2,
       41, "'environment' goes with 'run'"},
      {"flow reading what ends", "name: a\nflows: {f: {from: {file: x}, to: drop}}\n", "/flows/f/from/file",
       2, 20, "'file' comes to an end, so a flow cannot read it; a flow reads: generate, topic, webhook"},
      {"job reading what never ends", "name: a\njobs: {j: {from: {webhook: {path: /x}}, to: drop}}\n",
       "/jobs/j/from/webhook", 2, 19, "never ends, so a job cannot read it; a job reads: file, generate"},
      {"job without work", "name: a\njobs:\n  j: {trigger: {every: 5m}}\n", "/jobs/j", 3, 3,
       "a job needs something to do"},
      {"job with steps but no to", "name: a\njobs: {j: {steps: [{filter: x}]}}\n", "/jobs/j", 2, 8,
       "the key 'to' is missing"},
      {"job with tasks and run", "name: a\njobs: {j: {run: [x], tasks: {t: {run: [y]}}}}\n", "/jobs/j/run", 2,
       12, "'run' and 'tasks' exclude each other"},
      {"no tasks", "name: a\njobs: {j: {tasks: {}}}\n", "/jobs/j/tasks", 2, 12,
       "number of entries must be at least 1"},
      {"task without work", "name: a\njobs: {j: {tasks: {t: {needs: []}}}}\n", "/jobs/j/tasks/t", 2, 20,
       "a task needs"},
      {"command as text", "name: a\njobs: {j: {run: ls -l}}\n", "/jobs/j/run", 2, 17,
       "expected a list, such as [python3, extract.py], got a text"},
      {"empty command", "name: a\njobs: {j: {run: []}}\n", "/jobs/j/run", 2, 12, "at least 1"},
      {"empty program", "name: a\njobs: {j: {run: [\"\", x]}}\n", "/jobs/j/run/0", 2, 18,
       "program's name is empty"},
      {"empty argument", "name: a\njobs:\n  j:\n    run:\n      - x\n      -\n      - y\n", "/jobs/j/run/1",
       6, 7, "nothing stands here"},
      {"environment name", "name: a\njobs: {j: {run: [x], environment: {1A: b}}}\n", "/jobs/j/environment/1A",
       2, 36, "cannot name an environment variable"},
      {"environment of the daemon", "name: a\njobs: {j: {run: [x], environment: {PENSTOCK_RUN_ID: b}}}\n",
       "/jobs/j/environment/PENSTOCK_RUN_ID", 2, 36, "the daemon itself sets"},
      {"NUL in an argument", "name: a\njobs: {j: {run: [\"a\\0b\"]}}\n", "/jobs/j/run/0", 2, 18, "NUL"},
      {"relative workdir", "name: a\nworkdir: scripts\n", "/workdir", 2, 10, "absolute or begin with ${dir}"},
      {"needs a stranger",
       "name: a\njobs: {j: {tasks: {extract: {run: [x]}, render: {run: [y], needs: [extrct]}}}}\n",
       "/jobs/j/tasks/render/needs/0", 2, 68, "there is no task 'extrct'; did you mean 'extract'?"},
      {"needs itself", "name: a\njobs: {j: {tasks: {t: {run: [x], needs: t}}}}\n", "/jobs/j/tasks/t/needs", 2,
       41, "t -> t"},
      {"needs in a circle",
       "name: a\njobs:\n  j:\n    tasks:\n      a: {run: [x], needs: [c]}\n      b: {run: [x], needs: [a]}\n"
       "      c: {run: [x], needs: [b]}\n      d: {run: [x], needs: [c]}\n",
       "/jobs/j/tasks/a/needs/0", 5, 29, "a -> c -> b -> a"},

      // Triggers.
      {"trigger of no kind", "name: a\njobs: {j: {run: [x], trigger: {}}}\n", "/jobs/j/trigger", 2, 22,
       "one of these is missing: topic, cron, every, at, after, file, webhook"},
      {"trigger of two kinds", "name: a\njobs: {j: {run: [x], trigger: {every: 5m, cron: \"@daily\"}}}\n",
       "/jobs/j/trigger/cron", 2, 43, "'cron' and 'every' exclude each other"},
      {"key of another kind", "name: a\njobs: {j: {run: [x], trigger: {cron: \"@daily\", max_wait: 5m}}}\n",
       "/jobs/j/trigger/max_wait", 2, 48, "'max_wait' goes with a topic trigger"},
      {"in a list of triggers",
       "name: a\njobs:\n  j:\n    run: [x]\n    trigger:\n      - every: 5m\n      - topic: t\n        "
       "missed: all\n",
       "/jobs/j/trigger/1/missed", 8, 9, "'missed' goes with a cron trigger"},
      {"topic twice", "name: a\njobs: {j: {run: [x], trigger: [{topic: t}, {topic: t}]}}\n",
       "/jobs/j/trigger/1/topic", 2, 52, "starts this job already"},
      {"topic name in a trigger", "name: a\njobs: {j: {run: [x], trigger: {topic: T}}}\n",
       "/jobs/j/trigger/topic", 2, 39, "write 't'"},
      {"cron field", "name: a\njobs: {j: {run: [x], trigger: {cron: \"0 25 * * *\"}}}\n",
       "/jobs/j/trigger/cron", 2, 38, "hour: '25' is not a number from 0 to 23"},
      {"cron day that never comes", "name: a\njobs: {j: {run: [x], trigger: {cron: \"0 0 30 2 *\"}}}\n",
       "/jobs/j/trigger/cron", 2, 38, "never comes"},
      {"time zone", "name: a\njobs: {j: {run: [x], trigger: {cron: \"@daily\", timezone: Europe/Madird}}}\n",
       "/jobs/j/trigger/timezone", 2, 58, "did you mean 'Europe/Madrid'?"},
      {"city as time zone", "name: a\njobs: {j: {run: [x], trigger: {cron: \"@daily\", timezone: Madrid}}}\n",
       "/jobs/j/trigger/timezone", 2, 58, "did you mean 'Europe/Madrid'?"},
      {"after a stranger", "name: a\njobs: {load: {run: [x]}, j: {run: [x], trigger: {after: laod}}}\n",
       "/jobs/j/trigger/after", 2, 57, "this pipeline has no job 'laod'; did you mean 'load'?"},
      {"after a stranger of this pipeline by its full name",
       "name: a\njobs: {load: {run: [x]}, j: {run: [x], trigger: {after: {job: a.laod}}}}\n",
       "/jobs/j/trigger/after/job", 2, 63, "has no job 'laod'"},
      {"after something unnameable", "name: a\njobs: {j: {run: [x], trigger: {after: a.b.c}}}\n",
       "/jobs/j/trigger/after", 2, 39, "neither a job nor pipeline.job"},
      {"pipeline given twice",
       "name: a\njobs: {j: {run: [x], trigger: {after: {job: o.load, pipeline: p}}}}\n",
       "/jobs/j/trigger/after/job", 2, 45, "names a pipeline, and so does 'pipeline'"},
      {"after each other",
       "name: a\njobs:\n  one: {run: [x], trigger: {after: two}}\n  two: {run: [x], trigger: {after: "
       "a.one}}\n",
       "/jobs/one/trigger/after", 3, 36, "one -> two -> one"},

      // Components.
      {"unknown source", "name: a\nflows: {f: {from: {webhok: {path: /x}}, to: drop}}\n",
       "/flows/f/from/webhok", 2, 20, "unknown source 'webhok'; did you mean 'webhook'?"},
      {"unknown sink by bare name", "name: a\nflows: {f: {from: {topic: t}, to: dorp}}\n", "/flows/f/to", 2,
       31, "unknown sink 'dorp'; did you mean 'drop'?"},
      {"source as sink", "name: a\nflows: {f: {from: {topic: t}, to: {webhook: {path: /x}}}}\n",
       "/flows/f/to/webhook", 2, 36,
       "unknown sink 'webhook': that is a source; known: drop, http, sqlite, topic"},
      {"two steps in one", "name: a\njobs: {j: {steps: [{filter: x, map: {a: b}}], to: drop}}\n",
       "/jobs/j/steps/0/map", 2, 32, "'filter' is one already; begin a new list item"},
      {"step without a component", "name: a\njobs: {j: {steps: [{name: x}], to: drop}}\n", "/jobs/j/steps/0",
       2, 20, "a step is missing; known: filter, map, script"},
      {"component without its settings", "name: a\nflows: {f: {from: {topic: t}, to: http}}\n", "/flows/f/to",
       2, 31, "'http' needs settings, such as http: {url:"},
      {"component with a setting missing",
       "name: a\nflows: {f: {from: {topic: t}, to: {sqlite: {file: x}}}}\n", "/flows/f/to/sqlite", 2, 36,
       "the key 'table' is missing"},
      {"component with an unknown setting",
       "name: a\nflows: {f: {from: {topic: t}, to: {http: {url: u, methode: PUT}}}}\n",
       "/flows/f/to/http/methode", 2, 51, "did you mean 'method'?"},
      {"step name twice",
       "name: a\njobs: {j: {steps: [{filter: x, name: n}, {filter: y, name: n}], to: drop}}\n",
       "/jobs/j/steps/1/name", 2, 60, "the name 'n' is taken"},
      {"step name that another gets by itself",
       "name: a\njobs: {j: {steps: [{filter: x, name: map_2}, {map: {a: b}}], to: drop}}\n",
       "/jobs/j/steps/0/name", 2, 38, "is taken"},
      {"expression", "name: a\njobs: {j: {steps: [{filter: \"f(x\"}], to: drop}}\n", "/jobs/j/steps/0/filter",
       2, 29, "not valid Lua: ')' expected"},
      {"empty expression", "name: a\njobs: {j: {steps: [{filter: \" \"}], to: drop}}\n",
       "/jobs/j/steps/0/filter", 2, 29, "empty; expected a Lua expression"},
      {"number beyond its bounds", "name: a\nflows: {f: {from: {generate: {jitter: 1.25}}, to: drop}}\n",
       "/flows/f/from/generate/jitter", 2, 39, "must be from 0 to 1, not 1.25"},
      {"size beyond its bounds",
       "name: a\nflows: {f: {from: {topic: t}, to: {sqlite: {file: x, table: t, cache: 2GiB}}}}\n",
       "/flows/f/to/sqlite/cache", 2, 71, "at most 1GiB, not 2GiB"},

      // Secrets.
      {"secret in the clear",
       "name: a\nflows: {f: {from: {webhook: {path: /x, signature: {scheme: github, secret: hunter2}}}, to: "
       "drop}}\n",
       "/flows/f/from/webhook/signature/secret", 2, 76, "by reference only"},
      {"secret of an unknown kind",
       "name: a\nflows: {f: {from: {webhook: {path: /x, signature: {scheme: github, secret: \"${evn:S}\"}}}, "
       "to: drop}}\n",
       "/flows/f/from/webhook/signature/secret", 2, 76, "unknown kind of reference 'evn'"},
      {"reference of an unknown kind in a text", "name: a\njobs: {j: {run: [x, \"--token=${sercet:t}\"]}}\n",
       "/jobs/j/run/1", 2, 21, "did you mean 'secret'?"},
      {"reference to no variable", "name: a\njobs: {j: {run: [x], environment: {A: \"${env:1}\"}}}\n",
       "/jobs/j/environment/A", 2, 39, "write ${env:NAME}"},
      {"reference without end", "name: a\njobs: {j: {run: [x, \"${env:A\"]}}\n", "/jobs/j/run/1", 2, 21,
       "has no closing brace"},
      {"relative secret file", "name: a\njobs: {j: {run: [x, \"${file:token}\"]}}\n", "/jobs/j/run/1", 2, 21,
       "needs an absolute path"},
      {"secret outside its folder", "name: a\njobs: {j: {run: [x, \"${secret:../passwd}\"]}}\n",
       "/jobs/j/run/1", 2, 21, "names no secret"},

      // JSON is YAML to us, with JSON's own escapes.
      {"JSON with a duplicate key", "{\"name\": \"a\",\n \"topics\": {\"t\": {}, \"t\": {}}}", "/topics/t", 2,
       22, "duplicate key 't'"},
      {"JSON behind a surrogate pair", "{\"name\": \"a\", \"description\": \"\\ud83d\\ude00\", \"form\": 1}",
       "/form", 1, 46, "unknown key 'form'"},
      {"JSON cut short", "{\"name\": \"a\"", "", 1, 13, "not valid YAML"},
  };
  return all;
}

}  // namespace

TEST_CASE("each broken definition is reported where it is broken", "[config][broken]") {
  CHECK(broken_definitions().size() >= 40);
  for (const broken& row : broken_definitions()) {
    DYNAMIC_SECTION(row.rule) {
      const auto parsed = parse_pipeline(row.yaml, testing::small_catalog());
      REQUIRE(!parsed);
      const error e = parsed.error();
      std::string all;
      for (const problem& p : e.problems) all += "\n" + describe(p, "");
      INFO("problems:" << all);
      REQUIRE(e.problems.size() == 1);
      const problem& p = e.problems.front();
      CHECK(p.pointer == row.pointer);
      CHECK(p.line == row.line);
      CHECK(p.column == row.column);
      CHECK_THAT(p.detail, Catch::Matchers::Contains(row.says));
      CHECK(p.detail.find('\n') == std::string::npos);
      CHECK(p.detail.find("hunter2") == std::string::npos);
    }
  }
}

TEST_CASE("all problems of a definition come at once, in the order of the text", "[config][broken]") {
  const auto parsed = parse_pipeline(
      "name: Orders\n"
      "flows:\n"
      "  f:\n"
      "    form: {topic: t}\n"
      "    to: {sqlite: {file: x}}\n"
      "jobs:\n"
      "  j:\n"
      "    trigger: {cron: \"61 * * * *\", timezone: Nowhere/Land, timezone: UTC}\n"
      "    tasks:\n"
      "      a: {run: [x], needs: [b]}\n"
      "      b: {run: [x], needs: [a], timeout: 5}\n"
      "    retry: {attempts: many}\n",
      testing::small_catalog(), {.file = "orders.yaml"});
  REQUIRE(!parsed);
  const error e = parsed.error();
  CHECK(e.code == errc::invalid);
  std::vector<std::pair<int, std::string>> found;
  for (const problem& p : e.problems) found.emplace_back(p.line, p.pointer);
  const std::vector<std::pair<int, std::string>> expected{
      {1, "/name"},
      {4, "/flows/f/form"},
      {5, "/flows/f/to/sqlite"},
      {8, "/jobs/j/trigger/cron"},
      {8, "/jobs/j/trigger/timezone"},
      {8, "/jobs/j/trigger/timezone"},
      {10, "/jobs/j/tasks/a/needs/0"},
      {11, "/jobs/j/tasks/b/timeout"},
      {12, "/jobs/j/retry/attempts"},
  };
  CHECK(found == expected);
  CHECK_THAT(e.detail, Catch::Matchers::StartsWith("9 problems; the first: orders.yaml:1:7: /name: "));
}

TEST_CASE("a syntax error is malformed, a broken rule is invalid", "[config][broken]") {
  CHECK(parse_pipeline("a: [", testing::small_catalog()).error().code == errc::malformed);
  CHECK(parse_pipeline("a: 1", testing::small_catalog()).error().code == errc::invalid);
}

TEST_CASE("the list of problems is bounded", "[config][broken]") {
  std::string yaml = "name: a\n";
  for (int i = 0; i < 40'000; ++i) yaml += "x" + std::to_string(i) + ": 1\n";
  const auto parsed = parse_pipeline(yaml, testing::small_catalog());
  REQUIRE(!parsed);
  CHECK(parsed.error().problems.size() == 200);
  CHECK_THAT(parsed.error().detail, Catch::Matchers::StartsWith("200 or more problems"));
}

TEST_CASE("a problem is described on one line, like a compiler does", "[config][broken]") {
  const problem p{"/flows/intake/form", 12, 5, "unknown key 'form'; did you mean 'from'?"};
  CHECK(describe(p, "orders.yaml") ==
        "orders.yaml:12:5: /flows/intake/form: unknown key 'form'; did you mean 'from'?");
  CHECK(describe(p, "") == "12:5: /flows/intake/form: unknown key 'form'; did you mean 'from'?");
  CHECK(describe(problem{"", 0, 0, "no"}, "a.yaml") == "a.yaml: no");
}

}  // namespace penstock::config
