#include "runtime/webhook_signature.hpp"

#include <algorithm>
#include <cctype>
#include <stdexcept>

#include <nlohmann/json.hpp>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "runtime/sha256.hpp"
#include "runtime/text.hpp"

namespace penstock::runtime {

namespace {

using std::chrono::microseconds;
using headers_of = std::map<std::string, std::string>;

constexpr std::chrono::hours github_window{1};

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

const EVP_MD* digest_of(signature_rule::digest algorithm) {
  switch (algorithm) {
    case signature_rule::digest::sha1:
      return EVP_sha1();
    case signature_rule::digest::sha512:
      return EVP_sha512();
    case signature_rule::digest::sha256:
      break;
  }
  return EVP_sha256();
}

std::string encode(const unsigned char* bytes, unsigned size, bool base64) {
  if (base64) {
    std::string out(4 * ((size + 2) / 3) + 1, '\0');  // EVP_EncodeBlock writes a zero at the end
    out.resize(static_cast<std::size_t>(
        EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes, static_cast<int>(size))));
    return out;
  }
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += digits[bytes[i] >> 4];
    out += digits[bytes[i] & 15];
  }
  return out;
}

std::string mac_of(const signature_rule& rule, const std::string& key, std::string_view content) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!HMAC(digest_of(rule.algorithm), key.data(), static_cast<int>(key.size()), bytes_of(content), content.size(), mac,
            &size)) {
    throw std::runtime_error("HMAC failed");
  }
  return encode(mac, size, rule.base64);
}

// RFC 4648 with its padding; nothing for anything else (EVP_DecodeBlock alone takes blanks and bad padding).
std::optional<std::string> from_base64(std::string_view text) {
  const auto padding = text.size() - std::min(text.size(), text.find_last_not_of('=') + 1);
  const auto is_digit = [](unsigned char c) { return std::isalnum(c) || c == '+' || c == '/'; };
  const std::string_view digits = text.substr(0, text.size() - padding);
  if (text.size() % 4 != 0 || padding > 2 || !std::all_of(digits.begin(), digits.end(), is_digit)) return std::nullopt;
  std::string out(text.size() / 4 * 3, '\0');
  if (EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(text), static_cast<int>(text.size())) < 0) {
    return std::nullopt;
  }
  out.resize(out.size() - padding);
  return out;
}

error unauthorized(std::string detail) { return error{errc::unauthorized, std::move(detail)}; }

