// The shape of what REST shows, and bodies that REST reads: pure, no sockets.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "api/event_body.hpp"
#include "api/event_stream.hpp"
#include "api/json.hpp"
#include "api/log_stream.hpp"
#include "api/metrics.hpp"
#include "api/problem.hpp"

using namespace penstock;
using api::json;

namespace {

constexpr std::int64_t second = 1'000'000;

scheduler::run_record some_run() {
  scheduler::run_record run;
  run.id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  run.pipeline = "orders";
  run.job = "load";
  run.revision = 3;
  run.state = scheduler::run_state::succeeded;
  run.trigger = scheduler::trigger_kind::topic;
  run.attempt = 1;
  run.input.type = scheduler::run_input::kind::topic;
  run.input.topic = "orders";
  run.input.after = 10;
  run.input.until = 15;
  run.input.events = 5;
  run.params = R"({"day":"monday"})";
  run.created_at = from_micros(0);
  run.started_at = from_micros(1 * second);
  run.ended_at = from_micros(3 * second + 500'000);
  run.tasks.push_back(
      {.name = "main", .state = scheduler::run_state::succeeded, .attempt = 1, .exit_code = 0});
  return run;
}

scheduler::flow_view some_flow(scheduler::flow_state state, std::int64_t received) {
  scheduler::flow_view flow;
  flow.name = "f";
  flow.state = state;
  flow.kind = "dataflow";
  flow.received = received;
  return flow;
}

scheduler::job_view some_job() {
  scheduler::job_view job;
  job.name = "load";
  job.queued = 1;
  job.triggers = {"every 5m"};
  job.runs = {{"failed", 2}};
  return job;
}

scheduler::dead_letter_view some_letter() {
  scheduler::dead_letter_view view;
  view.kind = "event";
  view.letter.id = "01";
  view.letter.pipeline = "p";
  view.letter.consumer = "p/flow/f";
  view.letter.step = "map_1";
  view.letter.reason = "line 1: nil";
  view.letter.attempts = 3;
  view.letter.event_id = "e1";
  view.letter.source = "/topics/t";
  view.letter.type = "event";
  view.letter.data = R"({"price":1.10})";
  view.letter.position = 4;
  return view;
}

template <class T>
bool ok(const result<T>& r) {
  return r.has_value();
}

std::vector<std::string> keys_of(const json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, _] : object.items()) keys.push_back(key);
  return keys;
}

runtime::buffer body_of(std::string text) { return runtime::buffer(std::move(text)); }

api::request with_headers(std::vector<api::header> headers) {
  api::request r;
  r.headers = std::move(headers);
  return r;
}

result<runtime::batch> read_body(const api::request& r, std::string text) {
  return api::read_event_body(r, std::make_shared<const runtime::buffer>(std::move(text)), api::format_of(r),
                              {.source = "/topics/t", .now = from_micros(0)});
}

}  // namespace

TEST_CASE("a run shows every member, in order", "[json]") {
  const json run = api::to_json(some_run());
  CHECK(keys_of(run) == std::vector<std::string>{"id",
                                                 "pipeline",
                                                 "job",
                                                 "revision",
                                                 "state",
                                                 "trigger",
                                                 "waiting_reason",
                                                 "reason",
                                                 "attempt",
                                                 "interruptions",
                                                 "scheduled_for",
                                                 "deadline_at",
                                                 "upstream_run",
                                                 "retry_of",
                                                 "priority",
                                                 "overlap_key",
                                                 "input",
                                                 "trace_id",
                                                 "params",
                                                 "created_at",
                                                 "started_at",
                                                 "ended_at",
                                                 "retry_at",
                                                 "duration_ms",
                                                 "tasks"});
  CHECK(run["state"] == "succeeded");
  CHECK(run["trigger"] == "topic");
  CHECK(run["waiting_reason"].is_null());
  CHECK(run["created_at"] == "1970-01-01T00:00:00.000000Z");
  CHECK(run["duration_ms"] == 2500);
  CHECK(run["params"]["day"] == "monday");
  CHECK(
      run["input"] ==
      json{{"kind", "topic"}, {"topic", "orders"}, {"first_offset", 11}, {"last_offset", 15}, {"events", 5}});
  CHECK(keys_of(run["tasks"][0]) == std::vector<std::string>{"name", "state", "attempt", "item", "output", "exit_code",
                                                             "reason", "started_at", "ended_at"});
  CHECK(run["tasks"][0]["exit_code"] == 0);
  CHECK_FALSE(api::to_json(some_run(), false).contains("tasks"));
}

