// Tokens as values: what a role includes, when one is good, what its text may look like, how fast it may be used.
#include <set>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "scheduler/token.hpp"
#include "tests/scheduler/noon.hpp"
#include "tests/scheduler/token_wish.hpp"

using namespace penstock;
using namespace penstock::scheduler;
using namespace penstock::testing;
using namespace std::chrono_literals;

namespace {

// Which of read, ingest, operate, admin are allowed, as "rioa".
std::string allowed(const role_set& roles) {
  std::string out;
  for (const role r : {role::read, role::ingest, role::operate, role::admin}) {
    if (roles.allows(r)) out += token(r)[0];
  }
  return out;
}

}  // namespace

TEST_CASE("token: what each set of roles allows", "[token]") {
  struct row {
    std::vector<std::string> roles;
    std::string allowed;
  };
  const std::vector<row> table{
      {{"read"}, "r"},
      {{"ingest"}, "i"},
      {{"operate"}, "rio"},
      {{"admin"}, "rioa"},
      {{"read", "ingest"}, "ri"},
      {{"ingest", "operate"}, "rio"},
      {{"read", "admin"}, "rioa"},
      {{"read", "read"}, "r"},
  };
  for (const row& r : table) {
    CAPTURE(r.roles);
    CHECK(allowed(roles_of(r.roles)) == r.allowed);
  }
  CHECK(allowed(role_set{}).empty());
}

TEST_CASE("token: roles are named as they were given, and slips are told", "[token]") {
  CHECK(roles_of({"admin", "read"}).names() == std::vector<std::string>{"read", "admin"});
  const auto slip = parse_roles({"read", "opperate"});
  REQUIRE_FALSE(slip.has_value());
  CHECK(slip.error().detail.find("did you mean 'operate'") != std::string::npos);
  CHECK_FALSE(parse_roles({}).has_value());
  CHECK_FALSE(parse_roles({""}).has_value());
  CHECK_FALSE(parse_roles({"Read"}).has_value());
}

TEST_CASE("token: its state at a time", "[token]") {
  struct row {
    std::optional<timestamp> expires, revoked;
    token_state state;
  };
  const std::vector<row> table{
      {std::nullopt, std::nullopt, token_state::active},
      {noon + 1us, std::nullopt, token_state::active},
      {noon, std::nullopt, token_state::expired},  // not good at the very time
      {noon - 1us, std::nullopt, token_state::expired},
      {std::nullopt, noon - 1h, token_state::revoked},
      {noon - 1h, noon - 2h, token_state::revoked},
  };
  for (const row& r : table) {
    token_record t;
    t.expires_at = r.expires;
    t.revoked_at = r.revoked;
    CHECK(state_of(t, noon) == r.state);
    t.roles = roles_of({"admin"});
    CHECK(is_keeper(t, noon) == (r.state == token_state::active));
  }
}

TEST_CASE("token: only an admin of everything can keep the tokens", "[token]") {
  token_record t = a_wish("x", {"admin"});
  CHECK(is_keeper(t, noon));
  t.pipelines = {"shop"};
  CHECK_FALSE(is_keeper(t, noon));
  CHECK(reaches(t, "shop"));
  CHECK_FALSE(reaches(t, "shops"));
  CHECK_FALSE(reaches(t, ""));
  t.pipelines.clear();
  CHECK(reaches(t, "anything"));
  t.roles = roles_of({"operate", "read", "ingest"});
  CHECK_FALSE(is_keeper(t, noon));
}

TEST_CASE("token: a made one is known by its text only", "[token]") {
  const auto made = make_token(a_wish("grafana", {"read"}), noon);
  CHECK(made.record.name == "grafana");
  CHECK(made.record.created_at == noon);
  CHECK(made.text.starts_with("pst_" + made.record.id + "_"));
  const auto shown = parse_token(made.text);
  REQUIRE(shown);
  CHECK(shown->id == made.record.id);
  CHECK(shown->secret.size() >= 33);  // 33 of 62 characters are more than 192 bits
  CHECK(is_secret_of(made.record, shown->secret));
  CHECK(made.record.secret_sha256.find(shown->secret) == std::string::npos);
  CHECK(made.record.secret_sha256.size() == 64);
  std::string other(shown->secret);
  other.back() = other.back() == 'a' ? 'b' : 'a';
  CHECK_FALSE(is_secret_of(made.record, other));
  CHECK_FALSE(is_secret_of(made.record, ""));
  CHECK_FALSE(is_secret_of(made.record, made.text));
  CHECK_FALSE(is_secret_of(token_record{}, shown->secret));  // nor does a record without a hash take it
}

TEST_CASE("token: no two are alike, and every character is used", "[token]") {
  std::set<std::string> ids, secrets, letters;
  for (int i = 0; i < 500; ++i) {
    const auto made = make_token({}, noon);
    ids.insert(made.record.id);
    const std::string secret(parse_token(made.text)->secret);
    for (const char c : secret) letters.insert(std::string(1, c));
    secrets.insert(secret);
  }
  CHECK(ids.size() == 500);
  CHECK(secrets.size() == 500);
  CHECK(letters.size() == 62);
}

TEST_CASE("token: texts that are none", "[token]") {
  const std::string good = make_token({}, noon).text;
  REQUIRE(parse_token(good));
  for (const std::string& bad : std::vector<std::string>{"", "pst_", "pst__", good.substr(1), good + "a", good.substr(0, good.size() - 1), "PST_" + good.substr(4),
                                                         std::string(good.size(), '_'), std::string(good.size(), '\0')}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_token(bad));
  }
  for (std::size_t i = 0; i < good.size(); ++i) {  // a strange byte anywhere
    for (const char c : {' ', '\n', '-', '\x80', '\0'}) {
      std::string bad = good;
      bad[i] = c;
      CHECK_FALSE(parse_token(bad));
    }
  }
}

TEST_CASE("token: SHA-256 is the one of FIPS 180-4", "[token]") {
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_CASE("token: a bucket lets the burst through, then one after another", "[token]") {
  const token_bucket::clock::time_point start{1h};
  token_bucket bucket({.per_second = 2, .burst = 3});
  for (int i = 0; i < 3; ++i) CHECK_FALSE(bucket.take(start));
  CHECK(bucket.take(start) == 500ms);
  CHECK(bucket.take(start + 250ms) == 250ms);  // asking again does not put it off
  CHECK_FALSE(bucket.take(start + 500ms));
  CHECK(bucket.take(start + 500ms) == 500ms);
  for (int i = 0; i < 3; ++i) CHECK_FALSE(bucket.take(start + 1h));  // no more than the burst after a pause
  CHECK(bucket.take(start + 1h));
}

TEST_CASE("token: a bucket of less than one a second, and a clock that stands still", "[token]") {
  const token_bucket::clock::time_point start{1h};
  token_bucket bucket({.per_second = 0.1, .burst = 1});
  CHECK_FALSE(bucket.take(start));
  CHECK(bucket.take(start) == 10s);
  CHECK(bucket.take(start - 1s) == 10s);
  CHECK(bucket.take(start + 9s) <= 1001ms);
  CHECK_FALSE(bucket.take(start + 10s + 1ms));
}
