// All tokens: kept in memory to check requests against, written through to the store.
//
// Control thread; owned by the supervisor. A token counts once it is durable, and no longer from the moment of its
// revocation on. Checking costs a look-up and one SHA-256, and nothing at all while no token is asked for.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/error.hpp"
#include "scheduler/store.hpp"
#include "scheduler/token.hpp"

namespace penstock::scheduler {

// When requests are asked for a token. `automatic`: from the first token that was made in this data folder on, also when
// none of them is good for anything any more: the door never opens by itself.
enum class token_rule { automatic, always, never };

class token_book {
 public:
  static constexpr std::size_t most_tokens = 10'000;  // good ones
  static constexpr const char* mark_name = "tokens_needed";

  // Reads what is stored. `mark`: a file that says that there has been a token; made with the first one, so that the door
  // stays shut when the store is lost. Empty: none.
  token_book(store& state, token_rule rule, std::filesystem::path mark = {});

  bool asked() const { return rule_ == token_rule::always || (rule_ == token_rule::automatic && (!entries_.empty() || lost_)); }
  // There have been tokens, and the store knows none.
  bool lost() const { return lost_; }
  bool has_keeper(timestamp now) const;

  enum class verdict { good, unknown, expired, revoked, too_fast };
  struct answer {
    verdict what = verdict::unknown;
    std::shared_ptr<const token_record> token{};  // null: unknown
    std::chrono::nanoseconds wait{};              // too_fast: until there is room again
  };
  // Who shows the text; counts as a use, and against its rate, when it is good.
  answer check(std::string_view text, timestamp now, token_bucket::clock::time_point at);

  // conflict: there are too many; or a first token that is no unlimited admin, after which nobody could make another (not
  // asked of whom `without_keeper` says needs none). Durable when it returns.
  asio::awaitable<result<made_token>> create(token_record wish, bool without_keeper);
  // not_found; conflict: the last admin of everything, likewise. Once more is no error.
  asio::awaitable<result<void>> revoke(std::string id, bool without_keeper);
  std::vector<token_record> list() const;  // by age
  std::optional<token_record> find(const std::string& id) const;

 private:
  struct entry {
    std::shared_ptr<const token_record> record;
    std::optional<token_bucket> bucket;
    std::optional<timestamp> used;  // the latest, to the minute
  };

  void enter(token_record record);
  void leave_mark();
  void forget_ended(timestamp now);
  void used(const std::string& id, entry& by, timestamp now);
  token_record shown(const entry& e) const;

  store& store_;
  const token_rule rule_;
  const std::filesystem::path mark_;
  bool lost_ = false;
  std::unordered_map<std::string, entry> entries_;  // by id
};

}  // namespace penstock::scheduler
