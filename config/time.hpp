// Points in time and lengths of time as people write them, and back. Pure functions, any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// Wall-clock time with the resolution that REST and the databases keep.
using timestamp = std::chrono::sys_time<std::chrono::microseconds>;
using std::chrono::nanoseconds;

inline timestamp wall_now() {
  return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
}
inline std::int64_t to_micros(timestamp t) { return t.time_since_epoch().count(); }
inline timestamp from_micros(std::int64_t us) { return timestamp{std::chrono::microseconds{us}}; }

// RFC 3339, UTC, always six fractional digits: 2018-02-07T00:00:00.000000Z
std::string format_time(timestamp t);
// Any RFC 3339 date-time (offset and 0 to 9 fractional digits accepted, beyond microseconds cut off; a leap
// second is the second after it); nothing when it is not one.
std::optional<timestamp> parse_time(std::string_view text);

// "250ms", "1.5s", "5m", "24h", "7d", "2w", "1h30m": units ns us ms s m h d w, each part with its unit,
// larger units first. Nothing when it is not a duration, is negative, is not a whole number of nanoseconds or
// would not fit.
std::optional<nanoseconds> parse_duration(std::string_view text);
// The shortest exact form, days being the largest unit: 90s -> "1m30s", 1500us -> "1.5ms", 0 -> "0s".
std::string format_duration(nanoseconds d);

// "64MiB", "10kB", "1.5GiB", "512B": bytes; units B kB MB GB TB (powers of 1000) and KiB MiB GiB TiB (of
// 1024). A fraction of a byte is dropped. Nothing when it is not a size or would not fit.
std::optional<std::int64_t> parse_size(std::string_view text);
// The shortest exact form in whole units: 65536 -> "64KiB", 10000 -> "10kB", 1025 -> "1025B".
std::string format_size(std::int64_t bytes);

}  // namespace penstock