TEST_CASE("a run that has not begun is null where nothing is", "[json]") {
  scheduler::run_record waiting;
  waiting.waiting_reason = "another run is active";
  waiting.tasks.push_back({.name = "main"});
  const json run = api::to_json(waiting);
  CHECK(run["waiting_reason"] == "another run is active");
  for (const char* name :
       {"started_at", "ended_at", "retry_at", "scheduled_for", "upstream_run", "duration_ms"}) {
    INFO(name);
    CHECK(run[name].is_null());
  }
  CHECK(run["params"] == json::object());
  CHECK(run["input"] == json{{"kind", "none"},
                             {"topic", nullptr},
                             {"first_offset", nullptr},
                             {"last_offset", nullptr},
                             {"events", 0}});
  CHECK(run["tasks"][0]["exit_code"].is_null());
}

TEST_CASE("a program's bytes never break a document", "[json]") {
  scheduler::run_record run = some_run();
  run.reason = "it said \xff\xfe";
  const std::string text = api::to_text(api::to_json(run));
  CHECK(json::parse(text)["reason"].get<std::string>().find("it said") == 0);
}

TEST_CASE("a pipeline shows its flows, jobs and topics", "[json]") {
  auto definition = std::make_shared<config::pipeline>();
  definition->description = "Shop orders";
  definition->topics["orders"].name = "orders";
  definition->document = {{"name", "orders"}};
  scheduler::pipeline_view view;
  view.record.name = "orders";
  view.record.revision = 2;
  view.record.origin = "rest";
  view.record.etag = "\"2-ab\"";
  view.definition = definition;
  view.paused = true;
  view.flows.push_back(some_flow(scheduler::flow_state::backing_off, 7));
  view.jobs.push_back(some_job());
  const json shown = api::to_json(view);
  CHECK(keys_of(shown) == std::vector<std::string>{"name", "description", "revision", "etag", "paused",
                                                   "origin", "created_at", "updated_at", "flows", "jobs",
                                                   "topics", "definition"});
  CHECK(shown["paused"] == true);
  CHECK(shown["flows"][0]["state"] == "backing_off");
  CHECK(shown["flows"][0]["pid"].is_null());
  CHECK(shown["jobs"][0]["runs"]["failed"] == 2);
  CHECK(shown["topics"] == json{"orders"});
  CHECK(shown["definition"]["name"] == "orders");
  CHECK_FALSE(api::to_json(view, false).contains("definition"));
}

TEST_CASE("a dead letter shows its event byte for byte", "[json]") {
  scheduler::dead_letter_view view = some_letter();
  const std::string text = api::to_json_text(view);
  CHECK(text.find("1.10") != std::string::npos);
  const json shown = json::parse(text);
  CHECK(keys_of(shown) == std::vector<std::string>{"id", "kind", "pipeline", "consumer", "step", "reason",
                                                   "attempts", "at", "events", "event"});
  CHECK(shown["event"]["id"] == "e1");
  CHECK(shown["event"]["data"]["price"] == 1.1);

  view.kind = "run";
  view.events = 200;
  CHECK(json::parse(api::to_json_text(view))["event"].is_null());

  view.kind = "event";
  view.letter.data = "\xff\xfe not JSON";
  view.letter.reason = "bad \xff";
  CHECK(json::parse(api::to_json_text(view)).is_object());
}

