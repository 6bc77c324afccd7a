#include "runtime/inputs.hpp"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "runtime/json.hpp"
#include "runtime/lua.hpp"

namespace penstock::runtime {

struct topic_claim::state {
  std::shared_ptr<topic> from;
  std::int64_t after = 0;  // constant, as is ...
  std::string where{};     // ... this
  std::mutex mutex;
  std::int64_t until = 0;                        // under mutex, as all below
  bool open = false;                             // may still be extended
  std::vector<std::weak_ptr<wakeup>> waiting{};  // of the sources that read this claim

  // `change` the claim, then wake its readers.
  template <class F>
  void update(F change) {
    std::vector<std::weak_ptr<wakeup>> readers;
    {
      const std::lock_guard lock(mutex);
      change();
      readers = waiting;
    }
    for (const std::weak_ptr<wakeup>& reader : readers) {
      if (const std::shared_ptr<wakeup> awake = reader.lock()) awake->notify();
    }
  }

  void attach(const std::shared_ptr<wakeup>& reader) {
    const std::lock_guard lock(mutex);
    std::erase_if(waiting, [](const std::weak_ptr<wakeup>& other) { return other.expired(); });
    waiting.push_back(reader);
  }

  std::pair<std::int64_t, bool> extent() {
    const std::lock_guard lock(mutex);
    return {until, open};
  }
};

namespace {

class empty_source final : public source {
 public:
  asio::awaitable<void> open(std::int64_t) override { co_return; }
  asio::awaitable<std::optional<batch>> read(std::size_t) override { co_return std::nullopt; }
  void stop_input() override {}
};

// The lines of one text, each an event; everything about an event follows from the text and the name, so that
// a second reading gives the same events.
class inline_source final : public source {
 public:
  inline_source(std::string ndjson, std::string name)
      : text_(std::make_shared<const buffer>(std::move(ndjson))), name_(std::move(name)) {}

  asio::awaitable<void> open(std::int64_t position) override {
    while (line_ < position && at_ < text_->text().size()) next_line();
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    if (stopped_) co_return std::nullopt;
    batch events;
    events.adopt(text_);
    const std::string_view name = events.keep(name_);
    const timestamp now = wall_now();
    while (events.size() < most && at_ < text_->text().size()) {
      const std::string_view line = next_line();
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      if (const std::string wrong = check_json(line); !wrong.empty()) {
        throw std::runtime_error("line " + std::to_string(line_) + " of the given events: " + wrong);
      }
      event e;
      e.id = events.keep(name_ + ":" + std::to_string(line_));
      e.source = name;
      e.type = "event";
      e.data = line;
      e.time = now;
      e.position = line_;
      events.events.push_back(e);
    }
    if (events.empty()) co_return std::nullopt;
    co_return std::move(events);
  }

  void stop_input() override { stopped_ = true; }

 private:
  std::string_view next_line() {
    const std::string_view rest = text_->text().substr(at_);
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    at_ += end + 1;
    ++line_;
    return rest.substr(0, end);
  }

  std::shared_ptr<const buffer> text_;
  std::string name_;
  std::size_t at_ = 0;
  std::int64_t line_ = 0;  // of the last line taken; lines count from 1
  bool stopped_ = false;
};

}  // namespace

// Reads the claim's range of the topic; while the claim is open it waits for more.
class topic_claim::reader final : public source {
 public:
  reader(std::shared_ptr<topic_claim::state> claim, const asio::any_io_executor& strand)
      : claim_(std::move(claim)), strand_(strand), changed_(std::make_shared<wakeup>(strand)) {
    if (!claim_->where.empty()) where_.emplace(claim_->where);
  }

  asio::awaitable<void> open(std::int64_t position) override {
    position_ = std::max(claim_->after, position);
    claim_->attach(changed_);
    co_return;
  }

  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    while (!stopped_) {
      const auto [until, open] = claim_->extent();
      if (position_ < until) {
        batch events = claim_->from->read(position_, most, until);
        // What is claimed is kept until the run has ended, and a claim ends with what it wants.
        if (events.empty() || events.events.front().position != position_ + 1) throw std::runtime_error("its input events are no longer kept in topic '" + claim_->from->name() + "'");
        position_ = events.events.back().position;
        if (where_) {
          std::erase_if(events.events, [this](const event& e) { return !matches(e); });
          // Through a long stretch of what is not wanted, others have their turn, and stop_input is heard.
          if (events.empty()) co_await asio::post(strand_, asio::use_awaitable);
        }
        if (!events.empty()) co_return std::move(events);
      } else if (open) {
        co_await changed_->wait();
      } else {
        break;
      }
    }
    co_return std::nullopt;
  }

  void stop_input() override {
    stopped_ = true;
    changed_->notify();
  }

 private:
  // What fails does not match; whoever made the claim has looked at these events, and has told.
  bool matches(const event& e) const {
    const lua_outcome<bool> is_true = where_->truth(e);
    return is_true.failure.empty() && is_true.value;
  }

  std::shared_ptr<topic_claim::state> claim_;
  const asio::any_io_executor strand_;
  std::shared_ptr<wakeup> changed_;
  std::optional<lua_expression> where_{};
  std::int64_t position_ = 0;  // read so far
  bool stopped_ = false;
};

topic_claim::topic_claim(std::shared_ptr<topic> from, std::int64_t after, std::int64_t until, bool open,
                         std::string where)
    : state_(std::make_shared<state>()) {
  state_->from = std::move(from);
  state_->after = after;
  state_->until = until;
  state_->open = open;
  state_->where = std::move(where);
}

topic_claim::~topic_claim() { close(); }

void topic_claim::extend(std::int64_t until) {
  state_->update([this, until] { state_->until = std::max(state_->until, until); });
}

void topic_claim::close() {
  state_->update([this] { state_->open = false; });
}

std::int64_t topic_claim::after() const { return state_->after; }

std::int64_t topic_claim::until() const { return state_->extent().first; }

std::unique_ptr<source> topic_claim::make_source(const asio::any_io_executor& strand) {
  return std::make_unique<reader>(state_, strand);
}

std::unique_ptr<source> make_inline_source(std::string ndjson, const std::string& source_name) {
  return std::make_unique<inline_source>(std::move(ndjson), source_name);
}

std::optional<std::string> first_payload(const std::string& ndjson) {
  std::string_view rest = ndjson;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      const buffer padded{std::string(line)};
      return check_json(padded.text()).empty() ? std::optional<std::string>(line) : std::nullopt;
    }
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  return std::nullopt;
}

std::unique_ptr<source> make_empty_source() { return std::make_unique<empty_source>(); }

}  // namespace penstock::runtime
