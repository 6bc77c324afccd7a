#include "api/change_stream.hpp"

#include <charconv>
#include <chrono>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/json.hpp"
#include "api/sign_of_life.hpp"
#include "runtime/ulid.hpp"

namespace penstock::api {

namespace {

constexpr std::size_t most_at_once = 500;

struct change_id {
  std::string_view life;
  std::int64_t number = 0;
};

std::optional<change_id> parse_change_id(std::string_view id) {
  const auto dash = id.find('-');
  if (dash != runtime::ulid_size) return std::nullopt;
  change_id found{id.substr(0, dash)};
  const std::string_view digits = id.substr(dash + 1);
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), found.number);
  if (failure != std::errc() || end != digits.data() + digits.size() || found.number < 0) return std::nullopt;
  return found;
}

void append(std::string& out, const scheduler::change& one, const std::string& life) {
  json document{{"at", format_time(one.at)}, {"kind", one.kind}, {"pipeline", one.pipeline}};
  if (one.kind == "run") document["job"] = one.name;
  if (one.kind == "flow") document["flow"] = one.name;
  if (!one.run.empty()) document["run"] = one.run;
  document["state"] = one.state;
  document["reason"] = one.reason.empty() ? json(nullptr) : json(one.reason);
  out.append("id: ").append(life).append("-").append(std::to_string(one.number));
  out.append("\nevent: ").append(one.kind).append("\ndata: ").append(to_text(document)).append("\n\n");
}

}  // namespace

bool is_change_id(std::string_view text) { return parse_change_id(text).has_value(); }

change_stream::change_stream(context& c, const options& wanted, interruption& end)
    : context_(c), options_(wanted), end_(end), wake_(std::make_shared<runtime::wakeup>(c.control)) {
  auto& log = c.supervisor.changes();
  seen_ = log.last();
  preface_ = ": from " + log.life() + "-" + std::to_string(seen_) + " on\n\n";
  if (const auto asked = parse_change_id(options_.after)) {
    const bool kept = asked->life == log.life() && asked->number + 1 >= log.first() && asked->number <= log.last();
    seen_ = kept ? asked->number : log.first() - 1;
    if (!kept) preface_ = "event: gap\ndata: {\"reason\":\"changes after " + options_.after + " are no longer kept\"}\n\n";
  }
  log.follow(wake_);
  end_.listen([wake = wake_] { wake->notify(); });
}

bool change_stream::wanted(const scheduler::change& one) const {
  if (options_.reader && !scheduler::reaches(*options_.reader, one.pipeline)) return false;
  return (options_.pipeline.empty() || one.pipeline == options_.pipeline) && (options_.kind.empty() || one.kind == options_.kind);
}

std::string change_stream::take() {
  std::string text = std::exchange(preface_, {});
  const auto& log = context_.supervisor.changes();
  for (const auto& one : log.after(seen_, most_at_once)) {
    if (one.number > seen_ + 1) text += "event: gap\ndata: {\"reason\":\"this client is too slow\"}\n\n";
    seen_ = one.number;
    if (wanted(one)) append(text, one, log.life());
  }
  return text;
}

asio::awaitable<std::string> change_stream::next() {
  const auto deadline = std::chrono::steady_clock::now() + longest_silence;
  while (!ended_) {
    std::string text = take();
    if (end_.raised()) {
      ended_ = true;
      text += "event: end\ndata: {\"reason\":\"the daemon stops\"}\n\n";
    }
    if (!text.empty()) co_return text;
    if (seen_ < context_.supervisor.changes().last()) continue;  // all of those were for others
    if (!co_await wake_->wait_until(deadline)) co_return ": still here\n\n";
  }
  co_return std::string();
}

}  // namespace penstock::api
