#include "runtime/live_feed.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <spdlog/spdlog.h>

#include "runtime/random.hpp"
#include "runtime/ulid.hpp"

namespace penstock::runtime {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::seconds connect_timeout{30};
constexpr std::chrono::seconds healthy_after{30};  // a connection that lived so long was no failure
constexpr std::chrono::milliseconds most_pause = std::chrono::hours{1};  // that a server can ask for

}  // namespace

live_feed::live_feed(feed_settings settings, asio::any_io_executor executor, blocking_pool& pool)
    : settings_(std::move(settings)),
      executor_(executor),
      pool_(pool),
      arrived_(std::make_shared<wakeup>(executor)),
      go_on_(std::make_shared<wakeup>(executor)),
      first_pause_(settings_.first_pause) {}

void live_feed::start() {
  const auto self = shared_from_this();
  asio::co_spawn(executor_, run(self), [self](std::exception_ptr failure) {
    if (!failure) return;
    self->refused_ = "the feed ended inside";
    self->arrived_->notify();
    spdlog::error("{}: {}: the feed ended inside", self->settings_.label, self->settings_.shown);
  });
}

void live_feed::stop() {
  stopped_ = true;
  if (connection_) connection_->close();
  go_on_->notify();
  arrived_->notify();
}

// ---- the source's side ----

asio::awaitable<std::optional<batch>> live_feed::take(std::size_t most) {
  while (waiting_.empty()) {
    if (stopped_) co_return std::nullopt;
    if (!refused_.empty()) throw std::runtime_error(refused_);
    co_await arrived_->wait();
  }
  batch events;
  for (; !waiting_.empty() && events.size() < most; waiting_.pop_front()) {
    message& next = waiting_.front();
    waiting_bytes_ -= size_of(next);
    taken_id_ = next.feed_id;
    append(events, std::move(next));
  }
  go_on_->notify();
  co_return std::move(events);
}

void live_feed::append(batch& to, message&& m) const {
  event e;
  e.time = wall_now();
  e.id = to.keep(m.id.empty() ? make_ulid(e.time) : m.id);
  e.source = to.keep("/" + settings_.name);
  e.type = m.type.empty() ? std::string_view("event") : to.keep(m.type);
  e.datacontenttype = m.content_type.empty() ? std::string_view() : to.keep(m.content_type);
  e.data = to.keep(m.data);
  if (!m.fault.empty()) e.fault = to.keep(m.fault);
  to.events.push_back(e);
}

// ---- the connection's side ----

asio::awaitable<bool> live_feed::room() {
  while (!stopped_ && (waiting_.size() >= most_waiting || waiting_bytes_ >= most_waiting_bytes)) co_await go_on_->wait();
  co_return !stopped_;
}

void live_feed::came(message m) {
  failures_ = 0;
  if (std::exchange(told_, false)) spdlog::info("{}: {} is back", settings_.label, settings_.shown);
  waiting_bytes_ += size_of(m);
  waiting_.push_back(std::move(m));
  arrived_->notify();
}

std::size_t live_feed::size_of(const message& m) {
  return m.data.size() + m.type.size() + m.id.size() + m.feed_id.size() + m.fault.size();
}

std::string live_feed::too_long() const {
  return "the message is longer than " + format_size(static_cast<std::int64_t>(settings_.most_bytes)) + " (max_message)";
}

// Bounded before it is counted in nanoseconds: a server may ask for more than they can.
void live_feed::begin_with_pause(std::chrono::milliseconds pause) {
  first_pause_ = std::max<std::chrono::nanoseconds>(settings_.first_pause, std::min(pause, most_pause));
}

void live_feed::refuse(unsigned status) {
  const std::string said = "answered " + std::to_string(status);
  const bool temporary = status == 408 || status == 429 || status >= 500;
  if (!temporary) throw refused_for_good(said);
  throw std::runtime_error(said);
}

asio::awaitable<void> live_feed::run(std::shared_ptr<live_feed> self) {
  while (!self->stopped_ && self->refused_.empty()) {
    const std::string why = co_await self->attend_one();
    if (self->stopped_ || !self->refused_.empty()) break;
    const std::string trouble = fmt::format("{}: {}; connects again until it is back", self->settings_.shown, why);
    self->settings_.trouble->set(trouble);
    if (!std::exchange(self->told_, true)) spdlog::warn("{}: {}", self->settings_.label, trouble);
    co_await self->pause();
  }
  self->arrived_->notify();
}

// Why the connection ended.
asio::awaitable<std::string> live_feed::attend_one() {
  const clock::time_point began = clock::now();
  ++failures_;
  connection_ = std::make_shared<web_stream>(executor_, pool_);
  std::string why;
  try {
    co_await connection_->connect(settings_.url, connect_timeout);
    why = co_await attend(connection_);
  } catch (const refused_for_good& e) {
    refused_ = settings_.shown + ": " + e.what();
  } catch (const std::exception& e) {
    why = e.what();
  }
  connection_->close();
  connection_.reset();
  if (clock::now() - began >= healthy_after) failures_ = 0;
  co_return why;
}

asio::awaitable<void> live_feed::pause() {
  const std::chrono::nanoseconds longest = std::max(first_pause_, settings_.longest_pause);
  const double doubled = static_cast<double>(first_pause_.count()) * static_cast<double>(1 << std::clamp(failures_ - 1, 0, 20));
  const double chosen = std::min(doubled, static_cast<double>(longest.count())) * random_between(0.75, 1.25);  // not all clients at once
  const auto until = clock::now() + std::chrono::nanoseconds(static_cast<std::int64_t>(chosen));
  while (!stopped_ && clock::now() < until) co_await go_on_->wait_until(until);
  co_return;
}

}  // namespace penstock::runtime
