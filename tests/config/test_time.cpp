#include <limits>

#include <catch2/catch.hpp>

#include "config/time.hpp"

namespace penstock {

using namespace std::chrono_literals;

TEST_CASE("durations need units and are exact", "[config][time]") {
  const std::vector<std::pair<const char*, nanoseconds>> good{
      {"250ms", 250ms},
      {"1.5s", 1500ms},
      {"5m", 5min},
      {"24h", 24h},
      {"7d", 168h},
      {"2w", 336h},
      {"1h30m", 90min},
      {"0s", 0ns},
      {"1ns", 1ns},
      {"1.000000001s", 1'000'000'001ns},
      {"0.25d", 6h},
      {"1d1ns", 24h + 1ns},
      {"1.10ms", 1100us},
      {"007s", 7s},
      {"1.5000000000000000000000s", 1500ms},
      {"106751d", 106751 * 24h},
  };
  for (const auto& [text, expected] : good) {
    INFO(text);
    REQUIRE(parse_duration(text));
    CHECK(*parse_duration(text) == expected);
  }
  for (const char* text :
       {"",     "5",     "s",      "5 m",   " 5m",           "5m ",     "-5m",
        "+5m",  "5min",  "5M",     "m5",    "1.s",           ".5s",     "1..5s",
        "1h30", "30m1h", "5m5m",   "0.5ns", "1.0000000001s", "106752d", "99999999999999999999s",
        "1e3s", "5µs",   "1h 30m", "1,5s"}) {
    INFO(text);
    CHECK_FALSE(parse_duration(text));
  }
}

TEST_CASE("a duration is shown in its shortest exact form", "[config][time]") {
  const std::vector<std::pair<nanoseconds, const char*>> shown{
      {0ns, "0s"},     {90s, "1m30s"},       {1500us, "1.5ms"}, {1ns, "1ns"},          {1001ns, "1.001us"},
      {7 * 24h, "7d"}, {24h + 1ns, "1d1ns"}, {1500ms, "1.5s"},  {61'250ms, "1m1.25s"}, {-90s, "-1m30s"},
  };
  for (const auto& [duration, expected] : shown) CHECK(format_duration(duration) == expected);
}

TEST_CASE("every shown duration reads back as itself", "[config][time]") {
  std::int64_t n = 1;
  for (int i = 0; i < 2'000; ++i) {
    n = static_cast<std::int64_t>(
        (static_cast<std::uint64_t>(n) * 6364136223846793005u + 1442695040888963407u) >> 1);
    const nanoseconds d{n >> (i % 60)};
    INFO(d.count());
    REQUIRE(parse_duration(format_duration(d)) == d);
  }
  CHECK(parse_duration(format_duration(nanoseconds::max())) == nanoseconds::max());
  CHECK(format_duration(nanoseconds::min()).front() == '-');
}

TEST_CASE("sizes need units", "[config][time]") {
  const std::vector<std::pair<const char*, std::int64_t>> good{
      {"64MiB", 64 << 20},
      {"10kB", 10'000},
      {"10KB", 10'000},
      {"1.5GiB", 3LL << 29},
      {"512B", 512},
      {"0B", 0},
      {"0.1KiB", 102},
      {"2TB", 2'000'000'000'000},
      {"8388607TiB", 8388607LL << 40},
      {"0.99999999999B", 0},
  };
  for (const auto& [text, expected] : good) {
    INFO(text);
    CHECK(parse_size(text) == expected);
  }
  for (const char* text :
       {"", "5", "B", "5 MB", "-1B", "5mb", "5M", "5Mib", "8388608TiB", "1.B", "1MiB1KiB", "1e3B"}) {
    INFO(text);
    CHECK_FALSE(parse_size(text));
  }
  for (std::int64_t bytes : {0L, 1L, 999L, 1'000L, 1'024L, 1'025L, 65'536L, 10'000L, 1L << 40, 123'456'789L,
                             std::numeric_limits<std::int64_t>::max()}) {
    CHECK(parse_size(format_size(bytes)) == bytes);
  }
  CHECK(format_size(65'536) == "64KiB");
  CHECK(format_size(10'000) == "10kB");
  CHECK(format_size(1'025) == "1025B");
}

TEST_CASE("times follow RFC 3339", "[config][time]") {
  const std::vector<std::pair<const char*, const char*>> good{
      {"2018-02-07T00:00:00Z", "2018-02-07T00:00:00.000000Z"},
      {"2018-02-07t01:02:03.5z", "2018-02-07T01:02:03.500000Z"},
      {"2018-02-07 01:02:03.123456789Z", "2018-02-07T01:02:03.123456Z"},
      {"2018-02-07T01:30:00+02:00", "2018-02-06T23:30:00.000000Z"},
      {"2018-12-31T20:00:00-05:30", "2019-01-01T01:30:00.000000Z"},
      {"2020-02-29T00:00:00-00:00", "2020-02-29T00:00:00.000000Z"},
      {"2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000000Z"},
      {"2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"},
      {"1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"},
      {"0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000000Z"},
      {"9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"},
  };
  for (const auto& [text, expected] : good) {
    INFO(text);
    REQUIRE(parse_time(text));
    CHECK(format_time(*parse_time(text)) == expected);
    CHECK(parse_time(format_time(*parse_time(text))) == parse_time(text));
  }
  for (const char* text : {"",
                           "2018-02-07",
                           "2018-02-07T00:00:00",
                           "2018-02-29T00:00:00Z",
                           "1900-02-29T00:00:00Z",
                           "2018-13-01T00:00:00Z",
                           "2018-00-01T00:00:00Z",
                           "2018-01-00T00:00:00Z",
                           "2018-02-07T24:00:00Z",
                           "9999-12-31T23:59:59-00:01",
                           "0000-01-01T00:00:00+00:01",
                           "2018-02-07T00:60:00Z",
                           "2018-02-07T00:00:61Z",
                           "2018-02-07T00:00:00.Z",
                           "2018-02-07T00:00:00.1234567890Z",
                           "2018-02-07T00:00Z",
                           "2018-02-07T00:00:00+0200",
                           "2018-02-07T00:00:00+24:00",
                           "2018-02-07T00:00:00Zx",
                           "18-02-07T00:00:00Z",
                           "2018-2-07T00:00:00Z",
                           "2018-02-07T00:00:00+02:60",
                           " 2018-02-07T00:00:00Z",
                           "2018-02-07T00:00:00,5Z"}) {
    INFO(text);
    CHECK_FALSE(parse_time(text));
  }
}

}  // namespace penstock
