// The webhook source against senders that are many, wrong, or waiting when the flow fails or stops. Senders
// run on an io_context that stands for the control thread; the test turns it by hand, so "all of them wait
// now" is a fact.
#include <atomic>
#include <future>
#include <stdlib.h>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <openssl/hmac.h>

#include "runtime/wakeup.hpp"
#include "tests/runtime/flow_bench.hpp"

namespace test_webhook {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::flow_bench;

namespace {

using answer = result<delivery_answer>;

delivery post(const std::string& body, std::map<std::string, std::string> headers = {}) {
  return {std::move(headers), std::make_shared<const buffer>(body)};
}

std::string hex_mac(const EVP_MD* digest, const std::string& secret, const std::string& body) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(digest, secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(body.data()), body.size(), mac, &size);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", mac[i]);
    out += two;
  }
  return out;
}

// A sink that holds each batch until it is let go, and fails when told to.
struct gate_control {
  std::atomic<int> entered{0};
  std::atomic<bool> broken{false};
  std::shared_ptr<wakeup> open;
  std::promise<void> first_batch;
  std::vector<std::size_t> batches;
};

class gated_sink final : public sink {
 public:
  gated_sink(std::shared_ptr<gate_control> control, const component_context& context)
      : control_(std::move(control)) {
    control_->open = std::make_shared<wakeup>(context.executor);
  }
  asio::awaitable<void> open(const std::string&) override { co_return; }
  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    control_->batches.push_back(events->size());
    if (control_->entered++ == 0) {
      control_->first_batch.set_value();
      co_await control_->open->wait();
    }
    if (control_->broken) throw std::runtime_error("the sink is down");
    co_return write_result{};
  }
  asio::awaitable<void> close() override { co_return; }

 private:
  std::shared_ptr<gate_control> control_;
};

// A webhook flow at work, and its senders.
struct hook_bench : flow_bench {
  asio::io_context control;
  std::unique_ptr<dataflow_run> run;
  std::future<dataflow_outcome> ended;

  void start(const std::string& yaml) {
    run = make("test/flow/hook", parse(yaml));
    ended = asio::co_spawn(pool, run->run(), asio::use_future);
    while (!at_work()) {
    }
  }
  // Somebody there looks at what is sent; an empty body never gets through.
  bool at_work() {
    const answer a = deliver(post(""));
    return a.error().code != errc::not_found && a.error().code != errc::unavailable;
  }
  dataflow_outcome drain() {
    run->request_drain();
    return ended.get();
  }
  std::future<answer> send(delivery d, const std::string& path = "/orders") {
    auto sent = asio::co_spawn(control, hooks.deliver(path, std::move(d)), asio::use_future);
    turn();
    return sent;
  }
  // Everything that can be done on the control thread now.
  void turn() {
    control.restart();
    while (control.poll() > 0) control.restart();
  }
  answer wait(std::future<answer> sent) {
    control.restart();
    while (sent.wait_for(std::chrono::seconds{0}) != std::future_status::ready) {
      if (control.run_one() == 0) control.restart();
    }
    return sent.get();
  }
  answer deliver(delivery d, const std::string& path = "/orders") { return wait(send(std::move(d), path)); }
};

constexpr const char* to_topic = "from: {webhook: /orders}\nto: {topic: out}";

std::string signed_flow(const std::string& more = "") {
  ::setenv("HOOK_SECRET", "key of the hook", 1);
  return "from: {webhook: {path: /orders, signature: {header: X-Signature, secret: '${env:HOOK_SECRET}'" +
         more + "}}}\nto: {topic: out}";
}

}  // namespace

TEST_CASE("64 senders at once are all answered, and what was accepted is there", "[webhook]") {
  hook_bench b;
  b.topic("out");
  b.start(to_topic);
  std::vector<std::future<answer>> sent;
  for (int i = 0; i < 64; ++i) {
    sent.push_back(asio::co_spawn(
        b.control, b.hooks.deliver("/orders", post("{\"n\":" + std::to_string(i) + "}")), asio::use_future));
  }
  for (auto& one : sent) {
    const answer a = b.wait(std::move(one));
    REQUIRE(a.has_value());
    CHECK(a->accepted == 1);
  }
  CHECK(b.content("out").size() == 64);
  CHECK(b.drain().end == dataflow_end::drained);
  CHECK(b.counters->batches < 64);  // they shared commits
  CHECK(b.balanced());
}

