// When cron expressions fire: known cases around changes of the clock, then random expressions against a
// model that walks through the instants second by second and knows nothing of calendars but each instant's
// offset.
#include <array>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <date/tz.h>

#include "scheduler/cron.hpp"

using namespace penstock;
using penstock::scheduler::next_firing;

namespace {

timestamp at(const std::string& text) {
  const auto t = parse_time(text);
  REQUIRE(t);
  return *t;
}

config::cron_expression cron(const std::string& text) {
  const auto e = config::parse_cron(text);
  INFO(text);
  REQUIRE(e.has_value());
  return *e;
}

// The next `count` firings after `after`, in UTC, to whole seconds.
std::vector<std::string> firings(const std::string& text, const std::string& zone, const std::string& after,
                                 std::size_t count) {
  std::vector<std::string> found;
  const auto e = cron(text);
  auto t = at(after);
  while (found.size() < count) {
    const auto next = next_firing(e, zone, t);
    if (!next) break;
    CHECK(*next > t);
    found.push_back(format_time(*next).substr(0, 19));
    t = *next;
  }
  return found;
}

using list = std::vector<std::string>;

}  // namespace

TEST_CASE("cron: plain days", "[cron]") {
  CHECK(firings("0 6 * * *", "Europe/Madrid", "2026-01-10T00:00:00Z", 2) ==
        list{"2026-01-10T05:00:00", "2026-01-11T05:00:00"});
  CHECK(firings("0 6 * * *", "UTC", "2026-01-10T06:00:00Z", 1) == list{"2026-01-11T06:00:00"});
  CHECK(firings("0 6 * * *", "UTC", "2026-01-10T05:59:59.999999Z", 1) == list{"2026-01-10T06:00:00"});
  CHECK(firings("*/15 * * * *", "UTC", "2026-12-31T23:44:59Z", 3) ==
        list{"2026-12-31T23:45:00", "2027-01-01T00:00:00", "2027-01-01T00:15:00"});
  CHECK(firings("0 9 * * mon", "Asia/Kolkata", "2026-03-01T00:00:00Z", 2) ==
        list{"2026-03-02T03:30:00", "2026-03-09T03:30:00"});
}

TEST_CASE("cron: six fields count seconds", "[cron]") {
  CHECK(firings("*/20 * * * * *", "UTC", "2026-01-01T00:00:00.5Z", 3) ==
        list{"2026-01-01T00:00:20", "2026-01-01T00:00:40", "2026-01-01T00:01:00"});
  CHECK(firings("59 59 23 31 12 *", "UTC", "2026-01-01T00:00:00Z", 2) ==
        list{"2026-12-31T23:59:59", "2027-12-31T23:59:59"});
}

TEST_CASE("cron: lists, ranges, steps and names", "[cron]") {
  CHECK(firings("10-30/10,59 8 * * *", "UTC", "2026-01-01T00:00:00Z", 5) ==
        list{"2026-01-01T08:10:00", "2026-01-01T08:20:00", "2026-01-01T08:30:00", "2026-01-01T08:59:00",
             "2026-01-02T08:10:00"});
  CHECK(firings("50/4 0 * * *", "UTC", "2026-01-01T00:00:00Z", 4) ==
        list{"2026-01-01T00:50:00", "2026-01-01T00:54:00", "2026-01-01T00:58:00", "2026-01-02T00:50:00"});
  CHECK(firings("0 0 1 jan,MAR-may *", "UTC", "2026-01-15T00:00:00Z", 4) ==
        list{"2026-03-01T00:00:00", "2026-04-01T00:00:00", "2026-05-01T00:00:00", "2027-01-01T00:00:00"});
  CHECK(firings("0 0 * * fri-sun", "UTC", "2026-01-01T00:00:00Z", 4) ==
        list{"2026-01-02T00:00:00", "2026-01-03T00:00:00", "2026-01-04T00:00:00", "2026-01-09T00:00:00"});
  for (const auto* sunday : {"0 0 * * 0", "0 0 * * 7", "0 0 * * sun", "0 0 ? * sun"}) {
    CHECK(firings(sunday, "UTC", "2026-01-01T00:00:00Z", 2) == list{"2026-01-04T00:00:00", "2026-01-11T00:00:00"});
  }
}

