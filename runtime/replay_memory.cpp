#include "runtime/replay_memory.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace penstock::runtime {

replay_memory::claim::~claim() {
  if (keys_.empty()) return;
  const std::lock_guard lock(memory_->mutex_);
  memory_->forget(keys_);
  --memory_->on_their_way_;
}

void replay_memory::claim::keep(timestamp until) {
  const std::lock_guard lock(memory_->mutex_);
  memory_->by_age_.push({until, keys_});
  for (const replay_key& key : keys_) memory_->known_[key] = state::accepted;
  keys_.clear();
  --memory_->on_their_way_;
}

result<std::unique_ptr<replay_memory::claim>> replay_memory::begin(const std::vector<replay_key>& keys, timestamp now,
                                                                   std::size_t limit) {
  const std::lock_guard lock(mutex_);
  forget_old(now);
  bool on_its_way = false;
  for (const replay_key& key : keys) {
    const auto found = known_.find(key);
    if (found == known_.end()) continue;
    if (found->second == state::accepted) return std::unique_ptr<claim>();
    on_its_way = true;
  }
  if (on_its_way) {
    return error{errc::unavailable, "the same delivery is being taken right now; its own answer is still to come", {}, 1};
  }
  if (by_age_.size() + on_their_way_ >= limit) {
    const auto wait = by_age_.empty() ? std::chrono::microseconds{0} : by_age_.top().until - now;
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(wait).count();
    return error{errc::overloaded,
                 "as many deliveries as may be (replay_limit: " + std::to_string(limit) + ") are remembered already",
                 {},
                 static_cast<int>(std::clamp<std::int64_t>(seconds, 1, 3600))};
  }
  auto taken = std::make_unique<claim>(shared_from_this(), keys);
  for (const replay_key& key : keys) known_.emplace(key, state::on_its_way);
  ++on_their_way_;
  return taken;
}

std::size_t replay_memory::size(timestamp now) {
  const std::lock_guard lock(mutex_);
  forget_old(now);
  return by_age_.size();
}

std::size_t replay_memory::key_hash::operator()(const replay_key& key) const {
  std::size_t out = 0;  // a digest is as good as any hash of it
  std::memcpy(&out, key.data(), sizeof out);
  return out;
}

void replay_memory::forget_old(timestamp now) {
  while (!by_age_.empty() && by_age_.top().until < now) {
    forget(by_age_.top().keys);
    by_age_.pop();
  }
}

void replay_memory::forget(const std::vector<replay_key>& keys) {
  for (const replay_key& key : keys) known_.erase(key);
}

}  // namespace penstock::runtime
