#include "runtime/tap.hpp"

#include <algorithm>
#include <utility>

#include "config/time.hpp"
#include "runtime/json.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t most_data_bytes = 64 * 1024;
constexpr std::chrono::milliseconds longest_looking{10};  // a second: what `where` may cost the flow

void append_text(std::string& out, std::string_view text) {
  if (!append_utf8_json_string(out, text)) out += "\"(not UTF-8)\"";
}

std::string sample_of(std::string_view after, const event& e) {
  std::string out = "{\"after\":";
  append_text(out, after);
  const auto add = [&out](const char* name, std::string_view text) {
    if (text.empty()) return;
    out += ",\"";
    out += name;
    out += "\":";
    append_text(out, text);
  };
  add("id", e.id);
  add("source", e.source);
  add("type", e.type);
  add("subject", e.subject);
  add("key", e.key);
  add("time", format_time(e.time));
  if (e.position > 0) out += ",\"position\":" + std::to_string(e.position);
  out += ",\"data\":";
  const bool whole = e.data.size() <= most_data_bytes;
  if (whole && e.is_json() && check_json(e.data).empty()) {
    for (const char c : e.data) out += c == '\n' || c == '\r' ? ' ' : c;  // between tokens: strings hold none
  } else {
    append_text(out, e.data.substr(0, most_data_bytes));
  }
  out += whole ? "}" : ",\"cut\":true}";
  return out;
}

}  // namespace

tap::tap(tap_options options, asio::any_io_executor reader)
    : options_(std::move(options)),
      where_(options_.where.empty() ? std::nullopt : std::optional<lua_expression>(std::in_place, options_.where)),
      filled_(std::make_shared<wakeup>(std::move(reader))) {}

asio::awaitable<std::vector<std::string>> tap::next(std::chrono::steady_clock::time_point deadline) {
  std::vector<std::string> samples;
  for (bool in_time = true; in_time;) {
    {
      const std::lock_guard lock(mutex_);
      samples.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(waiting_.end()));
      waiting_.clear();
      waiting_bytes_ = 0;
    }
    if (!samples.empty() || closed_) break;
    in_time = co_await filled_->wait_until(deadline);
  }
  co_return samples;
}

void tap::close() {
  closed_ = true;
  filled_->notify();
}

void tap::offer(const batch& events) {
  const std::lock_guard sampling(sampling_);
  const auto now = std::chrono::steady_clock::now();
  if (now - second_ >= std::chrono::seconds(1)) {
    second_ = now;
    in_second_ = 0;
    looking_ = {};
  }
  std::int64_t lost = 0;
  std::vector<std::string> samples;
  for (const event& e : events.events) {
    if (in_second_ >= options_.rate || looking_ >= longest_looking) {
      ++lost;
      continue;
    }
    if (where_) {
      const auto began = std::chrono::steady_clock::now();
      const auto matches = where_->truth(e);
      looking_ += std::chrono::steady_clock::now() - began;
      if (!matches.failure.empty() || !matches.value) continue;
    }
    ++in_second_;
    samples.push_back(sample_of(options_.after, e));
  }
  if (!samples.empty()) {
    const std::lock_guard lock(mutex_);
    for (auto& sample : samples) {
      if (waiting_.size() < most_waiting && waiting_bytes_ + sample.size() <= most_bytes) {
        waiting_bytes_ += sample.size();
        waiting_.push_back(std::move(sample));
      } else {
        ++lost;
      }
    }
  }
  if (lost > 0) lost_.fetch_add(lost, std::memory_order_relaxed);
  if (!samples.empty()) filled_->notify();
}

std::shared_ptr<tap> flow_taps::listen(tap_options options, asio::any_io_executor reader) {
  const auto made = std::make_shared<tap>(std::move(options), std::move(reader));
  const std::lock_guard lock(mutex_);
  if (closed_) {
    made->close();
    return made;
  }
  std::erase_if(taps_, [](const std::weak_ptr<tap>& one) { return one.expired(); });
  taps_.push_back(made);
  listeners_ = static_cast<int>(taps_.size());
  return made;
}

void flow_taps::offer(std::string_view after, const batch& events) {
  if (events.empty()) return;
  std::vector<std::shared_ptr<tap>> here;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(taps_, [](const std::weak_ptr<tap>& one) { return one.expired(); });
    listeners_ = static_cast<int>(taps_.size());
    for (const auto& one : taps_) {
      if (auto held = one.lock(); held && held->options_.after == after) here.push_back(std::move(held));
    }
  }
  for (const auto& one : here) one->offer(events);
}

void flow_taps::close() {
  std::vector<std::weak_ptr<tap>> all;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    all = std::exchange(taps_, {});
    listeners_ = 0;
  }
  for (const auto& one : all) {
    if (const auto held = one.lock()) held->close();
  }
}

}  // namespace penstock::runtime
