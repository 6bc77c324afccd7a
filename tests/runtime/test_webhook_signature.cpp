// Signatures of webhooks: vectors that their makers publish, and every way to be nearly right. Time is a parameter.
#include <map>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "runtime/webhook_signature.hpp"

namespace test_webhook_signature {

using namespace penstock;
using namespace penstock::runtime;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using headers = std::map<std::string, std::string>;

namespace {

signature_rule rule_of(const std::string& settings) { return signature_rule_of(config::value::parse(settings)); }

const std::string github_secret = "It's a Secret to Everybody";
const std::string hello_mac = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

// Standard Webhooks' own example.
const std::string standard_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const std::string standard_body = R"({"test": 2432232314})";
const std::string standard_signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
constexpr timestamp standard_time{1'614'265'330s};

headers standard_headers(const std::string& signature = standard_signature) {
  return {{"webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"},
          {"webhook-timestamp", "1614265330"},
          {"webhook-signature", signature}};
}

std::string mac_hex(const std::string& secret, const std::string& content) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(content.data()), content.size(), mac, &size);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += "0123456789abcdef"[mac[i] >> 4];
    out += "0123456789abcdef"[mac[i] & 15];
  }
  return out;
}

struct checker {
  signature_rule rule;
  std::vector<std::string> keys{};

  checker(const std::string& settings, const std::vector<std::string>& secrets) : rule(rule_of(settings)) {
    for (const auto& one : secrets) keys.push_back(signing_key(rule, one));
  }
  result<verified_delivery> operator()(const headers& h, const std::string& body, timestamp now = timestamp{}) const {
    return verify_signature(rule, keys, h, body, now);
  }
  // What it says, or empty when the delivery is signed.
  std::string says(const headers& h, const std::string& body, timestamp now = timestamp{}) const {
    const auto verified = (*this)(h, body, now);
    if (verified) return "";
    CHECK(verified.error().code == errc::unauthorized);
    return verified.error().detail;
  }
};