TEST_CASE("every form of body becomes events", "[webhook]") {
  hook_bench b;
  b.topic("out");
  b.start(to_topic);
  const auto accepted = [&](delivery d) {
    const answer a = b.deliver(std::move(d));
    return a ? a->accepted : -1;
  };
  CHECK(accepted(post(R"({"n":1})")) == 1);
  CHECK(accepted(post(R"({"n":2})", {{"content-type", "application/x-www-form-urlencoded"}})) == 1);
  CHECK(accepted(post(R"([{"n":3},{"n":4}])", {{"content-type", "application/json; charset=utf-8"}})) == 2);
  CHECK(accepted(post("{\"n\":5}\n\n{\"n\":6}\n", {{"content-type", "application/x-ndjson"}})) == 2);
  CHECK(accepted(post(R"({"specversion":"1.0","id":"a","source":"/s","type":"t","data":{"n":7}})",
                      {{"content-type", "application/cloudevents+json"}})) == 1);
  CHECK(accepted(post(R"([{"specversion":"1.0","id":"b","source":"/s","type":"t","data":{"n":8}}])",
                      {{"content-type", "application/cloudevents-batch+json"}})) == 1);
  CHECK(accepted(post(R"({"n":9})", {{"content-type", "application/json"},
                                     {"ce-specversion", "1.0"},
                                     {"ce-id", "c%20%E2%82%AC%zz%"},
                                     {"ce-source", "/binary"},
                                     {"ce-type", "t"},
                                     {"ce-time", "2018-02-07T00:00:00Z"},
                                     {"ce-partitionkey", "k"}})) == 1);
  CHECK(b.drain().reason == "");
  const batch all = b.topic("out")->read(0, 100);
  REQUIRE(all.size() == 9);
  for (std::size_t i = 0; i < all.size(); ++i)
    CHECK(all.events[i].data == "{\"n\":" + std::to_string(i + 1) + "}");
  CHECK(all.events[0].source == "/hooks/orders");
  CHECK_FALSE(all.events[0].id.empty());
  CHECK(all.events[6].id == "a");
  CHECK(all.events[8].id == "c \xE2\x82\xAC%zz%");
  CHECK(all.events[8].key == "k");
  CHECK(format_time(all.events[8].time) == "2018-02-07T00:00:00.000000Z");
}

TEST_CASE("what cannot be read is malformed and nothing of it is stored", "[webhook]") {
  hook_bench b;
  b.topic("out");
  b.start(to_topic);
  const std::map<std::string, std::string> event_headers{
      {"ce-specversion", "1.0"}, {"ce-id", "c"}, {"ce-source", "/b"}, {"ce-type", "t"}};
  const auto without = [&](const std::string& name, const std::string& other = {}) {
    auto headers = event_headers;
    headers.erase(name);
    if (!other.empty()) headers[name] = other;
    return headers;
  };
  const std::vector<delivery> bad{post(""),
                                  post("   "),
                                  post("[]"),
                                  post("{\"n\":"),
                                  post("{\"n\":1}{\"n\":2}"),
                                  post("{\"n\":1}\n{\"n\":", {{"content-type", "application/x-ndjson"}}),
                                  post("[{\"n\":1},{]"),
                                  post("\xff\xfe"),
                                  post("{}", without("ce-id")),
                                  post("{}", without("ce-specversion", "0.3")),
                                  post("{}", without("ce-time", "yesterday")),
                                  post("{", without("ce-time")),
                                  post("{}", {{"content-type", "application/cloudevents+json"}})};
  for (const delivery& d : bad) {
    INFO(d.body->text());
    const answer a = b.deliver(d);
    REQUIRE(!a);
    CHECK(a.error().code == errc::malformed);
    CHECK_FALSE(a.error().detail.empty());
  }
  CHECK(b.drain().reason == "");
  CHECK(b.content("out").empty());
}

