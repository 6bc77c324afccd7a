#include "runtime/line_input.hpp"

#include <utility>

#include "config/time.hpp"
#include "runtime/ulid.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t most_kept = 4096;  // bytes of a lost line

}  // namespace

void line_input::lose(std::string_view line, std::string reason) {
  lost_.push_back({std::string(line.substr(0, most_kept)), std::move(reason)});
}

void line_input::too_long(std::string_view line) {
  lose(line, "the line is longer than " + format_size(static_cast<std::int64_t>(rules_->max_line)) +
                 " (max_line); this is its beginning");
}

void line_input::add(std::string_view bytes) {
  if (skipping_) {
    const std::size_t newline = bytes.find('\n');
    if (newline == bytes.npos) return;
    skipping_ = false;
    bytes.remove_prefix(newline + 1);
  }
  const std::size_t last = bytes.rfind('\n');
  if (last == bytes.npos) {
    partial_ += bytes;
    return;
  }
  make_block(bytes.substr(0, last + 1));
  partial_ = bytes.substr(last + 1);
}

void line_input::finish() {
  if (!partial_.empty()) make_block({});
}

// Of what is left of the last block, the partial line and `bytes`.
void line_input::make_block(std::string_view bytes) {
  const std::string_view before = rest();
  const std::string begun = std::exchange(partial_, {});  // with its memory
  std::string text;
  text.reserve(before.size() + begun.size() + bytes.size() + padding);
  text += before;
  text += begun;
  text += bytes;
  block_ = std::make_shared<const buffer>(std::move(text));
  at_ = 0;
}

void line_input::break_off(const std::string& reason) {
  if (!partial_.empty()) lose(std::exchange(partial_, {}), reason);
}

void line_input::append_event(batch& events, std::string_view line, timestamp now) const {
  event& e = events.events.emplace_back();
  char* const id = events.allocate(ulid_size);
  make_ulid(now, id);
  e.id = {id, ulid_size};
  e.type = "event";
  e.time = now;
  e.data = line;
  if (!rules_->ndjson) e.datacontenttype = "text/plain";
}

// Lines of the block, without source and subject.
std::size_t line_input::cut_block(batch& events, std::size_t most) {
  std::size_t taken = 0;
  const timestamp now = wall_now();
  events.adopt(block_);
  while (block_ && taken < most) {
    const std::string_view text = rest();
    const std::size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    const std::string_view content = line.substr(0, line.size() - (line.ends_with('\r') ? 1 : 0));
    const bool fits = line.size() <= rules_->max_line;
    if (!fits) {
      too_long(line);
      ++taken;
    } else if (!content.empty() || !rules_->ndjson) {
      append_event(events, content, now);
      ++taken;
    }
    at_ += line.size() + (newline == text.npos ? 0 : 1);
    if (at_ < block_->text().size()) continue;
    block_.reset();
    at_ = 0;
  }
  return taken;
}

std::size_t line_input::cut(batch& events, std::size_t most, std::string_view sender) {
  const std::size_t first = events.size();
  std::size_t taken = block_ && most > 0 ? cut_block(events, most) : 0;
  if (taken < most && partial_.size() > rules_->max_line) {
    too_long(std::exchange(partial_, {}));
    skipping_ = true;
    ++taken;
  }
  if (events.size() == first) return taken;
  const std::string_view source = events.keep(rules_->source);
  const std::string_view subject = sender.empty() ? sender : events.keep(sender);
  for (std::size_t i = first; i < events.size(); ++i) {
    events.events[i].source = source;
    events.events[i].subject = subject;
  }
  return taken;
}

void append_lost(batch& events, const line_rules& rules, std::vector<lost_line> lost) {
  const timestamp now = wall_now();
  for (const lost_line& line : lost) {
    event& e = events.events.emplace_back();
    e.id = events.keep(make_ulid());
    e.source = events.keep(rules.source);
    e.type = "event";
    e.time = now;
    if (!rules.ndjson) e.datacontenttype = "text/plain";
    e.data = events.keep(line.begin);
    e.fault = events.keep(line.reason);
  }
}

}  // namespace penstock::runtime
