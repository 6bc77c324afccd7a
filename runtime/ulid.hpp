// ULIDs (github.com/ulid/spec): 128 bits as 26 characters of Crockford base32, 48 bits of milliseconds first, so that
// ids sort by the time they were made. Within one thread and millisecond they increase by one (monotonic ULIDs), and
// still while the clock is corrected backwards by less than a second.
// Thread-safe: each thread has its own generator.
#pragma once

#include <string>
#include <string_view>

#include "config/time.hpp"

namespace penstock::runtime {

constexpr std::size_t ulid_size = 26;

// A new id stamped with `now`.
std::string make_ulid(timestamp now = wall_now());
// The same, written to `out[0..26)` without allocating: for ids of events by the million.
void make_ulid(timestamp now, char* out);

bool is_ulid(std::string_view text);

// The same 128 bits as 32 hexadecimal digits. Zeros when `id` is no ULID.
std::string ulid_as_hex(std::string_view id);

}  // namespace penstock::runtime
