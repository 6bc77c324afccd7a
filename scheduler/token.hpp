// Bearer tokens: who may do what, in which pipelines, until when and how fast. Decisions are pure functions of (token, what is
// wanted, now); only making one asks the system for random bytes.
//
// A token's text is "pst_ID_SECRET": a marker by which people and scanners know it, a public name of 10 characters, and a
// secret of 40 letters and digits (238 bits). Kept is the SHA-256 of the secret, never the secret. A fast hash is right
// here: nobody can try 2^238 secrets, so there is nothing to slow down; a slow one would only slow down each request.
// Plain values, any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/error.hpp"
#include "config/time.hpp"

namespace penstock::scheduler {

enum class role : std::uint8_t { read = 1, ingest = 2, operate = 4, admin = 8 };

std::string_view token(role r);

// Roles as they were given; `operate` includes `read` and `ingest`, `admin` includes all.
struct role_set {
  std::uint8_t bits = 0;

  void add(role r) { bits = static_cast<std::uint8_t>(bits | static_cast<std::uint8_t>(r)); }
  bool allows(role needed) const;
  std::vector<std::string> names() const;  // read, ingest, operate, admin: those given, in this order
  bool operator==(const role_set&) const = default;
};

// errc::invalid names the word and what is known.
result<role_set> parse_roles(const std::vector<std::string>& words);

struct request_rate {
  double per_second = 0;  // > 0
  int burst = 1;          // at once, after a pause
  bool operator==(const request_rate&) const = default;
};

struct token_record {
  std::string id;             // the public part
  std::string name;           // for people
  std::string secret_sha256;  // hex
  role_set roles{};
  std::vector<std::string> pipelines{};  // empty: all, and what belongs to none
  timestamp created_at{};
  std::optional<timestamp> expires_at{}, revoked_at{};
  std::optional<timestamp> last_used_at{};  // to the minute
  std::optional<request_rate> rate{};       // absent: no limit
  bool operator==(const token_record&) const = default;
};

enum class token_state { active, expired, revoked };
std::string_view token(token_state s);
token_state state_of(const token_record& t, timestamp now);

// Since when it is good for nothing, now or later; nothing: it is good without end.
std::optional<timestamp> end_of(const token_record& t);

// So many that are good for nothing any more are kept, the last ones, so that the audit log's ids mean something.
inline constexpr std::size_t ended_tokens_kept = 1000;

// An admin of everything, now: who can make further tokens.
bool is_keeper(const token_record& t, timestamp now);
bool reaches(const token_record& t, std::string_view pipeline);

// What somebody shows who wants to be let in.
struct shown_token {
  std::string_view id, secret;
};
// Nothing: it has not the form of a token of ours.
std::optional<shown_token> parse_token(std::string_view text);
// In constant time.
bool is_secret_of(const token_record& t, std::string_view secret);
std::string sha256_hex(std::string_view text);

struct made_token {
  token_record record;
  std::string text;  // shown once
};
// Fills in id, secret and time of `wish`.
made_token make_token(token_record wish, timestamp now);

// Requests at a rate: full at first, refilled as time goes. Control thread.
class token_bucket {
 public:
  using clock = std::chrono::steady_clock;

  explicit token_bucket(request_rate rate) : rate_(rate), left_(rate.burst) {}
  // Nothing: there was one left, and it is taken. Else how long until there is one.
  std::optional<std::chrono::nanoseconds> take(clock::time_point now);

 private:
  request_rate rate_;
  double left_;
  clock::time_point filled_{};
};

}  // namespace penstock::scheduler