const checker& standard() {
  static const checker one(R"({"scheme": "standard"})", {standard_secret});
  return one;
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

TEST_CASE("signature: GitHub's published example", "[signature]") {
  const checker github(R"({"scheme": "github"})", {github_secret});
  const auto with = [](const std::string& value) { return headers{{"x-hub-signature-256", value}}; };
  CHECK(github.says(with("sha256=" + hello_mac), "Hello, World!") == "");
  CHECK(github.says(with("sha256=" + upper(hello_mac)), "Hello, World!") == "");
  CHECK_THAT(github.says(with("SHA256=" + hello_mac), "Hello, World!"), Contains("wrong"));
  CHECK_THAT(github.says(with("sha256=" + hello_mac), "Hello, World! "), Contains("wrong"));
  CHECK_THAT(github.says(with("sha256=" + hello_mac), ""), Contains("wrong"));
  CHECK_THAT(github.says(with(hello_mac), "Hello, World!"), Contains("wrong"));
  CHECK_THAT(github.says(with("sha256="), "Hello, World!"), Contains("wrong"));
  CHECK_THAT(github.says(with("sha256=" + hello_mac + ", sha256=" + hello_mac), "Hello, World!"), Contains("wrong"));
  CHECK_THAT(github.says({}, "Hello, World!"), Contains("x-hub-signature-256 is missing"));
  CHECK_THAT(github.says({{"x-hub-signature", "sha1=0"}}, "Hello, World!"), Contains("missing"));
  CHECK(github.says(with("sha256=" + mac_hex(github_secret, "")), "") == "");
}

TEST_CASE("signature: Standard Webhooks' published example", "[signature]") {
  CHECK(standard().says(standard_headers(), standard_body, standard_time) == "");
  CHECK(standard()(standard_headers(), standard_body, standard_time)->id == "msg_p5jXN8AQM9LWM0D4loKWxJek");
  const checker unmarked(R"({"scheme": "standard"})", {standard_secret.substr(6)});
  CHECK(unmarked.says(standard_headers(), standard_body, standard_time) == "");

  for (const char* name : {"webhook-id", "webhook-timestamp", "webhook-signature"}) {
    headers h = standard_headers();
    h.erase(name);
    CHECK_THAT(standard().says(h, standard_body, standard_time), Contains(std::string(name) + " is missing"));
    h[name] = "";
    CHECK_THAT(standard().says(h, standard_body, standard_time), Contains(std::string(name) + " is missing"));
    h = standard_headers();
    h[name] += ", " + h[name];  // sent twice
    // The same signature twice is still signed; an id or a time of two is another one.
    const std::string said = standard().says(h, standard_body, standard_time);
    CHECK((name == std::string("webhook-signature") ? said == "" : !said.empty()));
  }
  headers other = standard_headers();
  other["webhook-id"] = "msg_p5jXN8AQM9LWM0D4loKWxJel";
  CHECK_THAT(standard().says(other, standard_body, standard_time), Contains("wrong"));
}

TEST_CASE("signature: Standard Webhooks may send several", "[signature]") {
  const auto says = [](const std::string& signature) {
    return standard().says(standard_headers(signature), standard_body, standard_time);
  };
  const std::string wrong = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
  CHECK(says(wrong + " " + standard_signature) == "");
  CHECK(says(standard_signature + " " + wrong) == "");
  CHECK(says("v1a,aaaa " + wrong + "  " + standard_signature + " ") == "");
  CHECK_THAT(says(wrong + " " + wrong), Contains("wrong"));
  CHECK_THAT(says("v2" + standard_signature.substr(2)), Contains("no signature"));
  CHECK_THAT(says(standard_signature.substr(3)), Contains("no signature"));
  CHECK_THAT(says("v1,"), Contains("wrong"));
  CHECK_THAT(says("v1," + upper(standard_signature.substr(3))), Contains("wrong"));  // base64 has case
  CHECK_THAT(says(standard_signature.substr(0, standard_signature.size() - 1)), Contains("wrong"));
}

TEST_CASE("signature: a time too old, and one too far ahead", "[signature]") {
  const auto at = [](timestamp now) { return standard().says(standard_headers(), standard_body, now); };
  CHECK(at(standard_time + 5min) == "");
  CHECK(at(standard_time - 5min) == "");
  CHECK_THAT(at(standard_time + 5min + 1us), Contains("old; the tolerance is 5m"));
  CHECK_THAT(at(standard_time + 10min), Contains("timestamp is 10m old"));
  CHECK_THAT(at(standard_time - 5min - 1us), Contains("ahead of the clock here"));
  const checker strict(R"({"scheme": "standard", "tolerance": 30000000000})", {standard_secret});
  CHECK(strict.says(standard_headers(), standard_body, standard_time + 30s) == "");
  CHECK_THAT(strict.says(standard_headers(), standard_body, standard_time + 31s), Contains("tolerance is 30s"));
  // The time is signed: it cannot be made young.
  headers h = standard_headers();
  h["webhook-timestamp"] = "1614265900";
  CHECK_THAT(standard().says(h, standard_body, standard_time + 10min), Contains("wrong"));
}

TEST_CASE("signature: a signed time that is no time", "[signature]") {
  const checker stripe(R"({"scheme": "stripe"})", {"whsec_x"});
  for (const char* text : {"soon", "-1", "1e9", "1614265330.5", "0x10", "99999999999999999999", "9999999999999"}) {
    const std::string t = text;
    CHECK_THAT(stripe.says({{"stripe-signature", "t=" + t + ",v1=" + mac_hex("whsec_x", t + ".{}")}}, "{}"),
               Contains("no number of seconds"));
  }
  CHECK_THAT(stripe.says({{"stripe-signature", "t=999999999999,v1=" + mac_hex("whsec_x", "999999999999.{}")}}, "{}"),
             Contains("ahead"));
}

TEST_CASE("signature: Stripe", "[signature]") {
  const std::string secret = "whsec_test_secret", body = R"({"id":"evt_1"})";  // used as it is, whsec_ and all
  const checker stripe(R"({"scheme": "stripe"})", {secret});
  const timestamp now{1'700'000'000s};
  const std::string t = "t=1700000000", v1 = "v1=" + mac_hex(secret, "1700000000." + body);
  const std::string wrong = "v1=" + std::string(64, '0'), v0 = "v0=" + v1.substr(3);
  const auto says = [&](const std::string& value) { return stripe.says({{"stripe-signature", value}}, body, now); };
  CHECK(says(t + "," + v1) == "");
  CHECK(says(v1 + "," + t) == "");
  CHECK(says(t + ", " + v1) == "");
  CHECK(says(t + "," + wrong + "," + v1 + ",v0=abc") == "");
  CHECK(says(t + ",v1=" + upper(v1.substr(3))) == "");
  CHECK_THAT(says(t + "," + wrong), Contains("wrong"));
  CHECK_THAT(says(t + "," + v0), Contains("no signature"));
  CHECK_THAT(says(t), Contains("no signature"));
  CHECK_THAT(says(v1), Contains("no timestamp"));
  CHECK_THAT(says("t=," + v1), Contains("no timestamp"));
  CHECK_THAT(says("t=1700000001," + v1), Contains("wrong"));
  CHECK_THAT(says(t + "," + v1 + ", " + t + "," + v1), Contains("two timestamps"));  // the header sent twice
  CHECK_THAT(says(",,,"), Contains("no timestamp"));
  CHECK_THAT(stripe.says({}, body, now), Contains("stripe-signature is missing"));
  CHECK_THAT(stripe.says({{"stripe-signature", t + "," + v1}}, body + "\n", now), Contains("wrong"));
  CHECK(stripe.says({{"stripe-signature", t + ",v1=" + mac_hex(secret, "1700000000.")}}, "", now) == "");
}

TEST_CASE("signature: each of several secrets will do, and no other", "[signature]") {
  const checker both(R"({"scheme": "hmac-sha256", "header": "X-Sig"})", {"new", "old"});
  CHECK(both.says({{"x-sig", mac_hex("new", "{}")}}, "{}") == "");
  CHECK(both.says({{"x-sig", mac_hex("old", "{}")}}, "{}") == "");
  CHECK_THAT(both.says({{"x-sig", mac_hex("older", "{}")}}, "{}"), Contains("wrong"));
  CHECK_THAT(both.says({{"x-sig", mac_hex("", "{}")}}, "{}"), Contains("wrong"));
  const checker rotated(R"({"scheme": "standard"})", {"whsec_" + std::string(32, 'A'), standard_secret});
  CHECK(rotated.says(standard_headers(), standard_body, standard_time) == "");
}

TEST_CASE("signature: a body of a megabyte, one byte wrong at a time", "[signature]") {
  const checker plain(R"({"scheme": "hmac-sha256", "header": "X-Sig"})", {"key"});
  std::string body(1 << 20, 'x');
  body[12345] = '\0';
  const headers h{{"x-sig", mac_hex("key", body)}};
  CHECK(plain.says(h, body) == "");
  for (const std::size_t at : {std::size_t{0}, std::size_t{12345}, body.size() - 1}) {
    std::string other = body;
    other[at] = static_cast<char>(other[at] ^ 1);
    CHECK_THAT(plain.says(h, other), Contains("wrong"));
  }
}

TEST_CASE("signature: secrets that can be no key", "[signature]") {
  const auto rule = rule_of(R"({"scheme": "standard"})");
  for (const char* bad : {"", "whsec_", "whsec_!!!!", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_ MfK", "whsec_====",
                          "whsec_A===", "whsec_MfKQ\n", "WHSEC_MfKQ"}) {
    INFO(bad);
    CHECK_THROWS_AS(signing_key(rule, bad), std::runtime_error);
  }
  CHECK(signing_key(rule, "whsec_aGVsbG8=") == "hello");
  CHECK(signing_key(rule, "aGk=") == "hi");
  CHECK(signing_key(rule_of(R"({"scheme": "stripe"})"), "whsec_!!!!") == "whsec_!!!!");
  CHECK_THROWS_AS(signing_key(rule_of(R"({"scheme": "github"})"), ""), std::runtime_error);
}

TEST_CASE("signature: what a replay is known by, and for how long", "[signature]") {
  const timestamp now{1'700'000'000s};
  const auto verified = [&](const std::string& settings, headers h, const std::string& body = "{}") {
    h.emplace("x-sig", mac_hex("key", body));
    h.emplace("x-hub-signature-256", "sha256=" + mac_hex("key", body));
    h.emplace("stripe-signature", "t=1699999900,v1=" + mac_hex("key", "1699999900." + body));
    return checker(settings, {"key"})(h, body, now).value();
  };
  const std::string plain = R"({"header": "X-Sig")";
  CHECK(verified(plain + "}", {}).keys.empty());
  CHECK(verified(plain + R"(, "replay_window": 0})", {}).keys.empty());
  const auto windowed = verified(plain + R"(, "replay_window": 600000000000})", {});
  CHECK(windowed.keys.size() == 1);
  CHECK(windowed.remembered_until == now + 10min);
  CHECK(windowed.keys == verified(plain + R"(, "replay_window": 600000000000})", {{"x-other", "1"}}).keys);
  CHECK(windowed.keys != verified(plain + R"(, "replay_window": 600000000000})", {}, "[]").keys);

  // GitHub does not sign its id: another one in front of the same bytes is no new delivery.
  const std::string github = R"({"scheme": "github")";
  const auto first = verified(github + "}", {{"x-github-delivery", "a"}});
  const auto renamed = verified(github + "}", {{"x-github-delivery", "b"}});
  const auto nameless = verified(github + "}", {});
  REQUIRE(first.keys.size() == 2);
  CHECK(first.id == "a");
  CHECK(first.keys[0] != renamed.keys[0]);
  CHECK(first.keys[1] == renamed.keys[1]);
  CHECK(nameless.keys == std::vector<replay_key>{first.keys[1]});
  CHECK(first.remembered_until == now + 1h);
  CHECK(verified(github + R"(, "replay_window": 0})", {{"x-github-delivery", "a"}}).keys.empty());

  // At least as long as its own time is good for, and never less.
  const std::string stripe = R"({"scheme": "stripe")";
  CHECK(verified(stripe + "}", {}).remembered_until == now + 5min);
  CHECK(verified(stripe + R"(, "replay_window": 0})", {}).remembered_until == now - 100s + 5min);
  CHECK(verified(stripe + R"(, "replay_window": 0})", {}).keys.size() == 1);
  CHECK(verified(stripe + R"(, "replay_window": 86400000000000})", {}).remembered_until == now + 24h);
  // A sender's clock that is ahead keeps the delivery good for longer.
  const auto ahead = standard()(standard_headers(), standard_body, standard_time - 4min).value();
  CHECK(ahead.remembered_until == standard_time + 5min);
  // Signed anew, a Standard Webhooks delivery of the same id is the same one.
  CHECK(ahead.keys.size() == 1);
}

}  // namespace test_webhook_signature
