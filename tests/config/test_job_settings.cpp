// What a job can be told beside its work, from YAML to structs.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "config/diff.hpp"
#include "from_text.hpp"
#include "good_definitions.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

using namespace std::chrono_literals;
using names = std::vector<std::string>;
using testing::parsed;

job job_of(const std::string& settings) {
  return parsed("name: a\npools: {db: 3, api: 1}\njobs: {j: {run: [x], " + settings + "}}").jobs.at("j");
}

}  // namespace

TEST_CASE("commands say as whom, where and within which bounds", "[config][jobs]") {
  const pipeline p = parsed(testing::jobs_yaml);
  const process_settings& s = std::get<command>(p.flows.at("model").does).process;
  CHECK(s.user == "model");
  CHECK(s.group == "1000");
  CHECK(s.workdir == "bin");
  CHECK(s.umask == 027);
  CHECK(s.nice == 5);
  CHECK(s.io == io_class::best_effort);
  CHECK(s.limits == resource_limits{512 << 20, 0.5, 60s, 256, 64, 1 << 30});
  const process_settings& report = std::get<command>(p.jobs.at("graph").tasks.at(4).does).process;
  CHECK(report.umask == 7);
  CHECK(report.io == io_class::idle);
  CHECK(std::get<command>(p.jobs.at("told").tasks.at(0).does).process == process_settings{});
  for (const auto& [text, mask] : {std::pair{"0", 0}, {"22", 022}, {"777", 0777}, {"\"0022\"", 022}}) {
    const job j = job_of("umask: " + std::string(text));
    CHECK(std::get<command>(j.tasks.at(0).does).process.umask == mask);
  }
}

TEST_CASE("a supervised command says when it is ready", "[config][jobs]") {
  const pipeline p = parsed(testing::jobs_yaml);
  CHECK(p.flows.at("model").ready ==
        readiness_probe{"http://127.0.0.1:9000/healthz", "", {}, 500ms, 1min});
  CHECK(p.flows.at("port").ready == readiness_probe{"", "[::1]:9000", {}, 1s, 30s});
  CHECK(p.flows.at("asked").ready == readiness_probe{"", "", {"./ask", "now"}, 1s, 30s});
  CHECK_FALSE(p.flows.at("hook").ready);
}

