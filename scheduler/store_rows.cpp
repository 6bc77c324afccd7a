// See store_rows.hpp.
#include "scheduler/store_rows.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>

namespace penstock::scheduler::rows {
namespace {

[[noreturn]] void damaged(std::string_view what, std::string_view found) {
  throw std::runtime_error("the state database holds an unknown " + std::string(what) + ": " +
                           std::string(found));
}

constexpr std::array<std::string_view, 3> input_kinds{"none", "topic",
                                                      "inline_events"};  // as run_input::kind

run_input::kind input_kind_from(std::string_view found) {
  const auto at = std::find(input_kinds.begin(), input_kinds.end(), found);
  if (at == input_kinds.end()) damaged("kind of input", found);
  return static_cast<run_input::kind>(at - input_kinds.begin());
}

}  // namespace

std::optional<timestamp> time_or_null(const sqlite::statement& s, int column) {
  if (s.is_null(column)) return std::nullopt;
  return time(s, column);
}

run_state state_from(const sqlite::statement& s, int column) {
  const auto state = parse_run_state(s.text(column));
  if (!state) damaged("state", s.text(column));
  return *state;
}

std::string_view token(run_input::kind k) { return input_kinds.at(static_cast<std::size_t>(k)); }

const std::string run_columns =
    "id, pipeline, job, revision, state, trigger_kind, waiting_reason, reason, attempt, interruptions, "
    "scheduled_for,"
    " upstream_run, input_kind, input_topic, input_after, input_until, input_open, input_events, params, "
    "created_at,"
    " started_at, ended_at, retry_at, priority, overlap_key, deadline_at, retry_of, input_where, trace";

std::string select_runs(std::string_view rest) {
  return "SELECT " + run_columns + " FROM runs " + std::string(rest);
}

run_record run_from(const sqlite::statement& s) {
  run_record r;
  r.id = text(s, 0);
  r.pipeline = text(s, 1);
  r.job = text(s, 2);
  r.revision = s.integer(3);
  r.state = state_from(s, 4);
  const auto trigger = parse_trigger_kind(s.text(5));
  if (!trigger) damaged("trigger", s.text(5));
  r.trigger = *trigger;
  r.waiting_reason = text(s, 6);
  r.reason = text(s, 7);
  r.attempt = static_cast<int>(s.integer(8));
  r.interruptions = static_cast<int>(s.integer(9));
  r.scheduled_for = time_or_null(s, 10);
  r.upstream_run = text(s, 11);
  r.input.type = input_kind_from(s.text(12));
  r.input.topic = text(s, 13);
  r.input.after = s.integer(14);
  r.input.until = s.integer(15);
  r.input.open = s.integer(16) != 0;
  r.input.events = s.integer(17);
  r.params = text(s, 18);
  r.created_at = time(s, 19);
  r.started_at = time_or_null(s, 20);
  r.ended_at = time_or_null(s, 21);
  r.retry_at = time_or_null(s, 22);
  r.priority = static_cast<int>(s.integer(23));
  r.overlap_key = text(s, 24);
  r.deadline_at = time_or_null(s, 25);
  r.retry_of = text(s, 26);
  r.input.where = text(s, 27);
  const std::string_view trace = s.text(28);
  const std::size_t space = std::min(trace.find(' '), trace.size());
  r.trace.traceparent = trace.substr(0, space);
  if (space < trace.size()) r.trace.tracestate = trace.substr(space + 1);
  return r;
}

task_record task_from(const sqlite::statement& s) {
  task_record t;
  t.name = text(s, 0);
  t.state = state_from(s, 1);
  t.attempt = static_cast<int>(s.integer(2));
  if (!s.is_null(3)) t.exit_code = static_cast<int>(s.integer(3));
  t.reason = text(s, 4);
  t.started_at = time_or_null(s, 5);
  t.ended_at = time_or_null(s, 6);
  t.output = text(s, 7);
  t.item = text(s, 8);
  return t;
}

alert_record alert_from(const sqlite::statement& s) {
  return {.id = text(s, 0),
          .pipeline = text(s, 1),
          .job = text(s, 2),
          .run = text(s, 3),
          .revision = s.integer(4),
          .index = static_cast<int>(s.integer(5)),
          .kind = text(s, 6),
          .payload = text(s, 7),
          .created_at = time(s, 8),
          .attempts = static_cast<int>(s.integer(9)),
          .failure = text(s, 10)};
}

file_claim claim_from(const sqlite::statement& s) {
  return {.pipeline = text(s, 0),
          .job = text(s, 1),
          .trigger = text(s, 2),
          .path = text(s, 3),
          .stamp = text(s, 4),
          .run = text(s, 5)};
}

result<store::created> answer_from(const sqlite::statement& s, const idempotency& once) {
  if (s.text(1) == once.fingerprint) return store::created{text(s, 0), true};
  return error{errc::invalid, "the idempotency key '" + once.key + "' was used for another request, which made run " + text(s, 0) +
                                  "; a new request needs a new key"};
}

std::string id_prefix(timestamp t) {
  constexpr std::string_view alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  constexpr std::size_t digits = 10;
  const auto since_1970 = std::chrono::floor<std::chrono::milliseconds>(t.time_since_epoch()).count();
  auto ms = static_cast<std::uint64_t>(std::clamp<std::int64_t>(since_1970, 0, 0xffff'ffff'ffff));
  std::string prefix(digits, '0');
  for (std::size_t i = digits; i-- > 0; ms >>= 5) prefix[i] = alphabet[ms & 31];
  return prefix;
}

}  // namespace penstock::scheduler::rows
