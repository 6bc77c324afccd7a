#include "scheduler/audit_desk.hpp"

#include <spdlog/spdlog.h>

#include <utility>

#include "runtime/ulid.hpp"

namespace penstock::scheduler {

namespace {

constexpr std::size_t longest_text = 500;  // bytes

// A client chooses the target's length; and a text of many languages must not be cut within a letter.
void cut(std::string& text) {
  if (text.size() <= longest_text) return;
  std::size_t end = longest_text;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  text.resize(end);
  text += "...";
}

void complete(audit_record& entry) {
  if (entry.at == timestamp{}) entry.at = wall_now();
  if (entry.id.empty()) entry.id = runtime::make_ulid(entry.at);
  for (std::string* text : {&entry.target, &entry.pipeline, &entry.detail, &entry.request}) cut(*text);
}

}  // namespace

asio::awaitable<void> audit_desk::add(audit_record entry) {
  complete(entry);
  write();
  try {
    co_await store_.add_audit(std::move(entry), keep_);
  } catch (const std::exception& e) {
    spdlog::error("the audit log cannot be written: {}", e.what());
  }
}

void audit_desk::note(audit_record entry) {
  complete(entry);
  gathered_.push_back(std::move(entry));
  if (stopped_) return write();
  if (gathered_.size() > 1) return;
  timer_.expires_after(gathering);
  timer_.async_wait([this](boost::system::error_code cancelled) {
    if (!cancelled) write();
  });
}

void audit_desk::write() {
  if (!gathered_.empty()) store_.note_audit(std::exchange(gathered_, {}), keep_);
}

void audit_desk::stop() {
  stopped_ = true;
  timer_.cancel();
  write();
}

void audit_desk::note_some(audit_record entry, token_bucket::clock::time_point now) {
  flood_gate& gate = entry.outcome == "refused" ? refusals_ : failures_;
  if (gate.room.take(now)) {
    ++gate.left_out;
    return;
  }
  if (gate.left_out > 0)
    entry.detail += fmt::format("{}(and {} {} before that are not listed)", entry.detail.empty() ? "" : " ",
                                std::exchange(gate.left_out, 0), entry.outcome);
  note(std::move(entry));
}

}  // namespace penstock::scheduler
