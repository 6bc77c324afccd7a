#include "scheduler/token_book.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <utility>
#include <vector>

#include "config/in_quotes.hpp"

namespace penstock::scheduler {

namespace {

constexpr std::chrono::minutes use_resolution{1};  // so that a use costs no commit, but for one a minute

}  // namespace

token_book::token_book(store& state, token_rule rule, std::filesystem::path mark) : store_(state), rule_(rule), mark_(std::move(mark)) {
  for (token_record& t : store_.tokens()) enter(std::move(t));
  std::error_code unknown;
  lost_ = entries_.empty() && !mark_.empty() && std::filesystem::exists(mark_, unknown);
  leave_mark();
}

void token_book::leave_mark() {
  std::error_code unknown;
  if (entries_.empty() || mark_.empty() || std::filesystem::exists(mark_, unknown)) return;
  std::ofstream out(mark_);
  out << "Requests need a token here, also when state.db is lost. Without this file and that database they would not.\n";
  out.close();
  if (!out) spdlog::warn("{} cannot be written: should state.db be lost, nobody would be asked for a token", mark_.string());
}

// As the store does with each new one.
void token_book::forget_ended(timestamp now) {
  std::vector<std::pair<timestamp, std::string>> ended;
  for (const auto& [id, e] : entries_) {
    if (const auto end = end_of(*e.record); end && *end <= now) ended.emplace_back(*end, id);
  }
  if (ended.size() <= ended_tokens_kept) return;
  std::sort(ended.begin(), ended.end(), std::greater<>());
  for (auto one = ended.begin() + ended_tokens_kept; one != ended.end(); ++one) entries_.erase(one->second);
}

void token_book::enter(token_record record) {
  entry e;
  if (record.rate) e.bucket.emplace(*record.rate);
  e.used = record.last_used_at;
  std::string id = record.id;
  e.record = std::make_shared<const token_record>(std::move(record));
  entries_.insert_or_assign(std::move(id), std::move(e));
}

bool token_book::has_keeper(timestamp now) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& one) { return is_keeper(*one.second.record, now); });
}

token_book::answer token_book::check(std::string_view text, timestamp now, token_bucket::clock::time_point at) {
  const auto shown = parse_token(text);
  if (!shown) return {};
  const auto found = entries_.find(std::string(shown->id));
  if (found == entries_.end() || !is_secret_of(*found->second.record, shown->secret)) return {};
  entry& e = found->second;
  const token_state state = state_of(*e.record, now);
  if (state == token_state::revoked) return {verdict::revoked, e.record, {}};
  if (state == token_state::expired) return {verdict::expired, e.record, {}};
  used(found->first, e, now);
  if (e.bucket) {
    if (const auto wait = e.bucket->take(at)) return {verdict::too_fast, e.record, *wait};
  }
  return {verdict::good, e.record, {}};
}

void token_book::used(const std::string& id, entry& by, timestamp now) {
  const timestamp minute = std::chrono::floor<std::chrono::minutes>(now);
  if (by.used && *by.used + use_resolution > minute) return;
  by.used = minute;
  store_.note_token_use(id, minute);
}

asio::awaitable<result<made_token>> token_book::create(token_record wish, bool without_keeper) {
  const timestamp now = wall_now();
  const auto kept = std::count_if(entries_.begin(), entries_.end(),
                                  [now](const auto& one) { return state_of(*one.second.record, now) == token_state::active; });
  if (static_cast<std::size_t>(kept) >= most_tokens) {
    co_return error{errc::conflict, "there are " + std::to_string(kept) + " tokens already; revoke some first"};
  }
  if (!without_keeper && !has_keeper(now) && !is_keeper(wish, now)) {
    co_return error{errc::conflict,
                    "the first token must have role admin, for all pipelines: from then on every request needs a token, and "
                    "without such a one nobody could make another"};
  }
  made_token made = make_token(wish, now);
  while (entries_.contains(made.record.id)) made = make_token(wish, now);
  co_await store_.add_token(made.record);
  enter(made.record);
  leave_mark();
  forget_ended(made.record.created_at);
  co_return made;
}

asio::awaitable<result<void>> token_book::revoke(std::string id, bool without_keeper) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) co_return error{errc::not_found, "no token " + config::in_quotes(id)};
  const auto before = found->second.record;
  if (before->revoked_at) co_return result<void>{};
  const timestamp now = wall_now();
  auto after = std::make_shared<token_record>(*before);
  after->revoked_at = now;
  found->second.record = after;
  const bool was_last = is_keeper(*before, now) && !has_keeper(now);
  if (was_last && !without_keeper) {
    found->second.record = before;
    co_return error{errc::conflict,
                    "this is the last admin token, and without one nobody could make another: make that first, or stop the "
                    "daemon and use 'penstock token revoke --data DIR'"};
  }
  std::exception_ptr failure;
  try {
    co_await store_.revoke_token(id, now);
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    if (const auto still = entries_.find(id); still != entries_.end()) still->second.record = before;
    std::rethrow_exception(failure);
  }
  co_return result<void>{};
}

token_record token_book::shown(const entry& e) const {
  token_record t = *e.record;
  t.last_used_at = e.used;
  return t;
}

std::vector<token_record> token_book::list() const {
  std::vector<token_record> all;
  for (const auto& [id, e] : entries_) all.push_back(shown(e));
  std::sort(all.begin(), all.end(), [](const token_record& a, const token_record& b) {
    return std::tie(a.created_at, a.id) < std::tie(b.created_at, b.id);
  });
  return all;
}

std::optional<token_record> token_book::find(const std::string& id) const {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return std::nullopt;
  return shown(found->second);
}

}  // namespace penstock::scheduler
