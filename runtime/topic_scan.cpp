#include "runtime/topic_scan.hpp"

#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "runtime/lua.hpp"
#include "runtime/run_expression.hpp"

namespace penstock::runtime {

namespace {

// Events looked at before others have their turn.
constexpr std::size_t scan_slice = 1000;

// One call of scan_topic, on its worker.
class topic_scan {
 public:
  topic_scan(std::shared_ptr<topic> events, scan_state from, std::int64_t last, scan_rule rule)
      : topic_(std::move(events)), seen_(std::move(from)), last_(last), most_(rule.most) {
    if (!rule.where.empty()) where_.emplace(std::move(rule.where));
    if (!rule.key.empty()) key_.emplace(std::move(rule.key));
    // The limit may have changed since the last look.
    if (most_ <= 0 || seen_.matching < most_)
      seen_.full_at = 0;
    else if (seen_.full_at == 0)
      seen_.full_at = seen_.until;
  }

  // False: there is nothing more to look at.
  bool look_at_slice() {
    if (ended() || seen_.until >= last_) return false;
    const batch events = topic_->read(seen_.until, scan_slice, last_);
    if (events.empty()) return false;
    for (const event& e : events.events) {
      if (matches(e) && !take(e)) break;
      seen_.until = e.position;
      if (ended()) break;
    }
    return !ended() && seen_.until < last_;
  }

  scan_state finish() {
    if (first_match_ != 0 && !seen_.oldest) seen_.oldest = topic_->received_at(first_match_);
    if (last_match_ != 0) {
      if (const auto newest = topic_->received_at(last_match_)) seen_.newest = newest;
    }
    return std::move(seen_);
  }

 private:
  bool ended() const { return seen_.full_at != 0 || seen_.closed; }

  bool matches(const event& e) {
    if (!where_) return true;
    const lua_outcome<bool> is_true = where_->truth(e);
    note(is_true.failure, "where", e);
    return is_true.failure.empty() && is_true.value;
  }

  // False: it belongs to another run.
  bool take(const event& e) {
    if (key_) {
      lua_outcome<std::string> key = key_->text(e);
      note(key.failure, "key", e);
      if (!key.failure.empty()) key.value.clear();
      if (seen_.keyed && key.value != seen_.key) {
        seen_.closed = true;
        return false;
      }
      seen_.key = std::move(key.value);
      seen_.keyed = true;
    }
    if (first_match_ == 0) first_match_ = e.position;
    last_match_ = e.position;
    if (++seen_.matching == most_) seen_.full_at = e.position;
    return true;
  }

  void note(const std::string& failure, const char* what, const event& e) {
    if (failure.empty()) return;
    if (seen_.failures++ == 0)
      spdlog::warn("topic {}: {} fails for the event at offset {}: {}", topic_->name(), what, e.position, failure);
  }

  const std::shared_ptr<topic> topic_;
  scan_state seen_;
  const std::int64_t last_, most_;
  std::optional<lua_expression> where_;
  std::optional<run_expression> key_;
  std::int64_t first_match_ = 0, last_match_ = 0;  // offsets, in this call
};

asio::awaitable<scan_state> scan(std::shared_ptr<topic> events, scan_state from, std::int64_t last, scan_rule rule,
                                 asio::any_io_executor worker) {
  topic_scan work(std::move(events), std::move(from), last, std::move(rule));
  while (work.look_at_slice()) co_await asio::post(worker, asio::use_awaitable);
  co_return work.finish();
}

}  // namespace

asio::awaitable<scan_state> scan_topic(std::shared_ptr<topic> from_topic, scan_state from, std::int64_t last,
                                       scan_rule rule, asio::any_io_executor worker) {
  auto work = scan(std::move(from_topic), std::move(from), last, std::move(rule), worker);
  co_return co_await asio::co_spawn(worker, std::move(work), asio::use_awaitable);
}

}  // namespace penstock::runtime
