// See store_timeline.hpp.
#include "scheduler/store_timeline.hpp"

#include <charconv>
#include <cstdint>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <system_error>

namespace penstock::scheduler::rows {
namespace {

constexpr std::string_view special("\\\t\n\0", 4);
constexpr std::string_view written("\\tn0");  // behind a backslash, in the same order

// At most detail_limit bytes, never a part of a UTF-8 character.
std::string_view within_limit(std::string_view detail) {
  if (detail.size() <= detail_limit) return detail;
  std::size_t end = detail_limit;
  while (end > 0 && (static_cast<unsigned char>(detail[end]) & 0xc0) == 0x80) --end;
  return detail.substr(0, end);
}

std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool pair = text[i] == '\\' && i + 1 < text.size();
    const auto which = pair ? written.find(text[i + 1]) : std::string_view::npos;
    plain += which == std::string_view::npos ? text[i] : special[which];
    if (which != std::string_view::npos) ++i;
  }
  return plain;
}

std::optional<timeline_entry> entry_from(std::string_view line) {
  const auto what = line.find('\t');
  const auto detail = what == std::string_view::npos ? what : line.find('\t', what + 1);
  if (detail == std::string_view::npos) return std::nullopt;
  std::int64_t micros = 0;
  const auto [end, failure] = std::from_chars(line.data(), line.data() + what, micros);
  if (failure != std::errc{} || end != line.data() + what) return std::nullopt;
  return timeline_entry{from_micros(micros), std::string(line.substr(what + 1, detail - what - 1)),
                        unescape(line.substr(detail + 1))};
}

std::string counted(std::int64_t n, std::string_view thing) {
  return std::to_string(n) + " " + std::string(thing) + (n == 1 ? "" : "s");
}

std::string maker(const new_run& made) {
  const run_record& r = made.run;
  const std::string by = "made by " + std::string(token(r.trigger)) + " trigger";
  switch (r.trigger) {
    case trigger_kind::topic:
      return by + ", " + counted(r.input.events, "event") + " of " + r.input.topic;
    case trigger_kind::cron:
    case trigger_kind::every:
    case trigger_kind::at:
      return r.scheduled_for ? by + " for " + format_time(*r.scheduled_for) : by;
    case trigger_kind::after:
      return r.upstream_run.empty() ? by : by + ", at the end of run " + r.upstream_run;
    case trigger_kind::file:
      return by + ", " + counted(std::ssize(made.files), "file");
    case trigger_kind::webhook:
      return by + ", " + counted(r.input.events, "event");
    case trigger_kind::backfill:
      return "made by a backfill" + (r.scheduled_for ? " for " + format_time(*r.scheduled_for) : "");
    case trigger_kind::rest:
      break;
  }
  if (!r.retry_of.empty()) return "made by a request to repeat run " + r.retry_of;
  return r.input.events > 0 ? "made by a request, " + counted(r.input.events, "event") : "made by a request";
}

}  // namespace

std::string timeline_line(const timeline_entry& entry) {
  const std::string_view detail = within_limit(entry.detail);
  std::string line = std::to_string(to_micros(entry.at)) + '\t' + entry.what + '\t';
  for (const char c : detail) {
    const auto which = special.find(c);
    if (which == std::string_view::npos) {
      line += c;
    } else {
      line += '\\';
      line += written[which];
    }
  }
  if (detail.size() < entry.detail.size()) line += "…";
  return line += '\n';
}

std::vector<timeline_entry> timeline_from(std::string_view text) {
  std::vector<timeline_entry> entries;
  while (!text.empty()) {
    const auto end = text.find('\n');
    auto entry = end == std::string_view::npos ? std::nullopt : entry_from(text.substr(0, end));
    if (!entry) throw std::runtime_error("the state database holds a damaged timeline: " + std::string(text));
    entries.push_back(*std::move(entry));
    text.remove_prefix(end + 1);
  }
  return entries;
}

// The length of a text would count its characters; as a blob it is known without looking.
std::string grown_timeline(int number) {
  return "timeline || iif(length(CAST(timeline AS BLOB)) < " + std::to_string(timeline_limit) + ", ?" +
         std::to_string(number) + ", '')";
}

timeline_entry made_entry(const new_run& made) {
  const run_record& r = made.run;
  std::string detail = maker(made);
  if (r.attempt > 0) detail += "; attempt " + std::to_string(r.attempt);
  if (!r.waiting_reason.empty()) detail += "; waits: " + r.waiting_reason;
  if (!r.reason.empty()) detail += "; " + r.reason;
  return {r.created_at, std::string(token(r.state)), std::move(detail)};
}

}  // namespace penstock::scheduler::rows
