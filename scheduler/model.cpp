// See model.hpp. Each token stands in exactly one table here.
#include "scheduler/model.hpp"

#include <array>
#include <cstddef>

namespace penstock::scheduler {
namespace {

// In the order of the enums, so that a value is its index.
constexpr std::array<std::string_view, 8> run_tokens{"queued", "running",   "retrying",  "succeeded",
                                                     "failed", "cancelled", "timed_out", "skipped"};
constexpr std::array<std::string_view, 7> flow_tokens{"starting", "running", "backing_off", "paused",
                                                      "draining", "stopped", "failed"};
constexpr std::array<std::string_view, 9> trigger_tokens{"topic", "cron",    "every",    "at",  "after",
                                                         "file",  "webhook", "backfill", "rest"};

template <class Enum, std::size_t N>
std::optional<Enum> parse(const std::array<std::string_view, N>& tokens, std::string_view text) {
  for (std::size_t i = 0; i < N; ++i) {
    if (tokens[i] == text) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace

std::string_view token(run_state s) { return run_tokens.at(static_cast<std::size_t>(s)); }
std::string_view token(flow_state s) { return flow_tokens.at(static_cast<std::size_t>(s)); }
std::string_view token(trigger_kind k) { return trigger_tokens.at(static_cast<std::size_t>(k)); }

std::optional<run_state> parse_run_state(std::string_view text) { return parse<run_state>(run_tokens, text); }

std::optional<trigger_kind> parse_trigger_kind(std::string_view text) {
  return parse<trigger_kind>(trigger_tokens, text);
}

bool is_final(run_state s) {
  return s != run_state::queued && s != run_state::running && s != run_state::retrying;
}

bool may_become(run_state from, run_state to) {
  switch (from) {
    case run_state::queued:
      // Without having run: the overlap rule skips it, its definition is gone, its deadline passes.
      return to == run_state::running || to == run_state::skipped || to == run_state::cancelled ||
             to == run_state::failed || to == run_state::timed_out;
    case run_state::running:
      // Queued again: its attempt was cut off by a stop of the daemon.
      return to == run_state::queued || to == run_state::retrying || to == run_state::succeeded ||
             to == run_state::failed || to == run_state::cancelled || to == run_state::timed_out;
    case run_state::retrying:
      return to == run_state::queued || to == run_state::running || to == run_state::failed ||
             to == run_state::cancelled || to == run_state::timed_out;
    case run_state::succeeded:
    case run_state::failed:
    case run_state::cancelled:
    case run_state::timed_out:
    case run_state::skipped:
      return false;
  }
  return false;
}

}  // namespace penstock::scheduler
