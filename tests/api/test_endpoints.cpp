// All endpoints over HTTP with the real domain behind them, in one process: what only shows when handlers,
// streams and supervisor meet. Method: the control thread runs as in the daemon; the test is a client on its
// own thread, and waits for what the daemon says, never for time.
#include <fstream>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "api/api.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/commit_pause.hpp"
#include "runtime/flow_store.hpp"
#include "runtime/topic.hpp"
#include "runtime/subscribers.hpp"
#include "runtime/webhooks.hpp"
#include "scheduler/store.hpp"
#include "tests/api/http_client.hpp"
#include "tests/temp_dir.hpp"

using namespace penstock;
using testing::client;
using testing::reply;
using json = nlohmann::ordered_json;
namespace asio = boost::asio;

namespace {

constexpr const char* shop = R"(name: shop
description: for tests
topics: {orders: {}, done: {}}
flows:
  intake: {from: {webhook: /orders}, to: {topic: orders}}
  checked:
    from: {topic: done}
    steps:
      - filter: event.n + 1 > 0
    to: drop
jobs:
  hold: {run: [sh, -c, "echo begun; read line; echo got $line; cat > /dev/null"]}
  gate:
    run: [sh, -c, "mkfifo gate 2> /dev/null; echo ready; read word < gate; echo through $word"]
    grace: 1s
  two:
    tasks:
      first: {run: [sh, -c, "echo one"]}
      second: {run: [sh, -c, "echo two; echo three >&2"], needs: [first]}
)";

// What penstockd puts together, without its signals and settings.
class daemon_parts {
 public:
  explicit daemon_parts(std::size_t waiting_requests = 1000) : waiting_requests_(waiting_requests) {
    asio::co_spawn(control_, supervisor_.start(), asio::use_future);
    port_ = api_.listen("127.0.0.1", 0);
    thread_ = std::thread([this] { control_.run(); });
  }
  ~daemon_parts() {
    run(api_.stop(std::chrono::seconds(2)));
    run(supervisor_.stop());
    guard_.reset();
    control_.stop();
    thread_.join();
    batch_.join();
    flows_.join();
    store_.close();
    topics_.close();
    flow_store_.close();
  }
  template <class T>
  T run(asio::awaitable<T> work) {
    return asio::co_spawn(control_, std::move(work), asio::use_future).get();
  }
  void set_ready() {
    asio::post(control_, asio::use_future([this] { api_.set_ready(); })).get();
  }
  std::uint16_t port() const { return port_; }
  std::filesystem::path workdir() const { return folder_ / "work/shop"; }
  api::api& served() { return api_; }
  // Nothing is stored in state.db as long as it lives.
  runtime::commit_pause::hold hold_commits() { return runtime::commit_pause::hold(*commits_); }

 private:
  const std::size_t waiting_requests_;  // for the runs of one job to be stored
  testing::temp_dir folder_;
  asio::io_context control_{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard_{control_.get_executor()};
  asio::thread_pool store_thread_{1}, writers_{1}, flows_{1}, batch_{1};
  runtime::blocking_pool blocking_{4};
  runtime::topics topics_{folder_ / "topics", writers_.get_executor()};
  runtime::flow_store flow_store_{folder_ / "flows.db", asio::make_strand(writers_)};
  runtime::webhooks webhooks_;
  runtime::subscribers subscribers_;
  runtime::services services_{topics_, flow_store_, webhooks_, subscribers_, blocking_, {}};
  runtime::registry components_ = runtime::make_registry();
  std::shared_ptr<runtime::commit_pause> commits_ = std::make_shared<runtime::commit_pause>();
  scheduler::store store_{folder_ / "state.db", store_thread_.get_executor(), commits_};
  scheduler::supervisor supervisor_{{control_.get_executor(), flows_.get_executor(), batch_.get_executor()},
                                    store_,
                                    services_,
                                    components_,
                                    options()};
  api::api api_{control_.get_executor(), supervisor_, services_, components_};
  std::uint16_t port_ = 0;
  std::thread thread_;

  scheduler::supervisor_options options() {
    scheduler::supervisor_options o;
    o.data = folder_.path();
    o.instance = store_.instance();
    o.drain_timeout = std::chrono::milliseconds(500);
    o.max_waiting_requests = waiting_requests_;
    return o;
  }
};

struct rest : daemon_parts {
  explicit rest(std::size_t waiting_requests = 1000) : daemon_parts(waiting_requests) { set_ready(); }