TEST_CASE("a list is its items and the next cursor", "[json]") {
  CHECK(json::parse(api::list_text({}, "")) == json{{"items", json::array()}, {"next_cursor", nullptr}});
  CHECK(json::parse(api::list_text({"{\"a\":1}", "2"}, "abc")) ==
        json{{"items", {{{"a", 1}}, 2}}, {"next_cursor", "abc"}});
}

TEST_CASE("a problem has the members of RFC 9457 and the positions", "[problem]") {
  const auto r = api::problem_response(
      error{errc::invalid, "2 problems", {{"/flows/a", 3, 5, "unknown key"}, {"", 0, 0, "x"}}});
  CHECK(r.status == 422);
  CHECK(r.content_type == "application/problem+json");
  const json document = json::parse(r.body);
  CHECK(document["type"] == "/problems/invalid");
  CHECK(document["title"] == "Invalid");
  CHECK(document["status"] == 422);
  CHECK(document["errors"][0] ==
        json{{"pointer", "/flows/a"}, {"line", 3}, {"column", 5}, {"detail", "unknown key"}});
  CHECK(document["errors"][1] == json{{"pointer", ""}, {"detail", "x"}});

  const auto full = api::problem_response(error{errc::overloaded, "full", {}, 7});
  CHECK(full.status == 429);
  CHECK(full.headers.at(0) == std::pair<std::string, std::string>{"Retry-After", "7"});
  CHECK(api::problem_response(error{errc::unavailable, "down"}).headers.at(0).second == "1");
  CHECK(json::parse(api::problem_response(error{errc::not_found, "no\xff"}).body)["status"] == 404);
}

TEST_CASE("every errc has its status", "[problem]") {
  using enum errc;
  const std::vector<std::pair<errc, int>> all{
      {invalid, 422},           {malformed, 400},  {unauthorized, 401},        {forbidden, 403},
      {not_found, 404},         {conflict, 409},   {precondition_failed, 412}, {too_large, 413},
      {unsupported_media, 415}, {overloaded, 429}, {unavailable, 503}};
  for (const auto& [code, status] : all) CHECK(api::http_status(code) == status);
}

TEST_CASE("malformed JSON is told where", "[json]") {
  const auto wrong = api::parse_json("{\n  \"a\": 1,\n  b\n}");
  REQUIRE_FALSE(ok(wrong));
  CHECK(wrong.error().code == errc::malformed);
  REQUIRE(wrong.error().problems.size() == 1);
  CHECK(wrong.error().problems[0].line == 3);
  CHECK(wrong.error().problems[0].column == 3);
}

