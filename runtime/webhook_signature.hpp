// Is a delivery signed as its hook demands: one pure function of (rule, keys, headers, body, now), and how the rule and
// the keys come from a definition. Schemes: HMAC in a header of any name, GitHub, Stripe, Standard Webhooks.
//
// Signatures are checked over the raw bytes and in constant time; every key is tried, so that a secret can be changed
// while both are in use. Plain values, any thread.
#pragma once

#include <array>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/error.hpp"
#include "config/field.hpp"
#include "config/time.hpp"

namespace penstock::runtime {

// What a replay of a delivery would have again: a digest, so that it takes the same room whatever was sent.
using replay_key = std::array<unsigned char, 16>;

// A checked `signature`, without its secrets.
struct signature_rule {
  enum class form {
    plain,     // the MAC of the body
    stripe,    // "t=SECONDS,v1=HEX", of t.body; https://docs.stripe.com/webhooks#verify-manually
    standard,  // "v1,BASE64 v1,BASE64", of id.timestamp.body; https://www.standardwebhooks.com
  };
  enum class digest { sha1, sha256, sha512 };

  form written = form::plain;
  digest algorithm = digest::sha256;
  std::string header{};  // lower-case
  bool base64 = false;
  std::string prefix{};
  std::string id_header{};  // lower-case; empty: deliveries have no id
  std::chrono::microseconds tolerance{0};  // of a signed timestamp, both ways
  std::optional<std::chrono::microseconds> replay_window{};  // nothing: replays are taken
  std::size_t replay_limit = 100'000;  // deliveries remembered at once
};

struct verified_delivery {
  std::string id{};                // what its sender calls it, or empty
  std::vector<replay_key> keys{};  // empty: replays are taken
  timestamp remembered_until{};    // not before its own time is too old
};

// `signature`: a checked value of config::signature_field().
signature_rule signature_rule_of(const config::value& signature);

// The key that a secret stands for. Throws std::runtime_error for one that is empty, and for one of Standard Webhooks
// that is not base64 (with or without whsec_ before it); the message does not show it.
std::string signing_key(const signature_rule& rule, const std::string& secret);

// Header names are lower-case. errc::unauthorized says what is missing, wrong, or too old.
result<verified_delivery> verify_signature(const signature_rule& rule, const std::vector<std::string>& keys,
                                           const std::map<std::string, std::string>& headers, std::string_view body,
                                           timestamp now);

}  // namespace penstock::runtime
