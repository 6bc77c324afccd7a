// Signed deliveries: only one that was signed with a key is taken, whatever its headers say.
// Input: the scheme (hmac, hmac-base64, sha1, github, stripe, standard), headers as "name: value", an empty line, the body.
// In a value, {sign} stands for the right signature of the delivery, so that seeds can be right.
#include <algorithm>
#include <map>
#include <string>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "runtime/webhook_signature.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

using runtime::signature_rule;
using headers = std::map<std::string, std::string>;

const std::string key = "correct horse battery staple";
constexpr std::int64_t now_s = 1'774'000'000;

signature_rule rule_named(std::string_view scheme) {
  signature_rule rule;
  rule.header = "x-signature";
  rule.base64 = scheme == "hmac-base64";
  if (scheme == "sha1") rule.algorithm = signature_rule::digest::sha1;
  if (scheme == "github") rule.prefix = "sha256=";
  if (scheme == "stripe" || scheme == "standard") {
    rule.written = scheme == "stripe" ? signature_rule::form::stripe : signature_rule::form::standard;
    rule.header = scheme == "stripe" ? "stripe-signature" : "webhook-signature";
    rule.base64 = scheme == "standard";
    if (scheme == "standard") rule.id_header = "webhook-id";
    rule.tolerance = std::chrono::minutes{5};
    rule.replay_window = std::chrono::minutes{10};
  }
  return rule;
}

std::string mac(const signature_rule& rule, const std::string& text) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  const EVP_MD* digest = rule.algorithm == signature_rule::digest::sha1 ? EVP_sha1() : EVP_sha256();
  HMAC(digest, key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()), text.size(), bytes, &size);
  std::string out;
  if (rule.base64) {
    out.resize(4 * ((size + 2) / 3) + 1);
    out.resize(static_cast<std::size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes, static_cast<int>(size))));
    return out;
  }
  constexpr std::string_view digits = "0123456789abcdef";
  for (unsigned i = 0; i < size; ++i) out.append(1, digits[bytes[i] >> 4]).append(1, digits[bytes[i] & 15]);
  return out;
}

// What is signed, if the delivery says all that is needed: our own reading of the schemes, for seeds only.
std::string signed_text(const signature_rule& rule, const headers& given, const std::string& body) {
  if (rule.written == signature_rule::form::stripe) return std::to_string(now_s) + "." + body;
  if (rule.written == signature_rule::form::plain) return body;
  const auto id = given.find("webhook-id"), time = given.find("webhook-timestamp");
  return (id == given.end() ? "" : id->second) + "." + (time == given.end() ? "" : time->second) + "." + body;
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

}  // namespace

void try_input(std::string_view text) {
  const signature_rule rule = rule_named(take_line(text));
  headers given;
  for (std::string_view line = take_line(text); !line.empty(); line = take_line(text)) {
    const std::size_t colon = std::min(line.find(':'), line.size());
    std::string_view value = line.substr(std::min(colon + 1, line.size()));
    while (value.starts_with(' ')) value.remove_prefix(1);
    given[lower(std::string(line.substr(0, colon)))] = value;
  }
  const std::string body(text);
  const std::string right = mac(rule, signed_text(rule, given, body));
  bool holds_it = false;
  for (auto& [name, value] : given) {
    if (const std::size_t at = value.find("{sign}"); at != value.npos) value.replace(at, 6, right);
    holds_it = holds_it || lower(value).find(lower(right)) != value.npos;
  }
  const timestamp now = from_micros(now_s * 1'000'000);
  const std::vector<std::string> keys{"another key", key};
  const auto taken = runtime::verify_signature(rule, keys, given, body, now);
  if (!taken) {
    require(taken.error().code == errc::unauthorized && !taken.error().detail.empty(), "a refusal says why");
    return;
  }
  require(holds_it || rule.written == signature_rule::form::stripe, "what is taken has the right signature");
  require(!runtime::verify_signature(rule, keys, given, body + "x", now), "another body has another signature");
  require(!runtime::verify_signature(rule, {"another key"}, given, body, now), "another key has another signature");
  if (rule.written != signature_rule::form::plain) {
    require(!runtime::verify_signature(rule, keys, given, body, now + std::chrono::hours{1}), "what is old is not taken");
    require(!taken->keys.empty() && taken->remembered_until > now, "a replay would be noticed");
  }
}

}  // namespace penstock::fuzz