std::string_view header_of(const headers_of& headers, const std::string& name) {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

// The parts between separators, trimmed, empty ones left out.
std::vector<std::string_view> parts_of(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const auto end = std::min(text.find(separator), text.size());
    if (const auto part = trimmed(text.substr(0, end)); !part.empty()) out.push_back(part);
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return out;
}

// What a delivery claims, before any of it is believed.
struct claims {
  std::vector<std::string> signatures;
  std::string_view time;  // as sent, it is part of what is signed; empty: none
  std::string_view id;
};

result<claims> plain_claims(const signature_rule& rule, std::string_view given) {
  if (!given.starts_with(rule.prefix)) return unauthorized("the signature in " + rule.header + " is wrong");
  return claims{.signatures = {std::string(given.substr(rule.prefix.size()))}, .time = {}, .id = {}};
}

// Entries that are neither t nor v1 are of schemes that say less (v0).
result<claims> stripe_claims(const signature_rule& rule, std::string_view given) {
  claims out;
  for (const std::string_view part : parts_of(given, ',')) {
    if (part.starts_with("v1=")) out.signatures.emplace_back(part.substr(3));
    if (!part.starts_with("t=")) continue;
    if (!out.time.empty()) return unauthorized(rule.header + " has two timestamps");
    out.time = part.substr(2);
  }
  if (out.time.empty()) return unauthorized(rule.header + " has no timestamp (t=)");
  if (out.signatures.empty()) return unauthorized(rule.header + " has no signature (v1=)");
  return out;
}

result<claims> standard_claims(const signature_rule& rule, const headers_of& headers, std::string_view given) {
  claims out;
  for (const std::string_view part : parts_of(given, ' ')) {
    if (part.starts_with("v1,")) out.signatures.emplace_back(part.substr(3));
  }
  out.time = header_of(headers, "webhook-timestamp");
  if (out.time.empty()) return unauthorized("the header webhook-timestamp is missing");
  if (header_of(headers, rule.id_header).empty()) return unauthorized("the header " + rule.id_header + " is missing");
  if (out.signatures.empty()) return unauthorized(rule.header + " has no signature (v1,)");
  return out;
}

result<claims> claims_of(const signature_rule& rule, const headers_of& headers) {
  const std::string_view given = header_of(headers, rule.header);
  if (given.empty()) return unauthorized("the header " + rule.header + " is missing");
  result<claims> out = rule.written == signature_rule::form::plain    ? plain_claims(rule, given)
                       : rule.written == signature_rule::form::stripe ? stripe_claims(rule, given)
                                                                      : standard_claims(rule, headers, given);
  if (!out) return out;
  out->id = rule.id_header.empty() ? std::string_view() : header_of(headers, rule.id_header);
  if (rule.base64) return out;
  for (std::string& one : out->signatures) one = lower_case(one);
  return out;
}

// No early end: how long it takes says neither which key was right nor how much of a signature.
bool is_signed(const signature_rule& rule, const std::vector<std::string>& keys, std::string_view content,
               const std::vector<std::string>& given) {
  bool right = false;
  for (const std::string& key : keys) {
    const std::string expected = mac_of(rule, key, content);
    for (const std::string& one : given) {
      right |= one.size() == expected.size() && CRYPTO_memcmp(one.data(), expected.data(), expected.size()) == 0;
    }
  }
  return right;
}

// Whole seconds since 1970; few enough digits to be counted in microseconds.
std::optional<timestamp> seconds_of(std::string_view text) {
  const bool digits = std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || text.empty() || text.size() > 12) return std::nullopt;
  return timestamp{std::chrono::seconds{std::stoll(std::string(text))}};
}

std::optional<error> time_fault(const signature_rule& rule, timestamp signed_at, timestamp now) {
  const microseconds age = now - signed_at;
  if (age <= rule.tolerance && age >= -rule.tolerance) return std::nullopt;
  const auto shown = [](microseconds d) {
    constexpr microseconds year = std::chrono::hours{24 * 365};  // beyond it nanoseconds may not be enough
    if (d > year) return "more than " + format_duration(year);
    return format_duration(std::chrono::duration_cast<std::chrono::seconds>(d));
  };
  return unauthorized("the timestamp is " + shown(age.count() > 0 ? age : -age) +
                      (age.count() > 0 ? " old" : " ahead of the clock here") + "; the tolerance is " +
                      shown(rule.tolerance));
}

// `kind` keeps an id from being the same as what somebody signed.
replay_key key_of(char kind, std::string_view text) {
  std::string hashed(1, kind);
  hashed += text;
  const sha256_digest digest = sha256(hashed);
  replay_key out;
  std::copy_n(digest.begin(), out.size(), out.begin());
  return out;
}

// An id that is signed itself tells deliveries apart alone; one that is not can be changed by whoever repeats them.
std::vector<replay_key> keys_of(const signature_rule& rule, std::string_view id, std::string_view content) {
  std::vector<replay_key> out;
  if (!rule.replay_window) return out;
  if (!id.empty()) out.push_back(key_of('i', id));
  if (rule.written != signature_rule::form::standard) out.push_back(key_of('c', content));
  return out;
}

std::string signed_content(const signature_rule& rule, const claims& c, std::string_view body) {
  std::string out;
  if (rule.written == signature_rule::form::standard) out.append(c.id).append(".");
  return out.append(c.time).append(".").append(body);
}