TEST_CASE("hostile JSON is refused, not followed", "[json]") {
  CHECK_FALSE(ok(api::parse_json("")));
  CHECK_FALSE(ok(api::parse_json("   ")));
  CHECK_FALSE(ok(api::parse_json(std::string(100'000, '['))));
  CHECK_FALSE(ok(api::parse_json(std::string(100, '[') + std::string(100, ']'))));
  CHECK_FALSE(ok(api::parse_json("{} {}")));
  CHECK_FALSE(ok(api::parse_json("1e999")));
  CHECK_FALSE(ok(api::parse_json("\"\xff\"")));
  CHECK(ok(api::parse_json(std::string(60, '[') + std::string(60, ']'))));
}

TEST_CASE("a trigger's body", "[trigger]") {
  const timestamp now = from_micros(0);
  SECTION("may be empty") {
    for (const char* text : {"", " \n", "{}"}) {
      const auto t = api::read_trigger(body_of(text), now);
      REQUIRE(ok(t));
      CHECK(t->params == "{}");
      CHECK(t->events == 0);
      CHECK(t->ndjson.empty());
    }
  }
  SECTION("keeps payloads byte for byte, one a line") {
    const auto t = api::read_trigger(
        body_of(R"({"events": [{"price": 1.10}, 7, "x"], "params": {"day": "monday"}})"), now);
    REQUIRE(ok(t));
    CHECK(t->events == 3);
    CHECK(t->ndjson == "{\"price\": 1.10}\n7\n\"x\"\n");
    CHECK(json::parse(t->params) == json{{"day", "monday"}});
  }
  SECTION("with line breaks inside an event stays one line") {
    const auto t = api::read_trigger(body_of("{\"events\": [{\n\"a\":\n1}]}"), now);
    REQUIRE(ok(t));
    CHECK(std::count(t->ndjson.begin(), t->ndjson.end(), '\n') == 1);
  }
  SECTION("of another shape is invalid") {
    for (const char* text : {"[]", "7", "\"x\"", "{\"param\": {}}", "{\"params\": []}", "{\"params\": null}",
                             "{\"events\": {}}", "{\"events\": 1}"}) {
      INFO(text);
      const auto t = api::read_trigger(body_of(text), now);
      REQUIRE_FALSE(ok(t));
      CHECK(t.error().code == errc::invalid);
    }
    CHECK(api::read_trigger(body_of("{\"param\": {}}"), now).error().detail.find("params") !=
          std::string::npos);
  }
  SECTION("that is no JSON is malformed, with a place") {
    for (const char* text : {"{", "{\"params\": {}", "{\"params\": {\"a\": tru}}", "{\"events\": [1,]}",
                             "{\"events\": [{]}", "{} x", "nope", "{\"params\":{}}}", "{\"events\":[1 2]}",
                             "\xff\xfe", "{\"params\": {\"a\": \"\xff\"}}"}) {
      INFO(text);
      const auto t = api::read_trigger(body_of(text), now);
      REQUIRE_FALSE(ok(t));
      CHECK(t.error().code == errc::malformed);
    }
    CHECK(api::read_trigger(body_of("{\n\"params\": {\"a\": tru}}"), now).error().problems.at(0).line == 2);
    CHECK_FALSE(ok(api::read_trigger(body_of("{\"params\": " + std::string(5000, '[') + "}"), now)));
    CHECK_FALSE(ok(api::read_trigger(
        body_of("{\"params\": {\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}}"), now)));
  }
}

TEST_CASE("events are read by content type", "[events]") {
  const std::string two_lines = "{\"a\":1}\n{\"a\":2}\n";
  SECTION("JSON, and what says nothing") {
    for (const char* type : {"application/json", "", "application/x-www-form-urlencoded", "text/plain",
                             "APPLICATION/JSON; charset=utf-8", "application/vnd.shop+json"}) {
      INFO(type);
      const auto r = with_headers({{"content-type", type}});
      CHECK(read_body(r, R"({"a":1})")->size() == 1);
      CHECK(read_body(r, R"([{"a":1},{"a":2}])")->size() == 2);
    }
  }
  SECTION("NDJSON, also from a client that names no type") {
    CHECK(read_body(with_headers({{"Content-Type", "application/x-ndjson"}}), two_lines)->size() == 2);
    CHECK(read_body(with_headers({}), two_lines)->size() == 2);
    CHECK_FALSE(ok(read_body(with_headers({{"content-type", "application/json"}}), two_lines)));
  }
  SECTION("a bad line is named, and nothing is returned") {
    const auto wrong =
        read_body(with_headers({{"content-type", "application/x-ndjson"}}), "{\"a\":1}\n{oops}\n{\"a\":3}\n");
    REQUIRE_FALSE(ok(wrong));
    CHECK(wrong.error().code == errc::malformed);
    REQUIRE_FALSE(wrong.error().problems.empty());
    CHECK(wrong.error().problems[0].line == 2);
  }
  SECTION("a type that nobody reads") {
    const auto wrong = read_body(with_headers({{"content-type", "text/csv"}}), "a,b\n1,2\n");
    REQUIRE_FALSE(ok(wrong));
    CHECK(wrong.error().code == errc::unsupported_media);
  }
}

TEST_CASE("a CloudEvent in headers", "[events]") {
  const std::vector<api::header> headers{{"ce-specversion", "1.0"},
                                         {"ce-id", "e%201"},
                                         {"ce-source", "/shop"},
                                         {"ce-type", "order"},
                                         {"ce-time", "2018-02-07T00:00:00Z"},
                                         {"Content-Type", "application/json"}};
  const auto events = read_body(with_headers(headers), "{\"a\":1}");
  REQUIRE(ok(events));
  REQUIRE(events->size() == 1);
  const runtime::event& e = events->events[0];
  CHECK(e.id == "e 1");
  CHECK(e.source == "/shop");
  CHECK(e.data == "{\"a\":1}");
  CHECK(format_time(e.time) == "2018-02-07T00:00:00.000000Z");

  CHECK(read_body(with_headers(headers), "")->events[0].data == "null");
  CHECK(read_body(with_headers(headers), "{").error().code == errc::malformed);
  for (std::size_t without = 0; without < 4; ++without) {
    auto fewer = headers;
    fewer[without].value = without == 0 ? "2.0" : "";
    CHECK(read_body(with_headers(fewer), "{}").error().code == errc::malformed);
  }
  auto binary = headers;
  binary[5].value = "image/png";
  CHECK(read_body(with_headers(binary), "\x89PNG")->events[0].datacontenttype == "image/png");
}

TEST_CASE("an event of a stream is one line, or one message with its offset", "[events]") {
  runtime::batch memory;
  runtime::event made;
  made.id = "e1";
  made.source = "/t";
  made.type = "event";
  made.data = "{\"a\":\n1}";
  made.position = 42;
  const runtime::event e = memory.copy(made);
  std::string line;
  api::append_event(line, e, api::stream_format::ndjson);
  CHECK(std::count(line.begin(), line.end(), '\n') == 1);
  CHECK(json::parse(line)["offset"] == 42);
  std::string message;
  api::append_event(message, e, api::stream_format::server_sent_events);
  CHECK(message.starts_with("id: 42\ndata: {"));
  CHECK(message.ends_with("}\n\n"));
  CHECK(std::count(message.begin(), message.end(), '\n') == 3);
}

TEST_CASE("log lines lose or keep what the file adds", "[logs]") {
  const std::string stored = "2018-02-07T00:00:00.000000Z o hello\n2018-02-07T00:00:01.000000Z e \nshort\n";
  CHECK(api::show_lines(stored, "", false) == "hello\n\n\n");
  CHECK(api::show_lines(stored, "", true) == stored);
  CHECK(api::show_lines(stored, "a | ", false) == "a | hello\na | \na | \n");
  CHECK(api::show_lines("2018-02-07T00:00:00.000000Z o cut", "", false) == "cut\n");
}

TEST_CASE("metrics have HELP, TYPE and escaped labels", "[metrics]") {
  api::figures all;
  scheduler::pipeline_view pipeline;
  pipeline.record.name = "p\"\\\n";
  pipeline.flows.push_back(some_flow(scheduler::flow_state::running, 5));
  pipeline.jobs.push_back(some_job());
  all.pipelines.push_back(pipeline);
  all.topics.push_back({{.name = "t", .events = 3}, {{"p/flow/f", 1, 2}}});
  all.requests.push_back({api::http_method::get, "/v1/runs", 200, 9});
  all.process = api::read_process();
  const std::string text = api::to_metrics(all);
  const std::string labels = R"({pipeline="p\"\\\n",flow="f"})";
  CHECK(text.find("penstock_flow_events_received_total" + labels + " 5\n") != std::string::npos);
  CHECK(text.find("penstock_topic_consumer_lag{topic=\"t\",consumer=\"p/flow/f\"} 2\n") != std::string::npos);
  CHECK(text.find("penstock_http_requests_total{method=\"GET\",route=\"/v1/runs\",status=\"200\"} 9\n") !=
        std::string::npos);
  CHECK(text.find("penstock_dead_letters 0\n") != std::string::npos);
  CHECK(all.process.resident_bytes > 0);
  CHECK(all.process.open_fds > 2);
  CHECK(all.process.threads > 0);
  CHECK(text.back() == '\n');
}