TEST_CASE("every kind of trigger", "[config][jobs]") {
  const auto triggers = parsed(testing::jobs_yaml).jobs.at("triggers").triggers;
  REQUIRE(triggers.size() == 7);
  CHECK(triggers[0] == trigger{topic_trigger{"orders", "event.total > 5", 10'000, 1min, 0s, 10s}});
  CHECK(triggers[1] == trigger{at_trigger{*parse_time("2026-12-01T05:00:00Z")}});
  CHECK(triggers[2] == trigger{file_trigger{"inbox/*.csv", 1s, 1, 0s, "", "", false}});
  CHECK(triggers[3] == trigger{file_trigger{"${dir}/in/[a-c]?.json", 5s, 10, 2s, "done", "../failed", false}});
  CHECK(triggers[4] == trigger{file_trigger{"/var/spool/x", 1s, 1, 0s, "", "", true}});
  CHECK(triggers[5] == trigger{webhook_trigger{"/deploy", nullptr}});
  const auto& hook = std::get<webhook_trigger>(triggers[6]);
  CHECK(hook.path == "/signed");
  CHECK(hook.signature.dump() == R"({"header":"X-Sig","secret":"${env:HOOK}","prefix":"sha256=",)"
                                 R"("scheme":"hmac-sha256","encoding":"hex"})");
  CHECK(parsed("name: a\njobs: {j: {run: [x], trigger: {file: {path: x, move_to: d, remove: false}}}}")
            .jobs.size() == 1);
}

TEST_CASE("a signature has what its scheme leaves open", "[config][jobs]") {
  const auto signature_of = [](const std::string& text) {
    const auto p = parsed("name: a\njobs: {j: {run: [x], trigger: {webhook: {path: /d, signature: {" + text + "}}}}}");
    return std::get<webhook_trigger>(p.jobs.at("j").triggers.at(0)).signature.dump();
  };
  CHECK(signature_of("scheme: github, secret: '${env:A}'") == R"({"scheme":"github","secret":"${env:A}"})");
  CHECK(signature_of("scheme: stripe, secrets: ['${env:A}', '${file:/b}'], tolerance: 1m") ==
        R"({"scheme":"stripe","secrets":["${env:A}","${file:/b}"],"tolerance":60000000000})");
  CHECK(signature_of("scheme: standard, secret: '${env:A}', replay_window: 1h, replay_limit: 5") ==
        R"({"scheme":"standard","secret":"${env:A}","replay_window":3600000000000,"replay_limit":5,"tolerance":300000000000})");
  CHECK(signature_of("header: X, secret: '${env:A}', replay_window: 0s") ==
        R"({"header":"X","secret":"${env:A}","replay_window":0,"scheme":"hmac-sha256","encoding":"hex","prefix":""})");
}

TEST_CASE("tasks with conditions and lists", "[config][jobs]") {
  const job graph = parsed(testing::jobs_yaml).jobs.at("graph");
  REQUIRE(graph.tasks.size() == 5);
  CHECK(graph.tasks[0].allow_failure);
  CHECK_FALSE(graph.tasks[0].fans_out);
  CHECK(graph.tasks[1].fans_out);
  CHECK(graph.tasks[1].for_each_expression == "tasks[\"list-files\"].output.names");
  CHECK(graph.tasks[1].max_parallel == 2);
  CHECK(graph.tasks[2].for_each_items == std::vector<value>{"eu", value{{"name", "us"}}, 3});
  CHECK(graph.tasks[2].max_parallel == 4);
  CHECK(graph.tasks[3].fans_out);
  CHECK(graph.tasks[3].for_each_items.empty());
  CHECK(graph.tasks[3].for_each_expression.empty());
  CHECK_FALSE(graph.tasks[4].condition.empty());
  CHECK_FALSE(graph.free_params);
  CHECK(graph.pools == std::map<std::string, std::int64_t>{{"api", 1}, {"db", 1}});
  CHECK(graph.overlap_key == "event.id .. run.id");
  CHECK(graph.on_overlap == overlap_rule::queue);
}

TEST_CASE("everything else about a job", "[config][jobs]") {
  const pipeline p = parsed(testing::jobs_yaml);
  CHECK(p.max_active == 8);
  CHECK(p.pools == std::map<std::string, std::int64_t>{{"api", 1}, {"db", 2}});
  const job& told = p.jobs.at("told");
  CHECK(told.on_overlap == overlap_rule::replace);
  CHECK(told.overlap_key == "params.region");
  CHECK(told.max_active == 3);
  CHECK(told.priority == 9);
  CHECK(told.pools == std::map<std::string, std::int64_t>{{"db", 2}});
  CHECK(told.deadline == nanoseconds{1h});
  CHECK(told.retry == retry_rule{4, 1s, 1min, {75, 1}, {}, retry_budget{20, 1h}});
  CHECK(p.jobs.at("graph").retry.not_exit_codes == std::vector<int>{2});
  REQUIRE(told.alerts.size() == 2);
  CHECK(told.alerts[0].on == std::vector<alert_event>{alert_event::failure, alert_event::late});
  CHECK(told.alerts[0].late_after == nanoseconds{10min});
  CHECK(told.alerts[0].to.component == "http");
  CHECK(told.alerts[0].to.name == "to");
  CHECK(told.alerts[1].late_after == 0s);
  CHECK(told.history == history_rule{100, nanoseconds{720h}});
  REQUIRE(told.params.size() == 10);
  CHECK(told.params[0] == parameter{"region", parameter_type::string, "Where", "eu", {"eu", "us"}, {}, {}});
  CHECK(told.params[1] == parameter{"count", parameter_type::integer, "", {}, {}, 1, {}});
  CHECK(told.params[2].fallback == value("1.10"));
  CHECK(told.params[9] == parameter{"free-form", parameter_type::string, "", {}, {}, {}, {}});
  CHECK(p.document.at("jobs").at("told").at("params").at("plain").dump() ==
        R"({"default":"hello","type":"string"})");

  const job& plain = p.jobs.at("one_pool");
  CHECK(plain.free_params);
  CHECK(plain.priority == 5);
  CHECK_FALSE(plain.max_active);
  CHECK_FALSE(plain.deadline);
  CHECK(plain.alerts.empty());
  CHECK(plain.history == history_rule{});
  CHECK_FALSE(plain.tasks[0].fans_out);
}

TEST_CASE("short forms mean what the long ones do", "[config][jobs]") {
  CHECK(job_of("pools: db") == job_of("pools: [db]"));
  CHECK(job_of("pools: [db, api]") == job_of("pools: {db: 1, api: 1}"));
  CHECK(job_of("pools: []") == job_of("pools: {}"));
  CHECK(job_of("on_overlap: skip") == job_of("on_overlap: {rule: skip}"));
  CHECK(job_of("on_overlap: {}") == job_of("grace: 10s"));
  CHECK(job_of("retry: {exit_codes: 75}") == job_of("retry: {exit_codes: [75]}"));
  CHECK(job_of("alerts: {on: failure, to: drop}") == job_of("alerts: [{on: [failure], to: {drop: {}}}]"));
  CHECK(job_of("params: {a: 1}") == job_of("params: {a: {default: 1}}"));
  CHECK(job_of("trigger: {file: x}") == job_of("trigger: [{file: {path: x}}]"));
  CHECK(job_of("trigger: {webhook: /x}") == job_of("trigger: [{webhook: {path: /x}}]"));
}

TEST_CASE("what an expression may speak of is not refused", "[config][jobs]") {
  // Free parameters are known to nobody; a function's own variables may have any name; a shell keeps its own.
  parsed("name: a\njobs: {j: {run: [x, \"${params.anything.at.all}\", \"${params}\", \"${HOME} $item\"]}}");
  parsed("name: a\njobs: {j: {tasks: {t: {run: [x], if: \"f(function(item) return item end)\"}}}}");
  parsed("name: a\nflows: {f: {run: [sh, -c, \"echo ${item[0]} ${run} ${tasks[@]}\"]}}");
  // Needed through others, though not in the order written.
  parsed("name: a\njobs: {j: {tasks: {c: {run: [x, \"${tasks.a.output}\"], needs: b}, b: {run: [x], needs: [a]}, "
         "a: {run: [x]}}}}");
  // One slip is one problem: a misspelt need is not also a missing one.
  const auto slip = parse_pipeline(
      "name: a\njobs: {j: {tasks: {load: {run: [x]}, t: {run: [x, \"${tasks.load.output}\"], needs: laod}}}}",
      testing::small_catalog());
  REQUIRE_FALSE(slip.has_value());
  CHECK(slip.error().problems.size() == 1);
}

TEST_CASE("a shell, other languages and guards are left alone", "[config][jobs]") {
  parsed("name: a\njobs: {j: {run: [sh, -c, \"${HOME} ${VAR:-default} ${parms} ${parms[1]} ${PARMS:-x} $parms.x\"]}}");
  parsed("name: a\njobs: {j: {run: [node, -e, \"`${ items.length } ${user.name} ${(items.n)}`\"]}}");
  parsed("name: a\njobs: {j: {steps: [{filter: \"string.len(event.x) > 1 and math.abs(event.y) > 1\"}], to: drop}}");
  // What may be absent is asked for first.
  parsed("name: a\nflows: {f: {from: {topic: t}, steps: [{filter: \"not params or params.x\"}], to: drop}}");
  parsed("name: a\njobs: {j: {run: [x], trigger: [{topic: t}, {every: 1m}], "
         "on_overlap: {key: \"params and params.x or (event or {}).x\"}}}");
  // With a topic trigger the key says which events share a run, whatever the rule.
  parsed("name: a\njobs: {j: {run: [x], trigger: {topic: t}, on_overlap: {rule: allow, key: event.x}}}");
  // As long as what bounds it is long enough.
  parsed("name: a\njobs: {j: {tasks: {t: {run: [x], timeout: 1h}}, timeout: 1h, deadline: 1h, "
         "trigger: {topic: t, debounce: 1m, max_wait: 1m}}}");
  parsed("name: a\njobs: {j: {run: [x], trigger: {topic: t, debounce: 1m, max_wait: 0s}, params: {x: 1}}}");
  parsed("name: a\njobs: {j: {run: [x], trigger: [], params: {x: {type: integer}}}}");
}

TEST_CASE("pools and max_active are settings of the pipeline", "[config][jobs]") {
  const pipeline before = parsed("name: a\npools: {db: 2}\njobs: {j: {run: [x], pools: db}}");
  const pipeline wider = parsed("name: a\npools: {db: 3}\njobs: {j: {run: [x], pools: db}}");
  const pipeline bounded = parsed("name: a\npools: {db: 2}\nmax_active: 1\njobs: {j: {run: [x], pools: db}}");
  CHECK(diff(&before, &wider).settings_changed);
  CHECK(diff(&before, &wider).jobs.empty());
  CHECK(diff(&before, &bounded).settings_changed);
  CHECK(diff(&before, &before).empty());
  const pipeline other = parsed("name: a\npools: {db: 2}\njobs: {j: {run: [x], pools: {db: 2}}}");
  CHECK(diff(&before, &other).jobs.changed == names{"j"});
}

TEST_CASE("large definitions of expressions are no trouble", "[config][jobs]") {
  // Every task speaks of the first one, which it needs through all that lie between.
  std::string chain = "name: big\njobs:\n  j:\n    tasks:\n      t0: {run: [x]}\n";
  for (int i = 1; i < 8'000; ++i) {
    chain += "      t" + std::to_string(i) + ": {run: [\"${tasks.t0.output}\"], ";
    chain += "needs: t" + std::to_string(i - 1) + "}\n";
  }
  CHECK(parsed(chain).jobs.at("j").tasks.size() == 8'000);
  std::string many = "name: big\njobs: {j: {run: [x], params: {";
  for (int i = 0; i < 20'000; ++i) many += "p" + std::to_string(i) + ": 1, ";
  CHECK(parsed(many + "}}}").jobs.at("j").params.size() == 20'000);
}

}  // namespace penstock::config
