// When a cron expression fires next, in a time zone. Pure; any thread.
//
// Daylight saving, as documented in the README: a time that the clock skips fires once, at the first instant
// after the gap; a time that the clock repeats fires once, at its first occurrence.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "config/cron_expression.hpp"
#include "config/time.hpp"

namespace penstock::scheduler {

// The first firing strictly after `after`; nothing when there is none within 10 years. `timezone` is a known
// IANA name.
std::optional<timestamp> next_firing(const config::cron_expression& expression, const std::string& timezone,
                                     timestamp after);

// How a firing looks on the clock of its zone.
enum class clock_shift {
  none,
  skipped,   // the expression's own time does not exist that day: this is the first instant after the gap
  repeated,  // the clock shows this time twice: this is the first of the two
};
struct firing {
  timestamp at{};
  std::chrono::seconds offset{};  // local time minus UTC, then
  clock_shift shift = clock_shift::none;
};
// What next_firing() returned for the expression, seen in its zone.
firing seen_locally(const config::cron_expression& expression, const std::string& timezone, timestamp at);
// RFC 3339 with the zone's offset, whole seconds: 2026-03-29T03:00:00+02:00.
std::string format_local(const firing& f);

}  // namespace penstock::scheduler
