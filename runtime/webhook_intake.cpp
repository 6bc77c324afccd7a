#include "runtime/webhook_intake.hpp"

#include <algorithm>
#include <cctype>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "runtime/cloudevents.hpp"
#include "runtime/json.hpp"

namespace penstock::runtime {

namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

std::string_view header_of(const delivery& d, std::string_view name) {
  const auto found = d.headers.find(std::string(name));
  return found == d.headers.end() ? std::string_view() : std::string_view(found->second);
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

// Without a content type that says otherwise a body is JSON: many senders, curl -d among them, name none or a
// wrong one.
intake_format format_of(const std::string& type) {
  if (type.starts_with("application/cloudevents-batch")) return intake_format::cloudevents_batch;
  if (type.starts_with("application/cloudevents")) return intake_format::cloudevent;
  if (type.find("ndjson") != std::string::npos || type.find("jsonl") != std::string::npos)
    return intake_format::ndjson;
  return intake_format::json;
}

}  // namespace

struct webhook_intake::rule {
  const EVP_MD* digest;
  std::string header;  // lower-case
  std::string secret;  // revealed
  bool base64;
  std::string prefix;

  // Nothing: the signature is right.
  std::optional<error> check(const delivery& d) const;
};

std::optional<error> webhook_intake::rule::check(const delivery& d) const {
  std::string_view given = header_of(d, header);
  if (given.empty()) return error{errc::unauthorized, "the header " + header + " is missing"};
  const error wrong{errc::unauthorized, "the signature in " + header + " is wrong"};
  if (!given.starts_with(prefix)) return wrong;
  given.remove_prefix(prefix.size());

  const std::string_view body = d.body->text();
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!HMAC(digest, secret.data(), static_cast<int>(secret.size()),
            reinterpret_cast<const unsigned char*>(body.data()), body.size(), mac, &size)) {
    throw std::runtime_error("HMAC failed");
  }
  const std::string expected = encode(mac, size, base64);
  const std::string compared = base64 ? std::string(given) : lower(given);
  if (compared.size() != expected.size()) return wrong;
  if (CRYPTO_memcmp(compared.data(), expected.data(), expected.size()) != 0) return wrong;
  return std::nullopt;
}

webhook_intake::webhook_intake(std::string path, const config::value& signature,
                               const std::function<std::string(const std::string&)>& reveal)
    : source_("/hooks" + path) {
  if (!path.starts_with('/')) throw std::runtime_error("path '" + path + "' must begin with a slash");
  if (signature.is_null()) return;
  const std::string scheme = signature.value("scheme", "hmac-sha256");
  rule r{scheme == "hmac-sha1"     ? EVP_sha1()
         : scheme == "hmac-sha512" ? EVP_sha512()
                                   : EVP_sha256(),
         lower(signature.at("header").get<std::string>()), reveal(signature.at("secret").get<std::string>()),
         signature.value("encoding", "hex") == "base64", signature.value("prefix", "")};
  // An empty key is one that everybody knows.
  if (r.secret.empty()) throw std::runtime_error("the signature's secret is empty");
  signature_ = std::make_shared<const rule>(std::move(r));
}

result<batch> webhook_intake::take(const delivery& d) const {
  if (signature_) {
    if (const std::optional<error> refused = signature_->check(d)) return *refused;
  }
  const timestamp now = wall_now();
  const std::string type = lower(header_of(d, "content-type"));
  const bool structured = type.starts_with("application/cloudevents");
  if (!structured && d.headers.contains("ce-specversion")) {
    return read_binary_cloudevent([&d](std::string_view name) { return header_of(d, name); }, d.body, now);
  }
  const event_defaults defaults{.source = source_, .now = now};
  return read_events(d.body, format_of(type), defaults);
}

}  // namespace penstock::runtime