TEST_CASE("cron: named schedules", "[cron]") {
  const std::string wednesday = "2026-07-15T10:20:30Z";
  CHECK(firings("@hourly", "UTC", wednesday, 2) == list{"2026-07-15T11:00:00", "2026-07-15T12:00:00"});
  CHECK(firings("@daily", "UTC", wednesday, 2) == list{"2026-07-16T00:00:00", "2026-07-17T00:00:00"});
  CHECK(firings("@weekly", "UTC", wednesday, 2) == list{"2026-07-19T00:00:00", "2026-07-26T00:00:00"});
  CHECK(firings("@monthly", "UTC", wednesday, 2) == list{"2026-08-01T00:00:00", "2026-09-01T00:00:00"});
  CHECK(firings("@yearly", "UTC", wednesday, 2) == list{"2027-01-01T00:00:00", "2028-01-01T00:00:00"});
  CHECK(firings("@daily", "Asia/Kathmandu", wednesday, 1) == list{"2026-07-15T18:15:00"});  // UTC+5:45
}

TEST_CASE("cron: a time that the clock skips fires once, at the end of the gap", "[cron]") {
  SECTION("Madrid: 02:00 becomes 03:00 on 2026-03-29, at 01:00 UTC") {
    CHECK(firings("30 2 * * *", "Europe/Madrid", "2026-03-28T00:00:00Z", 3) ==
          list{"2026-03-28T01:30:00", "2026-03-29T01:00:00", "2026-03-30T00:30:00"});
    CHECK(firings("*/20 2 * * *", "Europe/Madrid", "2026-03-28T12:00:00Z", 2) ==
          list{"2026-03-29T01:00:00", "2026-03-30T00:00:00"});
    // 03:00 exists, and the skipped times stand for the same instant.
    CHECK(firings("0,30 2,3 * * *", "Europe/Madrid", "2026-03-28T12:00:00Z", 3) ==
          list{"2026-03-29T01:00:00", "2026-03-29T01:30:00", "2026-03-30T00:00:00"});
  }
  SECTION("New York: 02:00 becomes 03:00 on 2026-03-08, at 07:00 UTC") {
    CHECK(firings("15 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2) ==
          list{"2026-03-08T07:00:00", "2026-03-09T06:15:00"});
  }
  SECTION("Lord Howe: 02:00 becomes 02:30 on 2026-10-04, at 15:30 UTC the day before") {
    CHECK(firings("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2) ==
          list{"2026-10-03T15:30:00", "2026-10-04T15:15:00"});
    CHECK(firings("45 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 1) ==
          list{"2026-10-03T15:45:00"});
  }
  SECTION("Apia: a whole day was skipped, 2011-12-30") {
    CHECK(firings("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3) ==
          list{"2011-12-29T22:00:00", "2011-12-30T10:00:00", "2011-12-30T22:00:00"});
  }
  SECTION("Santiago: midnight is skipped on 2026-09-06, at 04:00 UTC") {
    CHECK(firings("@daily", "America/Santiago", "2026-09-05T12:00:00Z", 2) ==
          list{"2026-09-06T04:00:00", "2026-09-07T03:00:00"});
  }
}

TEST_CASE("cron: a time that the clock repeats fires once, the first time", "[cron]") {
  SECTION("Madrid: 03:00 becomes 02:00 on 2026-10-25, at 01:00 UTC") {
    CHECK(firings("30 2 * * *", "Europe/Madrid", "2026-10-24T12:00:00Z", 2) ==
          list{"2026-10-25T00:30:00", "2026-10-26T01:30:00"});
    CHECK(firings("0,30 * * * *", "Europe/Madrid", "2026-10-24T23:59:00Z", 4) ==
          list{"2026-10-25T00:00:00", "2026-10-25T00:30:00", "2026-10-25T02:00:00", "2026-10-25T02:30:00"});
    // Asked in the middle of the second pass.
    CHECK(firings("0,45 * * * *", "Europe/Madrid", "2026-10-25T01:10:00Z", 1) == list{"2026-10-25T02:00:00"});
  }
  SECTION("New York: 02:00 becomes 01:00 on 2026-11-01, at 06:00 UTC") {
    CHECK(firings("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2) ==
          list{"2026-11-01T05:30:00", "2026-11-02T06:30:00"});
  }
  SECTION("Lord Howe: 02:00 becomes 01:30 on 2026-04-05, at 15:00 UTC the day before") {
    CHECK(firings("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2) ==
          list{"2026-04-04T14:45:00", "2026-04-05T15:15:00"});
    CHECK(firings("*/15 * * * *", "Australia/Lord_Howe", "2026-04-04T14:29:00Z", 4) ==
          list{"2026-04-04T14:30:00", "2026-04-04T14:45:00", "2026-04-04T15:30:00", "2026-04-04T15:45:00"});
  }
}

TEST_CASE("cron: by seconds, around changes of the clock", "[cron]") {
  SECTION("all of a skipped hour is one firing, and those after it follow as ever") {
    CHECK(firings("30 * * * * *", "Europe/Madrid", "2026-03-29T00:58:00Z", 4) ==
          list{"2026-03-29T00:58:30", "2026-03-29T00:59:30", "2026-03-29T01:00:00", "2026-03-29T01:00:30"});
    CHECK(firings("*/30 59 * * * *", "Europe/Madrid", "2026-03-29T00:59:10Z", 4) ==
          list{"2026-03-29T00:59:30", "2026-03-29T01:00:00", "2026-03-29T01:59:00", "2026-03-29T01:59:30"});
  }
  SECTION("a repeated hour fires in its first pass only") {
    CHECK(firings("*/30 59 * * * *", "Europe/Madrid", "2026-10-25T00:58:00Z", 3) ==
          list{"2026-10-25T00:59:00", "2026-10-25T00:59:30", "2026-10-25T02:59:00"});
  }
  SECTION("asked at the very instants") {
    CHECK(firings("0 3 * * *", "Europe/Madrid", "2026-03-29T01:00:00Z", 1) == list{"2026-03-30T01:00:00"});
    CHECK(firings("0 3 * * *", "Europe/Madrid", "2026-03-29T00:59:59.999999Z", 1) == list{"2026-03-29T01:00:00"});
    CHECK(firings("0 2 * * *", "Europe/Madrid", "2026-10-25T00:00:00Z", 1) == list{"2026-10-26T01:00:00"});
    CHECK(firings("0 3 * * *", "Europe/Madrid", "2026-10-25T00:59:59Z", 1) == list{"2026-10-25T02:00:00"});
  }
}

TEST_CASE("cron: both a skipped and a repeated hour leave one firing a day", "[cron]") {
  for (const auto* zone : {"Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "UTC"}) {
    for (const auto* text : {"15 0 * * *", "30 1 * * *", "45 1 * * *", "30 2 * * *", "15 3 * * *"}) {
      INFO(text << " in " << zone);
      const auto* tz = date::locate_zone(zone);
      const auto local_day = [tz](timestamp t) { return date::floor<date::days>(tz->to_local(t)); };
      auto last = at("2026-01-01T12:00:00Z");
      for (int i = 0; i < 800; ++i) {
        const auto next = next_firing(cron(text), zone, last);
        REQUIRE(next);
        if (i > 0) CHECK(local_day(*next) == local_day(last) + date::days{1});
        last = *next;
      }
    }
  }
}

TEST_CASE("cron: day or weekday, when both are restricted", "[cron]") {
  CHECK(firings("0 0 13 * fri", "UTC", "2026-02-01T00:00:00Z", 6) ==
        list{"2026-02-06T00:00:00", "2026-02-13T00:00:00", "2026-02-20T00:00:00", "2026-02-27T00:00:00",
             "2026-03-06T00:00:00", "2026-03-13T00:00:00"});
  CHECK(firings("0 0 13 * *", "UTC", "2026-02-01T00:00:00Z", 2) ==
        list{"2026-02-13T00:00:00", "2026-03-13T00:00:00"});
  CHECK(firings("0 0 * * fri", "UTC", "2026-02-01T00:00:00Z", 2) ==
        list{"2026-02-06T00:00:00", "2026-02-13T00:00:00"});
}

TEST_CASE("cron: leap days, months' ends, and the end of the search", "[cron]") {
  CHECK(firings("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2) ==
        list{"2028-02-29T00:00:00", "2032-02-29T00:00:00"});
  CHECK(firings("0 0 29 2 *", "UTC", "2096-02-29T00:00:00Z", 1) ==
        list{"2104-02-29T00:00:00"});  // 2100 is none
  CHECK(firings("0 0 31 * *", "UTC", "2026-01-31T00:00:00Z", 2) ==
        list{"2026-03-31T00:00:00", "2026-05-31T00:00:00"});

  config::cron_expression never = cron("0 0 29 2 *");
  never.days.reset();
  never.days.set(30);
  CHECK_FALSE(next_firing(never, "UTC", at("2026-01-01T00:00:00Z")));
  CHECK_FALSE(next_firing(config::cron_expression{}, "UTC", at("2026-01-01T00:00:00Z")));
}

TEST_CASE("cron: before 1970 and far ahead", "[cron]") {
  CHECK(firings("0 0 1 1 *", "UTC", "1969-06-01T00:00:00.25Z", 1) == list{"1970-01-01T00:00:00"});
  CHECK(firings("0 0 1 1 *", "UTC", "1950-06-01T00:00:00.25Z", 1) == list{"1951-01-01T00:00:00"});
  CHECK(firings("0 0 1 1 *", "UTC", "2999-06-01T00:00:00Z", 1) == list{"3000-01-01T00:00:00"});
}

// ---- against the model ----

namespace {

using std::chrono::seconds;

// A local time that the clock gets to, or passes, in the second `in` of the days below.
struct shown {
  std::size_t in;
  unsigned minute, hour, day, month, weekday;
};

// Every second of a few days, with the local times that the clock gets to or passes in it: one; many where it is set
// forward; none where it shows what it has shown before. They lie by the second they show, so that an expression
// looks at those alone that it may fire at.
struct days_around {
  std::string zone;
  std::chrono::sys_seconds begin;
  std::size_t length;  // in seconds
  std::array<std::vector<shown>, 60> by_second;
};

days_around watch(const std::string& zone, const std::string& middle) {
  constexpr std::chrono::hours half{36};
  days_around d{zone, std::chrono::floor<seconds>(at(middle) - half), 2 * half / seconds{1}, {}};
  const auto* tz = date::locate_zone(zone);
  const auto local = [&](std::size_t i) {
    const auto t = d.begin + seconds{i};
    return date::local_seconds{t.time_since_epoch() + tz->get_info(t).offset};
  };
  auto last = local(0);
  for (std::size_t i = 1; i < d.length; ++i) {
    for (const auto now = local(i); last < now;) {
      last += seconds{1};
      const auto day = date::floor<date::days>(last);
      const date::year_month_day ymd{day};
      const date::hh_mm_ss<seconds> time{last - day};
      d.by_second[static_cast<std::size_t>(time.seconds().count())].push_back(
          {i, static_cast<unsigned>(time.minutes().count()), static_cast<unsigned>(time.hours().count()),
           static_cast<unsigned>(ymd.day()), static_cast<unsigned>(ymd.month()), date::weekday{day}.c_encoding()});
    }
  }
  return d;
}

bool matches(const config::cron_expression& e, const shown& s) {
  const bool d = e.days[s.day];
  const bool w = e.weekdays[s.weekday];
  const bool either = !e.any_day && !e.any_weekday;
  return e.minutes[s.minute] && e.hours[s.hour] && e.months[s.month] && (either ? d || w : d && w);
}

std::vector<timestamp> slowly(const config::cron_expression& e, const days_around& d) {
  std::set<std::size_t> found;
  for (std::size_t second = 0; second < 60; ++second) {
    if (!e.seconds[second]) continue;
    for (const auto& s : d.by_second[second]) {
      if (matches(e, s)) found.insert(s.in);
    }
  }
  std::vector<timestamp> times;
  for (const auto in : found) times.push_back(d.begin + seconds{in});
  return times;
}

std::vector<timestamp> quickly(const config::cron_expression& e, const days_around& d) {
  std::vector<timestamp> found;
  const timestamp end = d.begin + seconds{d.length};
  auto next = next_firing(e, d.zone, d.begin);
  while (next && *next < end) {
    found.push_back(*next);
    next = next_firing(e, d.zone, *next);
  }
  return found;
}

class expressions {
 public:
  std::string next() {
    const bool with_seconds = chance(0.2);
    std::string text = with_seconds ? field(0, 59, 0.05) + " " : "";
    text += field(0, 59, with_seconds ? 0.2 : 0.3) + " " + field(0, 23, 0.5) + " ";
    return text + field(1, 31, 0.6) + " " + field(1, 12, 0.9) + " " + field(0, 6, 0.6);
  }

 private:
  bool chance(double p) { return std::uniform_real_distribution<>(0, 1)(random_) < p; }
  int number(int low, int high) { return std::uniform_int_distribution<>(low, high)(random_); }

  std::string field(int low, int high, double star) {
    if (chance(star)) return "*";
    if (chance(0.3)) return "*/" + std::to_string(number(2, std::max(2, high / 2)));
    const int first = number(low, high);
    if (chance(0.4)) return std::to_string(first) + "-" + std::to_string(number(first, high));
    return std::to_string(first) + "," + std::to_string(number(low, high));
  }

  std::mt19937 random_{20260329};
};

}  // namespace

TEST_CASE("cron: random expressions around changes of the clock agree with counting seconds",
          "[cron][slow]") {
  const std::vector<days_around> all{watch("Europe/Madrid", "2026-03-29T01:00:00Z"),
                                     watch("Europe/Madrid", "2026-10-25T01:00:00Z"),
                                     watch("America/New_York", "2026-03-08T07:00:00Z"),
                                     watch("America/New_York", "2026-11-01T06:00:00Z"),
                                     watch("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
                                     watch("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
                                     watch("America/Santiago", "2026-09-06T04:00:00Z"),
                                     watch("Pacific/Apia", "2011-12-30T10:00:00Z"),
                                     watch("UTC", "2028-02-29T00:00:00Z")};
  expressions random;
  std::size_t compared = 0;
  for (int i = 0; i < 270; ++i) {
    const auto& days = all[static_cast<std::size_t>(i) % all.size()];
    const std::string text = random.next();
    const auto parsed = config::parse_cron(text);
    if (!parsed) continue;  // February 30
    const auto expected = slowly(*parsed, days);
    INFO(text << " in " << days.zone << " from " << format_time(days.begin));
    const auto found = quickly(*parsed, days);
    CHECK(found.size() == expected.size());
    CHECK(std::equal(found.begin(), found.end(), expected.begin(), expected.end()));
    compared += expected.size();
  }
  CHECK(compared > 10'000);  // the expressions were not all of the kind that never fires
}
