// What is posted to a hook, without a flow: signatures, forms of bodies, and CloudEvents in headers.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "config/signature_field.hpp"
#include "runtime/cloudevents.hpp"
#include "runtime/webhook_intake.hpp"

namespace test_webhook_intake {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;

namespace {

using headers = std::map<std::string, std::string>;

delivery post(const std::string& body, headers h = {}) {
  return {std::move(h), std::make_shared<const buffer>(body)};
}

const std::string key = "It's a Secret to Everybody";

std::string as_written(const std::string& reference) { return reference == "${env:KEY}" ? key : ""; }

webhook_intake open_hook() { return {"/orders", config::value(), as_written}; }

config::value signature(const std::string& more = "{}") {
  config::value v{{"scheme", "hmac-sha256"}, {"header", "X-Hub-Signature-256"}, {"secret", "${env:KEY}"}};
  v.update(config::value::parse(more));
  return v;
}

std::string sha256_hex(const std::string& body) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(body.data()),
       body.size(), mac, &size);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += "0123456789abcdef"[mac[i] >> 4];
    out += "0123456789abcdef"[mac[i] & 15];
  }
  return out;
}

result<batch> read_headers(headers h, const std::string& body = "{}") {
  const header_lookup lookup = [&h](std::string_view name) {
    const auto found = h.find(std::string(name));
    return found == h.end() ? std::string_view() : std::string_view(found->second);
  };
  return read_binary_cloudevent(lookup, std::make_shared<const buffer>(body), from_micros(7));
}

headers cloudevent(const headers& more = {}) {
  headers h = more;
  h.insert({{"ce-specversion", "1.0"}, {"ce-id", "1"}, {"ce-source", "/s"}, {"ce-type", "t"}});
  return h;
}

}  // namespace

TEST_CASE("intake: the record of a signature is what the intake reads", "[webhook_intake]") {
  std::vector<std::string> names;
  for (const auto& child : config::signature_field().children) names.push_back(child.name);
  for (const char* name : {"scheme", "header", "secret", "secrets", "encoding", "prefix", "tolerance", "replay_window", "replay_limit"}) {
    CHECK(std::count(names.begin(), names.end(), name) == 1);
  }
  for (const auto& child : config::signature_field().children) {
    if (child.name == "secret") CHECK(child.secret);
    if (child.name == "secrets") CHECK(child.children.at(0).secret);
  }
}