  reply call(const std::string& method, const std::string& path, const std::string& body = {},
             const std::string& headers = {}) {
    client c(port());
    return c.call(text_of(method, path, body, headers));
  }
  static std::string text_of(const std::string& method, const std::string& path, const std::string& body = {},
                             const std::string& headers = {}) {
    return method + " " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n" + headers + "\r\n" + body;
  }
  json get(const std::string& path) {
    const reply r = call("GET", path);
    INFO(path << " " << r.head << r.body);
    REQUIRE(r.status == 200);
    return json::parse(r.body);
  }
  // Runs of a job that are not over, with those that are about to be stored.
  std::int64_t load_of(const std::string& name) {
    const json pipeline = get("/v1/pipelines/shop");
    for (const json& job : pipeline["jobs"]) {
      if (job["name"] == name) return job["queued"].get<std::int64_t>() + job["running"].get<std::int64_t>();
    }
    return -1;
  }
  void put_shop() { REQUIRE(call("PUT", "/v1/pipelines/shop", shop).status == 201); }
};

std::string id_of(const reply& r) { return json::parse(r.body)["id"].get<std::string>(); }

}  // namespace

TEST_CASE("before it is ready only what is always there is served", "[endpoints]") {
  daemon_parts parts;
  const auto status = [&](const std::string& path) {
    client c(parts.port());
    return c.call("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
  };
  CHECK(status("/healthz").status == 200);
  CHECK(status("/").status == 200);
  CHECK(status("/v1/schema/pipeline").status == 200);
  CHECK(status("/readyz").status == 503);
  const reply refused = status("/v1/runs");
  CHECK(refused.status == 503);
  CHECK(refused.has("Retry-After: 1\r\n"));
  parts.set_ready();
  CHECK(status("/readyz").status == 200);
  CHECK(status("/v1/runs").status == 200);
}

TEST_CASE("the index names every endpoint", "[endpoints]") {
  rest f;
  const json index = f.get("/");
  CHECK(index["name"] == "penstock");
  CHECK(index["endpoints"].size() >= 27);
  for (const json& e : index["endpoints"]) CHECK_FALSE(e["summary"].get<std::string>().empty());
}

TEST_CASE("a pipeline over REST", "[endpoints]") {
  rest f;
  const reply dry = f.call("PUT", "/v1/pipelines/shop?dry_run=true", shop);
  CHECK(dry.status == 200);
  CHECK(json::parse(dry.body)["changes"]["jobs"]["added"].size() == 3);
  CHECK(f.call("GET", "/v1/pipelines/shop").status == 404);

  const reply made = f.call("PUT", "/v1/pipelines/shop", shop, "If-None-Match: *\r\n");
  CHECK(made.status == 201);
  CHECK(made.has("Location: /v1/pipelines/shop\r\n"));
  const std::string etag = json::parse(made.body)["etag"];
  CHECK(made.has("ETag: " + etag + "\r\n"));
  CHECK(f.call("PUT", "/v1/pipelines/shop", shop, "If-None-Match: *\r\n").status == 412);
  CHECK(f.call("POST", "/v1/pipelines", shop).status == 409);
  CHECK(f.call("PUT", "/v1/pipelines/shop", shop, "If-Match: \"nothing\"\r\n").status == 412);
  CHECK(f.call("PUT", "/v1/pipelines/shop", shop, "If-Match: " + etag + "\r\n").status == 200);
  CHECK(f.call("PUT", "/v1/pipelines/other", shop).status == 409);
  CHECK(f.call("PUT", "/v1/pipelines/shop", shop, "Content-Type: text/csv\r\n").status == 415);

  const reply yaml = f.call("GET", "/v1/pipelines/shop", {}, "Accept: application/yaml\r\n");
  CHECK(yaml.has("Content-Type: application/yaml\r\n"));
  CHECK(yaml.body == shop);
  CHECK(f.call("GET", "/v1/pipelines/shop", {}, "Accept: application/json, application/yaml;q=0.5\r\n")
            .body[0] == '{');
  CHECK(f.get("/v1/pipelines?limit=1")["items"][0]["name"] == "shop");
  CHECK_FALSE(f.get("/v1/pipelines")["items"][0].contains("definition"));
  CHECK(f.get("/v1/pipelines/shop/flows/intake")["kind"] == "dataflow");
  CHECK(f.call("GET", "/v1/pipelines/shop/flows/nothing").status == 404);

  const reply broken = f.call("PUT", "/v1/pipelines/shop", "name: shop\nflws: {}\n");
  CHECK(broken.status == 422);
  CHECK(json::parse(broken.body)["errors"][0]["line"] == 2);

  CHECK(json::parse(f.call("POST", "/v1/pipelines/shop/pause").body)["paused"] == true);
  CHECK(json::parse(f.call("POST", "/v1/pipelines/shop/resume").body)["paused"] == false);
  CHECK(f.call("DELETE", "/v1/pipelines/shop").status == 204);
  CHECK(f.call("GET", "/v1/pipelines/shop").status == 404);
}

TEST_CASE("a run over REST", "[endpoints]") {
  rest f;
  f.put_shop();
  const reply made =
      f.call("POST", "/v1/pipelines/shop/jobs/hold/runs?wait=30s", R"({"events": [{"price": 1.10}]})");
  CHECK(made.status == 200);
  const json run = json::parse(made.body);
  CHECK(run["state"] == "succeeded");
  CHECK(run["input"]["events"] == 1);
  const std::string id = run["id"];
  CHECK(f.call("GET", "/v1/runs/" + id + "/logs").has("text/plain"));
  client c(f.port());
  c.send("GET /v1/runs/" + id + "/logs HTTP/1.0\r\n\r\n");
  const std::string log = c.read_all();
  CHECK(log.find("begun\n") != std::string::npos);
  CHECK(log.find("got {\"price\": 1.10}\n") != std::string::npos);

  const reply keyed = f.call("POST", "/v1/pipelines/shop/jobs/hold/runs", {}, "Idempotency-Key: k1\r\n");
  CHECK(keyed.status == 202);
  CHECK(keyed.has("Location: /v1/runs/" + id_of(keyed) + "\r\n"));
  const reply same = f.call("POST", "/v1/pipelines/shop/jobs/hold/runs", {}, "Idempotency-Key: k1\r\n");
  CHECK(same.status == 202);
  CHECK(id_of(same) == id_of(keyed));
  CHECK(
      f.call("POST", "/v1/pipelines/shop/jobs/hold/runs", "{\"params\":{\"a\":1}}", "Idempotency-Key: k1\r\n")
          .status == 422);
  CHECK(json::parse(f.call("GET", "/v1/runs/" + id_of(keyed) + "?wait=30s").body)["state"] == "succeeded");

  json ended;  // the list shows what is stored, a moment after the run itself
  do {
    ended = f.get("/v1/runs?job=hold&state=succeeded,failed");
  } while (ended["items"].size() < 2);
  CHECK(ended["items"][0]["id"] == id_of(keyed));
  CHECK(f.get("/v1/runs?job=two")["items"].empty());
  CHECK(f.call("GET", "/v1/runs?state=done").status == 400);
  CHECK(f.call("POST", "/v1/runs/" + id + "/cancel").status == 409);
  const reply again = f.call("POST", "/v1/runs/" + id + "/retry?wait=30s");
  CHECK(again.status == 200);
  CHECK(json::parse(again.body)["input"]["events"] == 1);
  CHECK(f.call("POST", "/v1/pipelines/shop/jobs/nothing/runs").status == 404);
  CHECK(f.call("POST", "/v1/pipelines/shop/jobs/hold/runs", "{\"evnts\":[]}").status == 422);
}

TEST_CASE("logs of several tasks carry the task's name", "[endpoints]") {
  rest f;
  f.put_shop();
  const std::string id = id_of(f.call("POST", "/v1/pipelines/shop/jobs/two/runs?wait=30s"));
  const auto log = [&](const std::string& query) {
    client c(f.port());
    c.send("GET /v1/runs/" + id + "/logs" + query + " HTTP/1.0\r\n\r\n");
    const std::string all = c.read_all();
    return all.substr(all.find("\r\n\r\n") + 4);
  };
  CHECK(log("").find("first | one\n") != std::string::npos);
  CHECK(log("").find("second | two\n") != std::string::npos);
  CHECK(log("?task=second").find("two\nthree\n") != std::string::npos);
  CHECK(log("?task=second&timestamps=true").find("Z e three\n") != std::string::npos);
  CHECK(f.call("GET", "/v1/runs/" + id + "/logs?task=thrid").status == 404);
}

TEST_CASE("a followed log comes line by line and ends with the run", "[endpoints]") {
  rest f;
  f.put_shop();
  const std::string id = id_of(f.call("POST", "/v1/pipelines/shop/jobs/gate/runs"));
  client follower(f.port()), waiter(f.port());
  follower.send("GET /v1/runs/" + id + "/logs?follow=true HTTP/1.1\r\nHost: x\r\n\r\n");
  waiter.send("GET /v1/runs/" + id + "?wait=5m HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(follower.read_until("ready\n").ends_with("ready\n"));
  std::ofstream(f.workdir() / "gate") << "it\n";
  CHECK(follower.read_until("0\r\n\r\n").find("through it\n") != std::string::npos);
  CHECK(json::parse(waiter.read_reply().body)["state"] == "succeeded");
}

TEST_CASE("a wait ends when its client leaves or its run is cancelled", "[endpoints]") {
  rest f;
  f.put_shop();
  const std::string id = id_of(f.call("POST", "/v1/pipelines/shop/jobs/gate/runs"));
  {
    client follower(f.port());
    follower.send("GET /v1/runs/" + id + "/logs?follow=true HTTP/1.1\r\nHost: x\r\n\r\n");
    follower.read_until("ready\n");
  }
  client waiter(f.port());
  waiter.send("GET /v1/runs/" + id + "?wait=5m HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(f.call("POST", "/v1/runs/" + id + "/cancel").status == 202);
  CHECK(json::parse(waiter.read_reply().body)["state"] == "cancelled");
  CHECK(f.call("POST", "/v1/pipelines/shop/jobs/gate/runs?wait=1ms").status == 202);
  CHECK(f.call("POST", "/v1/pipelines/shop/jobs/gate/runs?wait=1h").status == 400);
}

TEST_CASE("so many requests may wait for the runs of a job to be stored", "[endpoints]") {
  rest f(2);
  f.put_shop();
  const std::string path = "/v1/pipelines/shop/jobs/hold/runs";
  const std::string known = id_of(f.call("POST", path + "?wait=30s", {}, "Idempotency-Key: k1\r\n"));
  while (f.load_of("hold") != 0) {
  }
  client first(f.port()), second(f.port()), other(f.port());
  {
    const runtime::commit_pause::hold still = f.hold_commits();
    first.send(rest::text_of("POST", path));
    second.send(rest::text_of("POST", path + "?wait=30s"));
    while (f.load_of("hold") != 2) {
    }
    const reply refused = f.call("POST", path);
    CHECK(refused.status == 429);
    CHECK(refused.has("Retry-After: 1\r\n"));
    CHECK(json::parse(refused.body)["detail"] ==
          "job hold has 2 requests waiting for their runs to be stored (max_waiting_requests)");
    CHECK(f.call("POST", "/v1/runs/" + known + "/retry").status == 429);
    CHECK(f.load_of("hold") == 2);
    CHECK(id_of(f.call("POST", path, {}, "Idempotency-Key: k1\r\n")) == known);
    other.send(rest::text_of("POST", "/v1/pipelines/shop/jobs/two/runs"));
    while (f.load_of("two") != 1) {
    }
  }
  CHECK(first.read_reply().status == 202);
  CHECK(second.read_reply().status == 200);
  CHECK(other.read_reply().status == 202);
  for (int i = 0; i < 3; ++i) CHECK(f.call("POST", path).status == 202);
}

TEST_CASE("whoever waits for a run's end is none of those that wait for it to be stored", "[endpoints]") {
  rest f(1);
  f.put_shop();
  const std::string path = "/v1/pipelines/shop/jobs/gate/runs";
  client changes(f.port()), waiter(f.port());
  changes.send("GET /v1/changes?kind=run HTTP/1.1\r\nHost: x\r\n\r\n");
  changes.read_until(": from ");
  waiter.send(rest::text_of("POST", path + "?wait=5m"));
  CHECK(changes.read_until("\"job\":\"gate\"").ends_with("\"gate\""));  // told once it is stored
  const reply next = f.call("POST", path);
  REQUIRE(next.status == 202);
  const json runs = f.get("/v1/runs?job=gate");
  CHECK(runs["items"].size() == 2);
  for (const json& run : runs["items"]) CHECK(f.call("POST", "/v1/runs/" + run["id"].get<std::string>() + "/cancel").status == 202);
  CHECK(json::parse(waiter.read_reply().body)["state"] == "cancelled");
}

TEST_CASE("events over REST", "[endpoints]") {
  rest f;
  f.put_shop();
  CHECK(f.call("POST", "/v1/topics/orders/events", R"({"n":1})").body ==
        "{\"accepted\":1,\"duplicates\":0,\"first_offset\":1,\"last_offset\":1}\n");
  std::string lines;
  for (int n = 2; n <= 300; ++n) lines += "{\"n\":" + std::to_string(n) + "}\n";
  CHECK(f.call("POST", "/v1/topics/orders/events", lines).status == 202);
  const std::string large = "[" + std::string(200'000, ' ') + "{\"n\":301}]";  // read elsewhere
  CHECK(json::parse(f.call("POST", "/v1/topics/orders/events", large).body)["last_offset"] == 301);
  const reply bad = f.call("POST", "/v1/topics/orders/events", "{\"n\":1}\n{n}\n",
                           "Content-Type: application/x-ndjson\r\n");
  CHECK(bad.status == 400);
  CHECK(json::parse(bad.body)["errors"][0]["line"] == 2);
  const reply lost = f.call("POST", "/v1/topics/ordres/events", "{}");
  CHECK(lost.status == 404);
  CHECK(lost.body.find("'orders'") != std::string::npos);

  std::int64_t seen = 0;
  std::string cursor;
  do {
    const json page =
        f.get("/v1/topics/orders/events?limit=100" + (cursor.empty() ? "" : "&cursor=" + cursor));
    for (const json& e : page["items"]) CHECK(e["data"]["n"] == ++seen);
    cursor = page["next_cursor"].is_null() ? "" : page["next_cursor"].get<std::string>();
  } while (!cursor.empty());
  CHECK(seen == 301);
  CHECK(f.get("/v1/topics/orders")["events"] == 301);
  CHECK(f.get("/v1/topics")["items"].size() == 2);
  CHECK(f.call("GET", "/v1/topics/orders/events?cursor=bm9uc2Vuc2U").status == 400);
}

TEST_CASE("a followed topic shows what is there and what comes", "[endpoints]") {
  rest f;
  f.put_shop();
  f.call("POST", "/v1/topics/orders/events", R"([{"n":1},{"n":2}])");
  client lines(f.port()), sse(f.port()), fresh(f.port());
  lines.send("GET /v1/topics/orders/events?follow=true&after=1&limit=2 HTTP/1.1\r\nHost: x\r\n\r\n");
  sse.send(
      "GET /v1/topics/orders/events?follow=true HTTP/1.1\r\nHost: x\r\nAccept: "
      "text/event-stream\r\nLast-Event-ID: 1\r\n\r\n");
  fresh.send("GET /v1/topics/orders/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(lines.read_until("\"n\":2}").find("\"n\":1") == std::string::npos);
  CHECK(sse.read_until("\n\n").find("text/event-stream") != std::string::npos);
  fresh.read_until("\r\n\r\n");  // its head is sent once it has its place
  f.call("POST", "/v1/topics/orders/events", R"({"n":3})");
  CHECK(lines.read_until("0\r\n\r\n").find("\"n\":3") != std::string::npos);  // two events, as asked
  CHECK(sse.read_until("\n\n").find("id: 3\ndata: {") != std::string::npos);
  const std::string first = fresh.read_until("}}\n");
  CHECK(first.find("\"n\":3") != std::string::npos);
  CHECK(first.find("\"n\":2") == std::string::npos);
  CHECK(f.run(f.served().stop(std::chrono::seconds(5))) == 0);
  CHECK(sse.read_all().find("event: end\n") != std::string::npos);
  CHECK(fresh.read_all().ends_with("0\r\n\r\n"));
}

TEST_CASE("a webhook over REST", "[endpoints]") {
  rest f;
  f.put_shop();
  reply taken;
  do {
    taken = f.call("POST", "/hooks/orders?token=1", R"({"n":1})");  // 503 until its flow runs
  } while (taken.status == 503);
  CHECK(taken.status == 202);
  CHECK(taken.body == "{\"accepted\":1}\n");
  CHECK(f.get("/v1/topics/orders/events")["items"][0]["data"]["n"] == 1);
  const reply lost = f.call("POST", "/hooks/order", "{}");
  CHECK(lost.status == 404);
  CHECK(lost.body.find("/hooks/orders") != std::string::npos);
}

TEST_CASE("dead letters over REST", "[endpoints]") {
  rest f;
  f.put_shop();
  f.call("POST", "/v1/topics/done/events", R"([{"n":"x"},{"n":2},{"n":"z"}])");  // "x" + 1 fails in Lua
  json letters;
  do {
    letters = f.get("/v1/dead-letters?limit=1");
  } while (letters["items"].empty() || letters["next_cursor"].is_null());
  const json& letter = letters["items"][0];
  CHECK(letter["kind"] == "event");
  CHECK(letter["pipeline"] == "shop");
  CHECK(letter["event"]["data"] == json{{"n", "x"}});
  const json second = f.get("/v1/dead-letters?limit=1&cursor=" + letters["next_cursor"].get<std::string>());
  CHECK(second["items"][0]["event"]["data"] == json{{"n", "z"}});
  CHECK(second["next_cursor"].is_null());

  for (const char* bad : {"{}", "[]", "{\"all\":false}", "{\"ids\":\"x\"}", "{\"ids\":[1]}",
                          "{\"pipeline\":\"\"}", "{\"all\":true,\"ids\":[]}", "{\"id\":[]}"}) {
    INFO(bad);
    CHECK(f.call("POST", "/v1/dead-letters/discard", bad).status == 422);
  }
  CHECK(f.call("POST", "/v1/dead-letters/discard", "{\"ids\":[\"01ARZ3NDEKTSV4RRFFQ69G5FAV\"]}").status ==
        404);
  CHECK(f.call("POST", "/v1/dead-letters/discard", "{\"ids\":[]}").body == "{\"done\":0,\"failed\":[],\"dead_again\":0}\n");
  CHECK(f.call("POST", "/v1/dead-letters/discard", "{\"pipeline\":\"other\"}").body ==
        "{\"done\":0,\"failed\":[],\"dead_again\":0}\n");
  const json one{{"ids", {letter["id"]}}};
  CHECK(json::parse(f.call("POST", "/v1/dead-letters/discard", one.dump()).body)["done"] == 1);
  CHECK(json::parse(f.call("POST", "/v1/dead-letters/discard", "{\"all\":true}").body)["done"] == 1);
  CHECK(f.get("/v1/dead-letters")["items"].empty());
}

TEST_CASE("metrics of a working daemon", "[endpoints]") {
  rest f;
  f.put_shop();
  f.call("POST", "/v1/topics/orders/events", R"({"n":1})");
  const reply r = f.call("GET", "/metrics");
  CHECK(r.has("text/plain; version=0.0.4"));
  CHECK(r.body.find("penstock_topic_last_offset{topic=\"orders\"} 1\n") != std::string::npos);
  CHECK(r.body.find("route=\"/v1/topics/{topic}/events\",status=\"202\"} 1\n") != std::string::npos);
  CHECK(r.body.find("penstock_flow_events_received_total{pipeline=\"shop\",flow=\"intake\"} 0\n") !=
        std::string::npos);
}
