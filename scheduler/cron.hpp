// When a cron expression fires next, in a time zone. Pure; any thread.
//
// Daylight saving, as documented in the README: a time that the clock skips fires once, at the first instant
// after the gap; a time that the clock repeats fires once, at its first occurrence.
#pragma once

#include <optional>
#include <string>

#include "config/cron_expression.hpp"
#include "config/time.hpp"

namespace penstock::scheduler {

// The first firing strictly after `after`; nothing when there is none within 10 years. `timezone` is a known
// IANA name.
std::optional<timestamp> next_firing(const config::cron_expression& expression, const std::string& timezone,
                                     timestamp after);

}  // namespace penstock::scheduler