TEST_CASE("a signature that differs in one bit is wrong", "[webhook][signature]") {
  hook_bench b;
  b.topic("out");
  b.start(signed_flow());
  const std::string body = R"({"n":1})";
  const std::string right = hex_mac(EVP_sha256(), "key of the hook", body);
  const auto refused = [&](const std::string& text, std::map<std::string, std::string> headers) {
    const answer a = b.deliver(post(text, std::move(headers)));
    return !a && a.error().code == errc::unauthorized;
  };
  for (std::size_t bit = 0; bit < right.size() * 4; ++bit) {
    std::string wrong = right;
    const int digit = std::stoi(wrong.substr(bit / 4, 1), nullptr, 16) ^ (1 << (bit % 4));
    wrong[bit / 4] = "0123456789abcdef"[digit];
    REQUIRE(refused(body, {{"x-signature", wrong}}));
  }
  CHECK(refused(body, {}));
  CHECK(refused(body, {{"x-signature", ""}}));
  CHECK(refused(body, {{"x-signature", right.substr(0, 63)}}));
  CHECK(refused(body, {{"x-signature", right + "0"}}));
  CHECK(refused(body, {{"x-signature", "sha256=" + right}}));
  CHECK(refused(body + " ", {{"x-signature", right}}));
  CHECK(refused("", {{"x-signature", right}}));
  CHECK(refused("not even json", {{"x-signature", right}}));
  CHECK(refused(body, {{"x-signature", hex_mac(EVP_sha1(), "key of the hook", body)}}));
  CHECK(b.content("out").empty());

  CHECK(b.deliver(post(body, {{"x-signature", right}})).has_value());
  std::string upper = right;
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  CHECK(b.deliver(post(body, {{"x-signature", upper}})).has_value());
  CHECK(b.drain().reason == "");
  CHECK(b.content("out").size() == 2);
}

TEST_CASE("schemes, encodings and prefixes of known senders", "[webhook][signature]") {
  const std::string body = "{}";
  const auto accepted = [&](const std::string& rule, const std::string& value) {
    hook_bench b;
    b.topic("out");
    b.start(signed_flow(rule));
    const answer a = b.deliver(post(body, {{"x-signature", value}}));
    b.drain();
    return a.has_value();
  };
  const std::string secret = "key of the hook";
  CHECK(accepted(", prefix: sha256=", "sha256=" + hex_mac(EVP_sha256(), secret, body)));
  CHECK_FALSE(accepted(", prefix: sha256=", hex_mac(EVP_sha256(), secret, body)));
  CHECK(accepted(", scheme: hmac-sha1", hex_mac(EVP_sha1(), secret, body)));
  CHECK(accepted(", scheme: hmac-sha512", hex_mac(EVP_sha512(), secret, body)));
  // Computed with another program: openssl dgst -sha256 -hmac "key of the hook" -binary | base64
  const std::string base64 = "glkKwWTQR+kPmuN8VuZUWZ5LtAC47GssWW6qhq7bmnw=";
  CHECK(accepted(", encoding: base64", base64));
  std::string swapped = base64;
  std::swap(swapped[0], swapped[1]);
  CHECK_FALSE(accepted(", encoding: base64", swapped));
}

namespace {

delivery github_post(const std::string& body, const std::string& id) {
  return post(body, {{"x-hub-signature-256", "sha256=" + hex_mac(EVP_sha256(), "key of the hook", body)},
                     {"x-github-delivery", id}});
}

std::string github_flow(const std::string& to) {
  ::setenv("HOOK_SECRET", "key of the hook", 1);
  return "from: {webhook: {path: /orders, signature: {scheme: github, secret: '${env:HOOK_SECRET}'}}}\nto: " + to;
}

}  // namespace

TEST_CASE("of replays at once one is taken, and none while it is on its way", "[webhook][replay]") {
  hook_bench b;
  const registry real = b.components;
  const auto control = std::make_shared<gate_control>();
  b.components = testing::with_sink(
      real, "drop", registry::make_sink([&](const config::value&, const component_context& c) {
        return std::make_unique<gated_sink>(control, c);
      }));
  b.start(github_flow("drop"));
  auto first = b.send(github_post("{}", "d-1"));
  control->first_batch.get_future().wait();
  for (int i = 0; i < 10; ++i) {
    const answer meanwhile = b.deliver(github_post("{}", "d-1"));
    REQUIRE_FALSE(meanwhile.has_value());
    CHECK(meanwhile.error().code == errc::unavailable);
    CHECK(meanwhile.error().retry_after_s == 1);
  }
  control->open->notify();
  CHECK(b.wait(std::move(first))->accepted == 1);
  for (int i = 0; i < 10; ++i) CHECK(b.deliver(github_post("{}", "d-1"))->duplicate);
  CHECK(b.drain().reason == "");
  CHECK(b.counters->received == 1);
}

