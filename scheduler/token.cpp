#include "scheduler/token.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "config/in_quotes.hpp"
#include "runtime/sha256.hpp"

namespace penstock::scheduler {

namespace {

constexpr std::string_view marker = "pst_";
constexpr std::size_t id_size = 10, secret_size = 40;
constexpr std::string_view lower_case = "abcdefghjkmnpqrstuvwxyz23456789";  // of ids: no letter that looks like a digit
constexpr std::string_view any_case = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

constexpr std::array all_roles{role::read, role::ingest, role::operate, role::admin};

// Each character is as likely as any other: bytes beyond the last whole multiple of the alphabet are drawn again.
std::string random_text(std::string_view alphabet, std::size_t size) {
  const std::size_t bound = 256 - 256 % alphabet.size();
  std::string text;
  while (text.size() < size) {
    std::array<unsigned char, 64> bytes;
    if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) throw std::runtime_error("there are no random bytes");
    for (const unsigned char b : bytes) {
      if (b < bound && text.size() < size) text += alphabet[b % alphabet.size()];
    }
    OPENSSL_cleanse(bytes.data(), bytes.size());
  }
  return text;
}

bool made_of(std::string_view text, std::string_view alphabet) {
  return std::all_of(text.begin(), text.end(), [&](char c) { return alphabet.find(c) != std::string_view::npos; });
}

}  // namespace

std::string_view token(role r) {
  switch (r) {
    case role::read:
      return "read";
    case role::ingest:
      return "ingest";
    case role::operate:
      return "operate";
    case role::admin:
      break;
  }
  return "admin";
}

std::string_view token(token_state s) {
  if (s == token_state::revoked) return "revoked";
  return s == token_state::expired ? "expired" : "active";
}

bool role_set::allows(role needed) const {
  const auto has = [this](role r) { return (bits & static_cast<std::uint8_t>(r)) != 0; };
  if (has(needed) || has(role::admin)) return true;
  return has(role::operate) && (needed == role::read || needed == role::ingest);
}

std::vector<std::string> role_set::names() const {
  std::vector<std::string> all;
  for (const role r : all_roles) {
    if ((bits & static_cast<std::uint8_t>(r)) != 0) all.emplace_back(token(r));
  }
  return all;
}

result<role_set> parse_roles(const std::vector<std::string>& words) {
  role_set roles;
  for (const std::string& word : words) {
    const auto found = std::find_if(all_roles.begin(), all_roles.end(), [&](role r) { return token(r) == word; });
    if (found == all_roles.end()) {
      const std::vector<std::string> known{"read", "ingest", "operate", "admin"};
      return error{errc::invalid, config::in_quotes(word) + " is no role; " + config::suggestion(word, known)};
    }
    roles.add(*found);
  }
  if (roles.bits == 0) return error{errc::invalid, "a token needs a role: read, ingest, operate or admin"};
  return roles;
}

token_state state_of(const token_record& t, timestamp now) {
  if (t.revoked_at) return token_state::revoked;
  return t.expires_at && *t.expires_at <= now ? token_state::expired : token_state::active;
}

std::optional<timestamp> end_of(const token_record& t) {
  if (!t.revoked_at || !t.expires_at) return t.revoked_at ? t.revoked_at : t.expires_at;
  return std::min(*t.revoked_at, *t.expires_at);
}

bool is_keeper(const token_record& t, timestamp now) {
  return state_of(t, now) == token_state::active && t.pipelines.empty() && t.roles.allows(role::admin);
}

bool reaches(const token_record& t, std::string_view pipeline) {
  return t.pipelines.empty() || std::find(t.pipelines.begin(), t.pipelines.end(), pipeline) != t.pipelines.end();
}

std::optional<shown_token> parse_token(std::string_view text) {
  if (text.size() != marker.size() + id_size + 1 + secret_size || !text.starts_with(marker)) return std::nullopt;
  const shown_token shown{text.substr(marker.size(), id_size), text.substr(marker.size() + id_size + 1)};
  const bool parted = text[marker.size() + id_size] == '_';
  if (!parted || !made_of(shown.id, lower_case) || !made_of(shown.secret, any_case)) return std::nullopt;
  return shown;
}

std::string sha256_hex(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : runtime::sha256(text)) {
    hex += digits[byte >> 4];
    hex += digits[byte & 15];
  }
  return hex;
}

bool is_secret_of(const token_record& t, std::string_view secret) {
  const std::string hash = sha256_hex(secret);
  return hash.size() == t.secret_sha256.size() && CRYPTO_memcmp(hash.data(), t.secret_sha256.data(), hash.size()) == 0;
}

made_token make_token(token_record wish, timestamp now) {
  made_token made{std::move(wish), {}};
  const std::string secret = random_text(any_case, secret_size);
  made.record.id = random_text(lower_case, id_size);
  made.record.secret_sha256 = sha256_hex(secret);
  made.record.created_at = now;
  made.text = std::string(marker) + made.record.id + "_" + secret;
  return made;
}

std::optional<std::chrono::nanoseconds> token_bucket::take(clock::time_point now) {
  if (filled_ != clock::time_point{} && now > filled_) {
    const double seconds = std::chrono::duration<double>(now - filled_).count();
    left_ = std::min(static_cast<double>(rate_.burst), left_ + seconds * rate_.per_second);
  }
  filled_ = std::max(filled_, now);
  if (left_ >= 1) {
    left_ -= 1;
    return std::nullopt;
  }
  return std::chrono::nanoseconds(static_cast<std::int64_t>(std::ceil((1 - left_) / rate_.per_second * 1e9)));
}

}  // namespace penstock::scheduler