std::optional<microseconds> window_of(const config::value& signature, const std::string& scheme,
                                      const signature_rule& rule) {
  const bool dated = rule.written != signature_rule::form::plain;
  if (const auto given = signature.find("replay_window"); given != signature.end()) {
    const auto window = std::chrono::duration_cast<microseconds>(std::chrono::nanoseconds{given->get<std::int64_t>()});
    if (window.count() > 0 || dated) return window;
    return std::nullopt;
  }
  if (dated) return rule.tolerance;
  if (scheme == "github") return github_window;
  return std::nullopt;
}

}  // namespace

signature_rule signature_rule_of(const config::value& signature) {
  const std::string scheme = signature.value("scheme", "hmac-sha256");
  signature_rule rule;
  if (scheme == "github") {
    rule.header = "x-hub-signature-256";
    rule.prefix = "sha256=";
    rule.id_header = "x-github-delivery";
  } else if (scheme == "stripe") {
    rule.written = signature_rule::form::stripe;
    rule.header = "stripe-signature";
  } else if (scheme == "standard") {
    rule.written = signature_rule::form::standard;
    rule.header = "webhook-signature";
    rule.id_header = "webhook-id";
    rule.base64 = true;
  } else {
    rule.algorithm = scheme == "hmac-sha1"     ? signature_rule::digest::sha1
                     : scheme == "hmac-sha512" ? signature_rule::digest::sha512
                                               : signature_rule::digest::sha256;
    rule.header = lower_case(signature.at("header").get<std::string>());
    rule.base64 = signature.value("encoding", "hex") == "base64";
    rule.prefix = signature.value("prefix", "");
  }
  const std::chrono::nanoseconds tolerance{
      signature.value("tolerance", std::int64_t{std::chrono::nanoseconds(std::chrono::minutes{5}).count()})};
  rule.tolerance = std::chrono::duration_cast<microseconds>(tolerance);
  rule.replay_window = window_of(signature, scheme, rule);
  rule.replay_limit = signature.value("replay_limit", rule.replay_limit);
  return rule;
}

std::string signing_key(const signature_rule& rule, const std::string& secret) {
  // An empty key is one that everybody knows.
  if (secret.empty()) throw std::runtime_error("the signature's secret is empty");
  if (rule.written != signature_rule::form::standard) return secret;
  constexpr std::string_view mark = "whsec_";
  std::string_view encoded = secret;
  if (encoded.starts_with(mark)) encoded.remove_prefix(mark.size());
  std::optional<std::string> key = from_base64(encoded);
  if (!key || key->empty()) {
    throw std::runtime_error("the signature's secret is not whsec_ and base64, as Standard Webhooks has it");
  }
  return std::move(*key);
}

result<verified_delivery> verify_signature(const signature_rule& rule, const std::vector<std::string>& keys,
                                           const headers_of& headers, std::string_view body, timestamp now) {
  const result<claims> claimed = claims_of(rule, headers);
  if (!claimed) return claimed.error();
  const bool dated = rule.written != signature_rule::form::plain;
  const std::string joined = dated ? signed_content(rule, *claimed, body) : std::string();
  const std::string_view content = dated ? std::string_view(joined) : body;
  if (!is_signed(rule, keys, content, claimed->signatures)) {
    return unauthorized("the signature in " + rule.header + " is wrong");
  }
  verified_delivery out{std::string(claimed->id), keys_of(rule, claimed->id, content), now};
  if (rule.replay_window) out.remembered_until += *rule.replay_window;
  if (!dated) return out;
  const std::optional<timestamp> signed_at = seconds_of(claimed->time);
  if (!signed_at) return unauthorized("the timestamp is no number of seconds");
  if (const auto fault = time_fault(rule, *signed_at, now)) return *fault;
  out.remembered_until = std::max(out.remembered_until, *signed_at + rule.tolerance);
  return out;
}

}  // namespace penstock::runtime