TEST_CASE("a flow that fails has accepted nothing; one that is replaced forgets nothing", "[webhook][replay]") {
  hook_bench b;
  b.topic("out");
  const registry real = b.components;
  const auto control = std::make_shared<gate_control>();
  b.components = testing::with_sink(
      real, "drop", registry::make_sink([&](const config::value&, const component_context& c) {
        return std::make_unique<gated_sink>(control, c);
      }));
  b.start(github_flow("drop"));
  auto lost = b.send(github_post("{}", "d-1"));
  control->first_batch.get_future().wait();
  control->broken = true;
  control->open->notify();
  CHECK(b.wait(std::move(lost)).error().code == errc::unavailable);
  b.ended.get();
  b.run.reset();

  b.start(github_flow("{topic: out}"));
  CHECK(b.deliver(github_post("{}", "d-1"))->accepted == 1);
  CHECK(b.drain().reason == "");
  b.run.reset();
  b.start(github_flow("{topic: out}"));
  CHECK(b.deliver(github_post("{}", "d-1"))->duplicate);
  CHECK(b.drain().reason == "");
  const batch all = b.topic("out")->read(0, 10);
  REQUIRE(all.size() == 1);
  CHECK(all.events[0].id == "d-1");
}

TEST_CASE("an empty secret is no secret", "[webhook][signature]") {
  flow_bench b;
  b.topic("out");
  const config::dataflow definition = b.parse(signed_flow());
  ::setenv("HOOK_SECRET", "", 1);
  const dataflow_outcome outcome = b.run("test/flow/f", definition);
  CHECK(outcome.end == dataflow_end::failed);
}

TEST_CASE("a full queue says when to come again; a larger delivery passes alone", "[webhook]") {
  hook_bench b;
  const registry real = b.components;
  const auto control = std::make_shared<gate_control>();
  b.components = testing::with_sink(
      real, "drop", registry::make_sink([&](const config::value&, const component_context& c) {
        return std::make_unique<gated_sink>(control, c);
      }));
  b.start("from: {webhook: {path: /orders, queue: 3}}\nto: drop");
  auto large = b.send(post("[1,2,3,4,5]"));
  control->first_batch.get_future().wait();
  const answer refused = b.deliver(post("6"));
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::overloaded);
  CHECK(refused.error().retry_after_s == 1);
  control->open->notify();
  CHECK(b.wait(std::move(large))->accepted == 5);
  CHECK(b.deliver(post("7"))->accepted == 1);
  CHECK(b.drain().reason == "");
}

TEST_CASE("a flow that fails tells all who wait to try again", "[webhook]") {
  hook_bench b;
  const registry real = b.components;
  const auto control = std::make_shared<gate_control>();
  b.components = testing::with_sink(
      real, "drop", registry::make_sink([&](const config::value&, const component_context& c) {
        return std::make_unique<gated_sink>(control, c);
      }));
  b.hooks.reserve("/orders");
  b.start("from: {webhook: /orders}\nto: drop");
  std::vector<std::future<answer>> waiting;
  waiting.push_back(b.send(post("1")));
  control->first_batch.get_future().wait();
  for (int i = 0; i < 20; ++i) waiting.push_back(b.send(post("2")));
  control->broken = true;
  control->open->notify();
  for (auto& one : waiting) {
    const answer a = b.wait(std::move(one));
    REQUIRE(!a);
    CHECK(a.error().code == errc::unavailable);
    CHECK(a.error().retry_after_s == 1);
    CHECK_THAT(a.error().detail, !Contains("the sink is down"));
  }
  CHECK(b.ended.get().reason == "to drop: the sink is down");
  CHECK(b.counters->received == 0);
  // The path is known, nobody is there.
  CHECK(b.deliver(post("3")).error().code == errc::unavailable);
  b.hooks.unreserve("/orders");
  CHECK(b.deliver(post("3")).error().code == errc::not_found);
}