TEST_CASE("intake: signed posts, and others", "[webhook_intake][signature]") {
  const webhook_intake hook("/orders", signature(R"({"prefix": "sha256="})"), as_written);
  const std::string body = R"([{"n":1},{"n":2}])";
  const auto taken = hook.take(post(body, {{"x-hub-signature-256", "sha256=" + sha256_hex(body)}}));
  REQUIRE(taken.has_value());
  REQUIRE(taken->size() == 2);
  CHECK(taken->events[1].data == R"({"n":2})");
  CHECK(taken->events[0].source == "/hooks/orders");
  const std::vector<delivery> wrong{post(body),
                                    post(body, {{"x-hub-signature-256", ""}}),
                                    post(body, {{"x-hub-signature-256", sha256_hex(body)}}),
                                    post(body, {{"x-hub-signature-256", "sha256="}}),
                                    post(body, {{"x-hub-signature-256", "sha256=" + sha256_hex(body + " ")}}),
                                    post("not json", {{"x-hub-signature-256", "sha256=" + sha256_hex(body)}})};
  for (const delivery& d : wrong) {
    const auto refused = hook.take(d);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == errc::unauthorized);
  }
  // A published example (GitHub, "Validating webhook deliveries").
  const auto hello = hook.take(post(
      "Hello, World!",
      {{"x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}}));
  CHECK(hello.error().code == errc::malformed);  // signed, but no JSON
}

TEST_CASE("intake: without a signature it takes what is trusted, with one it does not matter", "[webhook_intake]") {
  delivery stranger = post("{}");
  stranger.trusted = false;
  CHECK(open_hook().take(post("{}")).has_value());
  CHECK(open_hook().take(stranger).error().code == errc::forbidden);
  const webhook_intake hook("/orders", signature(), as_written);
  CHECK(hook.take(stranger).error().code == errc::unauthorized);
  CHECK(hook.take(post("{}")).error().code == errc::unauthorized);  // trust is no signature
  stranger.headers = {{"x-hub-signature-256", sha256_hex("{}")}};
  CHECK(hook.take(stranger).has_value());
}

TEST_CASE("intake: what it cannot be made of", "[webhook_intake]") {
  const auto fails = [](const std::string& path, const config::value& rule) {
    CHECK_THROWS_AS(webhook_intake(path, rule, as_written), std::runtime_error);
  };
  fails("orders", config::value());
  fails("", config::value());
  fails("/orders", signature(R"({"secret": "${env:EMPTY}"})"));
  const auto no_value = [](const std::string&) -> std::string { throw std::runtime_error("${env:KEY} has no value"); };
  CHECK_THROWS_WITH(webhook_intake("/orders", signature(), no_value), Contains("has no value"));
  CHECK_NOTHROW(webhook_intake("/orders", config::value(), no_value));
}

TEST_CASE("intake: it may be copied and outlive what it was made of", "[webhook_intake]") {
  auto first = std::make_unique<webhook_intake>("/orders", signature(), as_written);
  const webhook_intake second = *first;
  first.reset();
  CHECK(second.take(post("{}", {{"x-hub-signature-256", sha256_hex("{}")}})).has_value());
  CHECK(second.take(post("{}")).error().code == errc::unauthorized);
}

namespace {

// A hook and what is behind it, without threads: each delivery is received to its end, or to where what is behind waits.
struct received_hook {
  webhook_intake intake;
  std::shared_ptr<replay_memory> seen = std::make_shared<replay_memory>();
  boost::asio::io_context control{};
  std::vector<std::string> ids{};      // of the events that came through
  std::vector<std::string> named{};    // as whose delivery
  std::optional<error> failure{};      // what is behind says

  explicit received_hook(const std::string& more) : intake("/orders", signature(more), as_written) {}

  result<delivery_answer> post_at(timestamp now, const delivery& d) {
    webhook_intake::onward go_on = [this](webhook_intake::posted one) { return take(std::move(one)); };
    auto answer = boost::asio::co_spawn(control, intake.receive(d, seen, std::move(go_on), now), boost::asio::use_future);
    control.restart();
    control.run();
    return answer.get();
  }
  boost::asio::awaitable<result<delivery_answer>> take(webhook_intake::posted one) {
    if (failure) co_return *failure;
    for (const event& e : one.events.events) ids.emplace_back(e.id);
    named.push_back(one.id);
    co_return delivery_answer{.accepted = static_cast<std::int64_t>(one.events.size())};
  }
};

delivery github_post(const std::string& body, const std::string& id) {
  return post(body, {{"x-hub-signature-256", "sha256=" + sha256_hex(body)}, {"x-github-delivery", id}});
}

const std::string as_github = R"({"scheme": "github"})";
const timestamp noon = from_micros(1'700'000'000'000'000);

}  // namespace

TEST_CASE("intake: a delivery that was accepted is answered as one, and not taken again", "[webhook_intake][replay]") {
  received_hook hook(as_github);
  const delivery first = github_post(R"({"n":1})", "d-1");
  CHECK(hook.post_at(noon, first)->accepted == 1);
  const auto again = hook.post_at(noon + std::chrono::minutes{59}, first);
  REQUIRE(again.has_value());
  CHECK(again->duplicate);
  CHECK(again->accepted == 0);
  // Who repeats it can change the id, which nobody signs; or has the id, but other bytes.
  CHECK(hook.post_at(noon, github_post(R"({"n":1})", "d-2"))->duplicate);
  CHECK(hook.post_at(noon, github_post(R"({"n":2})", "d-1"))->duplicate);
  CHECK_FALSE(hook.post_at(noon, github_post(R"({"n":2})", "d-2"))->duplicate);
  CHECK(hook.ids == std::vector<std::string>{"d-1", "d-2"});
  CHECK(hook.named == hook.ids);
  CHECK_FALSE(hook.post_at(noon + std::chrono::hours{2}, first)->duplicate);
}

TEST_CASE("intake: what was refused, or failed behind it, may come again", "[webhook_intake][replay]") {
  received_hook hook(as_github);
  const delivery d = github_post(R"({"n":1})", "d-1");
  hook.failure = error{errc::unavailable, "not now"};
  CHECK(hook.post_at(noon, d).error().code == errc::unavailable);
  hook.failure.reset();
  CHECK(hook.post_at(noon, github_post("not json", "d-1")).error().code == errc::malformed);
  CHECK(hook.post_at(noon, post(R"({"n":1})", {{"x-github-delivery", "d-1"}})).error().code == errc::unauthorized);
  CHECK_FALSE(hook.post_at(noon, d)->duplicate);
  CHECK(hook.post_at(noon, d)->duplicate);
  // A forged one learns nothing of what was seen.
  CHECK(hook.post_at(noon, post(R"({"n":1})", {{"x-github-delivery", "d-1"}})).error().code == errc::unauthorized);
}

TEST_CASE("intake: no window, no memory", "[webhook_intake][replay]") {
  for (const char* more : {R"({})", R"({"replay_window": 0})"}) {
    received_hook hook(more);
    const delivery d = post("{}", {{"x-hub-signature-256", sha256_hex("{}")}});
    CHECK_FALSE(hook.post_at(noon, d)->duplicate);
    CHECK_FALSE(hook.post_at(noon, d)->duplicate);
    CHECK(hook.named == std::vector<std::string>{"", ""});
  }
  received_hook off(R"({"scheme": "github", "replay_window": 0})");
  CHECK_FALSE(off.post_at(noon, github_post("{}", "d-1"))->duplicate);
  CHECK_FALSE(off.post_at(noon, github_post("{}", "d-1"))->duplicate);
  CHECK(off.ids == std::vector<std::string>{"d-1", "d-1"});  // a topic can still tell
  CHECK(off.named == std::vector<std::string>{"", ""});
}

TEST_CASE("intake: the delivery's id is its events'", "[webhook_intake][replay]") {
  received_hook hook(as_github);
  hook.post_at(noon, github_post("[1,2]", "d-1"));
  CHECK(hook.ids == std::vector<std::string>{"d-1-1", "d-1-2"});
  hook.ids.clear();
  delivery own = github_post(R"({"specversion":"1.0","id":"own","source":"/s","type":"t","data":1})", "d-2");
  own.headers["content-type"] = "application/cloudevents+json";
  hook.post_at(noon, own);
  CHECK(hook.ids == std::vector<std::string>{"own"});
  for (const std::string& odd : {std::string("a b"), std::string("\xff"), std::string(257, 'x'), std::string()}) {
    hook.ids.clear();
    CHECK(hook.post_at(noon, github_post("{\"odd\":" + std::to_string(odd.size()) + "}", odd))->accepted == 1);
    REQUIRE(hook.ids.size() == 1);
    CHECK(hook.ids[0].size() == 26);
    CHECK(hook.named.back().empty());
  }
}

TEST_CASE("intake: several secrets, and a hook that remembers all it may", "[webhook_intake][replay]") {
  config::value rule{{"scheme", "github"}, {"secrets", {"${env:OTHER}", "${env:KEY}"}}, {"replay_limit", 1}};
  const auto reveal = [](const std::string& text) { return text == "${env:KEY}" ? key : "the new one"; };
  received_hook hook(as_github);
  hook.intake = webhook_intake("/orders", rule, reveal);
  CHECK(hook.post_at(noon, github_post("1", "d-1"))->accepted == 1);
  const auto full = hook.post_at(noon, github_post("2", "d-2"));
  REQUIRE_FALSE(full.has_value());
  CHECK(full.error().code == errc::overloaded);
  CHECK(hook.post_at(noon, github_post("1", "d-1"))->duplicate);
  CHECK(hook.post_at(noon + std::chrono::minutes{61}, github_post("2", "d-2"))->accepted == 1);
}

TEST_CASE("intake: bodies by their type", "[webhook_intake]") {
  const auto count = [](const std::string& body, headers h = {}) {
    const auto taken = open_hook().take(post(body, std::move(h)));
    return taken ? static_cast<int>(taken->size()) : -1;
  };
  CHECK(count("{}") == 1);
  CHECK(count("[1,2,3]", {{"content-type", "application/x-www-form-urlencoded"}}) == 3);
  CHECK(count("{}\n{}\n", {{"content-type", "Application/X-NDJSON"}}) == 2);
  CHECK(count("{}", cloudevent()) == 1);
  CHECK(count("{}", {{"ce-specversion", "1.0"}}) == -1);
  // A structured one keeps its own attributes, whatever the headers say.
  CHECK(count(R"({"specversion":"1.0","id":"a","source":"/s","type":"t","data":1})",
              {{"content-type", "application/cloudevents+json"}, {"ce-specversion", "1.0"}}) == 1);
  CHECK(count("") == -1);
}

TEST_CASE("CloudEvents in headers: attributes", "[cloudevents]") {
  const auto taken = read_headers(cloudevent({{"ce-subject", "%22a%22%20%E2%82%AC"},
                                              {"ce-partitionkey", "\"quoted \\\"key\\\"%25\""},
                                              {"ce-time", "2018-02-07T03:04:05+01:00"},
                                              {"content-type", "application/json"}}),
                                  R"({"n":1})");
  REQUIRE(taken.has_value());
  const event& e = taken->events.at(0);
  CHECK(e.subject == "\"a\" \xE2\x82\xAC");
  CHECK(e.key == "quoted \"key\"%");
  CHECK(format_time(e.time) == "2018-02-07T02:04:05.000000Z");
  CHECK(e.data == R"({"n":1})");
  CHECK(e.datacontenttype == "application/json");
  CHECK(read_headers(cloudevent())->events[0].time == from_micros(7));
  // What is no encoding stays as it is.
  CHECK(read_headers(cloudevent({{"ce-subject", "100%"}}))->events[0].subject == "100%");
  CHECK(read_headers(cloudevent({{"ce-subject", "%zz%4"}}))->events[0].subject == "%zz%4");
  CHECK(read_headers(cloudevent({{"ce-subject", "\""}}))->events[0].subject == "\"");
}

TEST_CASE("CloudEvents in headers: data", "[cloudevents]") {
  CHECK(read_headers(cloudevent(), "")->events[0].data == "null");
  CHECK(read_headers(cloudevent({{"content-type", "image/png"}}), "")->events[0].data.empty());
  const std::string bytes("\x89PNG\0\xff", 6);
  CHECK(read_headers(cloudevent({{"content-type", "image/png"}}), bytes)->events[0].data == bytes);
  CHECK(read_headers(cloudevent(), "{").error().code == errc::malformed);
  CHECK(read_headers(cloudevent({{"content-type", "text/plain"}}), std::string((1 << 20) + 1, 'x')).error().code ==
        errc::too_large);
}

TEST_CASE("CloudEvents in headers: what is refused", "[cloudevents]") {
  const std::vector<headers> bad{cloudevent({{"ce-specversion", "0.3"}}),
                                 cloudevent({{"ce-specversion", ""}}),
                                 cloudevent({{"ce-id", ""}}),
                                 cloudevent({{"ce-source", ""}}),
                                 cloudevent({{"ce-type", "\"\""}}),
                                 cloudevent({{"ce-time", "yesterday"}}),
                                 cloudevent({{"ce-id", "a%0Ab"}}),       // a line end
                                 cloudevent({{"ce-subject", "%00"}}),
                                 cloudevent({{"ce-subject", "%C0%A0"}}), // the binding's own example: overlong
                                 cloudevent({{"ce-subject", "\xff"}})};
  for (const headers& h : bad) {
    const auto refused = read_headers(h);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == errc::malformed);
    CHECK_THAT(refused.error().detail, Contains("ce-"));
  }
}

}  // namespace test_webhook_intake
