// Times, durations, sizes, addresses to listen on: what is read can be written and read again.
#include "api/listen_address.hpp"
#include "config/time.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

void try_input(std::string_view text) {
  if (const auto time = parse_time(text)) require(parse_time(format_time(*time)) == time, "a time is read as it is written", format_time(*time));
  if (const auto duration = parse_duration(text)) {
    require(*duration >= nanoseconds{0}, "a duration is not negative");
    require(parse_duration(format_duration(*duration)) == duration, "a duration is read as it is written", format_duration(*duration));
  }
  if (const auto size = parse_size(text)) {
    require(*size >= 0, "a size is not negative");
    require(parse_size(format_size(*size)) == size, "a size is read as it is written", format_size(*size));
  }
  if (const auto address = api::parse_listen_address(text)) {
    const auto again = api::parse_listen_address(address->shown());
    require(again && again->shown() == address->shown(), "an address is read as it is written", address->shown());
  }
}

}  // namespace penstock::fuzz