TEST_CASE("a stop delivers what waits and takes nothing new", "[webhook]") {
  hook_bench b;
  const registry real = b.components;
  const auto control = std::make_shared<gate_control>();
  b.components = testing::with_sink(
      real, "drop", registry::make_sink([&](const config::value&, const component_context& c) {
        return std::make_unique<gated_sink>(control, c);
      }));
  const auto strand = asio::make_strand(b.pool.get_executor());
  b.run = b.make_on(strand, "test/flow/hook", b.parse("from: {webhook: /orders}\nto: drop"));
  b.ended = asio::co_spawn(b.pool, b.run->run(), asio::use_future);
  while (!b.at_work()) {
  }
  std::vector<std::future<answer>> waiting;
  waiting.push_back(b.send(post("0")));
  control->first_batch.get_future().wait();
  for (int i = 0; i < 10; ++i) waiting.push_back(b.send(post(std::to_string(i + 1))));
  b.run->request_drain();
  std::promise<void> drained_strand;
  asio::post(strand, [&] { drained_strand.set_value(); });
  drained_strand.get_future().wait();

  CHECK(b.deliver(post("11")).error().code == errc::unavailable);
  control->open->notify();
  for (auto& one : waiting) CHECK(b.wait(std::move(one))->accepted == 1);
  CHECK(b.ended.get().end == dataflow_end::drained);
  CHECK(control->batches == std::vector<std::size_t>{1, 10});
  CHECK(b.counters->received == 11);
}

TEST_CASE("one flow receives at a path", "[webhook]") {
  hook_bench b;
  b.topic("out");
  b.start(to_topic);
  const dataflow_outcome second = b.flow_bench::run("test/flow/second", to_topic);
  CHECK(second.end == dataflow_end::failed);
  CHECK_THAT(second.reason, Contains("something else receives at /hooks/orders"));
  CHECK(b.deliver(post("{}")).has_value());

  const answer lost = b.deliver(post("{}"), "/order");
  REQUIRE(!lost);
  CHECK(lost.error().code == errc::not_found);
  CHECK_THAT(lost.error().detail, Contains("/hooks/orders"));
  CHECK(b.drain().reason == "");
  CHECK(b.deliver(post("{}")).error().code == errc::not_found);
  CHECK_THROWS_WITH(b.parse("from: {webhook: orders}\nto: drop"), Contains("must begin with a slash"));
}

TEST_CASE("who comes while the receiver is on its way waits for it", "[webhook]") {
  hook_bench b;
  b.topic("out");
  b.hooks.reserve("/orders");
  std::vector<std::future<answer>> early;
  for (int i = 0; i < 3; ++i) early.push_back(b.send(post("{}")));
  for (auto& one : early) CHECK(one.wait_for(std::chrono::seconds{0}) == std::future_status::timeout);
  b.run = b.make("test/flow/hook", b.parse(to_topic));
  b.ended = asio::co_spawn(b.pool, b.run->run(), asio::use_future);
  for (auto& one : early) CHECK(b.wait(std::move(one))->accepted == 1);
  CHECK(b.drain().reason == "");
  CHECK(b.content("out").size() == 3);
}

TEST_CASE("an event that dies in a step is still accepted, and kept", "[webhook]") {
  hook_bench b;
  b.topic("out");
  b.start("from: {webhook: /orders}\nsteps:\n  - map: {n: event.n + 1}\nto: {topic: out}");
  CHECK(b.deliver(post(R"([{"n":1},{"n":"x"},{"n":3}])"))->accepted == 3);
  CHECK(b.drain().reason == "");
  CHECK(b.content("out").size() == 2);
  REQUIRE(b.dead().size() == 1);
  CHECK(b.dead()[0].data == R"({"n":"x"})");
}

TEST_CASE("deliveries race with starts and stops: each gets an answer, each accepted one is kept",
          "[webhook]") {
  hook_bench b;
  b.topic("out");
  b.hooks.reserve("/orders");
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> accepted{0}, other{0};
  std::vector<std::thread> senders;
  for (int t = 0; t < 3; ++t) {
    senders.emplace_back([&] {
      asio::io_context io;
      while (!stop) {
        auto sent = asio::co_spawn(io, b.hooks.deliver("/orders", post("{}")), asio::use_future);
        io.restart();
        io.run();
        const answer a = sent.get();
        if (a) accepted += a->accepted;
        if (!a && a.error().code != errc::unavailable) ++other;
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    b.start(to_topic);
    const std::int64_t before = accepted;
    while (i % 3 == 0 && accepted == before) {
    }
    CHECK(b.drain().reason == "");
  }
  stop = true;
  for (auto& t : senders) t.join();
  CHECK(other == 0);
  CHECK(accepted > 0);
  CHECK(static_cast<std::int64_t>(b.content("out").size()) == accepted);
}

}  // namespace test_webhook
