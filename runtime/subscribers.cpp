#include "runtime/subscribers.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "config/field.hpp"
#include "config/in_quotes.hpp"
#include "config/time.hpp"
#include "runtime/json.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t piece_bytes = 64 << 10;

std::shared_ptr<const std::string> text_of(const event& e) {
  std::string text;
  append_ndjson(text, e);
  text.pop_back();                                // the line end
  std::replace(text.begin(), text.end(), '\r', ' ');  // between tokens: strings hold none
  return std::make_shared<const std::string>(std::move(text));
}

}  // namespace

// What all holders of a stream share; gone, the stream is closed.
struct subscribers::holding {
  holding() = default;
  ~holding() { stream->close(); }
  holding(const holding&) = delete;
  holding& operator=(const holding&) = delete;

  const std::shared_ptr<live_stream> stream = std::make_shared<live_stream>();
};

// One holder's part.
struct subscribers::share {
  share(std::shared_ptr<holding> one, stream_limits its) : of(std::move(one)), wish(its) { of->stream->add_wish(wish); }
  ~share() { of->stream->drop_wish(wish); }
  share(const share&) = delete;
  share& operator=(const share&) = delete;

  const std::shared_ptr<holding> of;
  const stream_limits wish;
};

// ---- the door ----

std::shared_ptr<live_stream> subscribers::hold(const std::string& name, stream_limits limits) {
  const std::lock_guard lock(mutex_);
  std::erase_if(streams_, [](const auto& one) { return one.second.expired(); });
  std::weak_ptr<holding>& known = streams_[name];
  std::shared_ptr<holding> held = known.lock();
  if (!held) {
    held = std::make_shared<holding>();
    known = held;
  }
  const auto mine = std::make_shared<share>(std::move(held), limits);
  return {mine, mine->of->stream.get()};
}

result<std::shared_ptr<subscriber>> subscribers::subscribe(const std::string& name, std::string_view last_id,
                                                           asio::any_io_executor reader) {
  std::shared_ptr<holding> held;
  std::vector<std::string> names;
  {
    const std::lock_guard lock(mutex_);
    const auto found = streams_.find(name);
    if (found != streams_.end()) held = found->second.lock();
    for (const auto& [other, one] : streams_) {
      if (!one.expired()) names.push_back(other);
    }
  }
  if (!held) return error{errc::not_found, "no stream " + config::in_quotes(name) + "; " + config::suggestion(name, names)};
  return std::shared_ptr<subscriber>(new subscriber(held->stream, last_id, std::move(reader)));
}

std::vector<subscribers::listing> subscribers::list() {
  std::vector<listing> all;
  std::vector<std::shared_ptr<holding>> held;  // goes after the lock
  const std::lock_guard lock(mutex_);
  for (const auto& [name, one] : streams_) {
    held.push_back(one.lock());
    if (!held.back()) continue;
    live_stream& stream = *held.back()->stream;
    const std::lock_guard inner(stream.mutex_);
    all.push_back({name, static_cast<std::int64_t>(stream.readers_.size()), stream.last_});
  }
  return all;
}

// ---- one stream ----

live_stream::live_stream() : stamp_(fmt::format("{:x}", to_micros(wall_now()))) {}

void live_stream::add_wish(stream_limits wish) {
  const std::lock_guard lock(mutex_);
  wishes_.push_back(wish);
  choose_limits();
}

void live_stream::drop_wish(stream_limits wish) {
  const std::lock_guard lock(mutex_);
  wishes_.erase(std::find(wishes_.begin(), wishes_.end(), wish));
  choose_limits();
}

void live_stream::choose_limits() {
  limits_ = {1, 0};
  for (const stream_limits& one : wishes_) {
    limits_.events = std::max(limits_.events, one.events);
    limits_.bytes = std::max(limits_.bytes, one.bytes);
  }
}

void live_stream::publish(const batch& events) {
  std::vector<std::shared_ptr<const std::string>> texts;
  texts.reserve(events.size());
  for (const event& e : events.events) texts.push_back(text_of(e));
  const std::lock_guard lock(mutex_);
  for (auto& text : texts) {
    ++last_;
    ring_bytes_ += text->size();
    ring_.push_back(std::move(text));
    trim();
  }
  for (subscriber* one : readers_) one->woken_->notify();
}

// With the mutex. Beyond `events`, what some reader has not had yet stays as long as `bytes` allow.
void live_stream::trim() {
  const auto over = [this] {
    if (ring_bytes_ > limits_.bytes) return true;
    const auto waits_for_it = [this](const subscriber* one) { return one->next_ <= first(); };
    return ring_.size() > limits_.events && std::none_of(readers_.begin(), readers_.end(), waits_for_it);
  };
  while (ring_.size() > 1 && over()) {
    ring_bytes_ -= ring_.front()->size();
    ring_.pop_front();
  }
}

// From the oldest event kept when the last one seen is not known any more.
void live_stream::join(subscriber& one, std::string_view last_id) {
  const std::lock_guard lock(mutex_);
  readers_.push_back(&one);
  one.next_ = last_ + 1;
  if (last_id.empty()) return;
  std::int64_t seen = -1;
  if (last_id.starts_with(stamp_ + "-")) {
    const std::string_view number = last_id.substr(stamp_.size() + 1);
    const char* const end = number.data() + number.size();
    if (std::from_chars(number.data(), end, seen).ptr != end) seen = -1;
  }
  one.gap_ = seen < first() - 1 || seen > last_;
  one.next_ = one.gap_ ? first() : seen + 1;
}

void live_stream::leave(subscriber& one) {
  const std::lock_guard lock(mutex_);
  std::erase(readers_, &one);
}

bool live_stream::take(subscriber& one, stream_piece& out) {
  const std::lock_guard lock(mutex_);
  out.gap = std::exchange(one.gap_, false);
  if (one.closed_) {
    out.end = stream_piece::ending::closed;
  } else if (one.next_ < first()) {
    out.end = stream_piece::ending::overrun;
  } else {
    std::size_t bytes = 0;
    for (; one.next_ <= last_ && bytes < piece_bytes; ++one.next_) {
      const auto& text = ring_[static_cast<std::size_t>(one.next_ - first())];
      bytes += text->size();
      out.messages.push_back({one.next_, text});
    }
    trim();
    if (closed_ && one.next_ > last_) out.end = stream_piece::ending::closed;
  }
  return out.gap || !out.messages.empty() || out.end != stream_piece::ending::none;
}

void live_stream::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (subscriber* one : readers_) one->woken_->notify();
}

// ---- one subscriber ----

subscriber::subscriber(std::shared_ptr<live_stream> of, std::string_view last_id, asio::any_io_executor reader)
    : stream_(std::move(of)), woken_(std::make_shared<wakeup>(std::move(reader))) {
  stream_->join(*this, last_id);
}

subscriber::~subscriber() { stream_->leave(*this); }

asio::awaitable<stream_piece> subscriber::next(std::chrono::steady_clock::time_point deadline) {
  stream_piece piece;
  bool in_time = true;
  while (in_time && !stream_->take(*this, piece)) in_time = co_await woken_->wait_until(deadline);
  co_return piece;
}

void subscriber::close() {
  {
    const std::lock_guard lock(stream_->mutex_);
    closed_ = true;
  }
  woken_->notify();
}

std::string subscriber::id_of(std::int64_t number) const { return stream_->stamp_ + "-" + std::to_string(number); }

}  // namespace penstock::runtime
