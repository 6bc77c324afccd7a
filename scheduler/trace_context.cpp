#include "scheduler/trace_context.hpp"

#include <algorithm>
#include <cstdint>

#include <spdlog/fmt/fmt.h>

#include "runtime/ulid.hpp"
#include "scheduler/model.hpp"

namespace penstock::scheduler {

namespace {

constexpr std::size_t traceparent_size = 55;  // 00-(32)-(16)-(2)
constexpr std::string_view sampled = "01";

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_zero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

bool is_traceparent(std::string_view text) {
  if (text.size() < traceparent_size || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const auto version = text.substr(0, 2);
  if (!is_hex(version) || version == "ff") return false;
  if (version == "00" ? text.size() != traceparent_size : text.size() > traceparent_size && text[traceparent_size] != '-') return false;
  const auto trace = text.substr(3, 32), parent = text.substr(36, 16);
  return is_hex(trace) && !is_zero(trace) && is_hex(parent) && !is_zero(parent) && is_hex(text.substr(53, 2));
}

// FNV-1a, 64 bits (RFC 9923); never zero, which no span may be.
std::string span_id(std::string_view what) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : what) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", hash == 0 ? 1 : hash);
}

std::string_view flags_of(const run_record& run) {
  return run.trace.traceparent.empty() ? sampled : std::string_view(run.trace.traceparent).substr(53, 2);
}

}  // namespace

trace_context read_trace_context(std::string_view traceparent, std::string_view tracestate) {
  if (!is_traceparent(traceparent)) return {};
  trace_context read{"00" + std::string(traceparent.substr(2, traceparent_size - 2)), {}};
  const bool printable = std::all_of(tracestate.begin(), tracestate.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (printable && tracestate.size() <= longest_tracestate) read.tracestate = tracestate;
  return read;
}

std::string trace_id(const run_record& run) {
  return run.trace.traceparent.empty() ? runtime::ulid_as_hex(run.id) : run.trace.traceparent.substr(3, 32);
}

std::string traceparent_of_task(const run_record& run, std::string_view task) {
  return fmt::format("00-{}-{}-{}", trace_id(run), span_id(fmt::format("{}/{}/{}", run.id, run.attempt, task)), flags_of(run));
}

trace_context child_context(const run_record& run) {
  return {fmt::format("00-{}-{}-{}", trace_id(run), span_id(run.id), flags_of(run)), run.trace.tracestate};
}

}  // namespace penstock::scheduler
