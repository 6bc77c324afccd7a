// See cron.hpp. The search runs on the local calendar, field by field, and only its result is turned into an
// instant. That is enough because the instants of ascending local times never descend: all of a gap stands
// for the instant after it, and of a repeated hour only the first pass counts.
#include "scheduler/cron.hpp"

#include <algorithm>
#include <bitset>
#include <chrono>

#include <date/tz.h>

namespace penstock::scheduler {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr date::years horizon{10};

// The lowest member that is at least `from`.
template <std::size_t N>
std::optional<unsigned> lowest(const std::bitset<N>& members, unsigned from) {
  for (unsigned i = from; i < N; ++i) {
    if (members[i]) return i;
  }
  return std::nullopt;
}

// crontab(5): when both the day and the weekday are restricted, either may match.
bool day_matches(const config::cron_expression& e, date::year_month_day day) {
  const bool by_day = e.days[static_cast<unsigned>(day.day())];
  const bool by_weekday = e.weekdays[date::weekday{date::local_days{day}}.c_encoding()];
  return e.any_day || e.any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

// The first matching day in [day, last].
std::optional<date::local_days> next_day(const config::cron_expression& e, date::local_days day,
                                         date::local_days last) {
  while (day <= last) {
    const date::year_month_day at{day};
    if (!e.months[static_cast<unsigned>(at.month())]) {
      day = date::local_days{(at.year() / at.month() + date::months{1}) / 1};
    } else if (day_matches(e, at)) {
      return day;
    } else {
      day += date::days{1};
    }
  }
  return std::nullopt;
}

seconds time_of_day(unsigned hour, unsigned minute, unsigned second) {
  return hours{hour} + minutes{minute} + seconds{second};
}

// The first matching time of day that is at least `from`; no field of `e` is empty.
std::optional<seconds> next_time(const config::cron_expression& e, seconds from) {
  const date::hh_mm_ss<seconds> at{from};
  const auto hour = static_cast<unsigned>(at.hours().count());
  const auto minute = static_cast<unsigned>(at.minutes().count());
  const auto second = static_cast<unsigned>(at.seconds().count());
  const unsigned first_second = lowest(e.seconds, 0).value();
  if (e.hours[hour]) {
    const auto same_minute = e.minutes[minute] ? lowest(e.seconds, second) : std::nullopt;
    if (same_minute) return time_of_day(hour, minute, *same_minute);
    if (const auto later = lowest(e.minutes, minute + 1)) return time_of_day(hour, *later, first_second);
  }
  const auto later = lowest(e.hours, hour + 1);
  if (!later) return std::nullopt;
  return time_of_day(*later, lowest(e.minutes, 0).value(), first_second);
}

// The earliest local time whose instant can be after `after`.
date::local_seconds first_candidate(const date::time_zone& zone, timestamp after) {
  const auto at = std::chrono::floor<seconds>(after);
  const date::local_seconds local{at.time_since_epoch() + zone.get_info(at).offset};
  const auto around = zone.get_info(local);
  // In the second pass of a repeated hour everything up to the hour's end has fired in the first pass.
  if (around.result == date::local_info::ambiguous && at >= around.second.begin) {
    return date::local_seconds{around.first.end.time_since_epoch() + around.first.offset};
  }
  return local + seconds{1};
}

timestamp instant(const date::time_zone& zone, date::local_seconds local) {
  const auto info = zone.get_info(local);
  if (info.result == date::local_info::nonexistent) return info.second.begin;
  return std::chrono::sys_seconds{local.time_since_epoch() - info.first.offset};
}

bool matches(const config::cron_expression& e, date::local_seconds local) {
  const auto day = date::floor<date::days>(local);
  const date::year_month_day on{day};
  const date::hh_mm_ss<seconds> time{local - day};
  return e.months[static_cast<unsigned>(on.month())] && day_matches(e, on) &&
         e.hours[static_cast<unsigned>(time.hours().count())] && e.minutes[static_cast<unsigned>(time.minutes().count())] &&
         e.seconds[static_cast<unsigned>(time.seconds().count())];
}

bool can_match(const config::cron_expression& e) {
  return e.seconds.any() && e.minutes.any() && e.hours.any();
}

}  // namespace

std::optional<timestamp> next_firing(const config::cron_expression& expression, const std::string& timezone,
                                     timestamp after) {
  if (!can_match(expression)) return std::nullopt;
  const date::time_zone& zone = *date::locate_zone(timezone);
  const date::local_seconds from = first_candidate(zone, after);
  const auto first_day = date::floor<date::days>(from);
  const date::local_days last_day{date::year_month_day{first_day} + horizon};
  std::optional<seconds> time = next_time(expression, from - first_day);
  // Today counts only while a matching time of day is left in it.
  const auto day = next_day(expression, time ? first_day : first_day + date::days{1}, last_day);
  if (!day) return std::nullopt;
  if (*day != first_day) time = next_time(expression, seconds{0});
  return instant(zone, *day + time.value());
}

firing seen_locally(const config::cron_expression& expression, const std::string& timezone, timestamp at) {
  const date::time_zone& zone = *date::locate_zone(timezone);
  const auto second = std::chrono::floor<seconds>(at);
  const date::sys_info info = zone.get_info(second);
  const date::local_seconds local{second.time_since_epoch() + info.offset};
  firing seen{.at = at, .offset = info.offset};
  if (zone.get_info(local).result == date::local_info::ambiguous) {
    seen.shift = clock_shift::repeated;
  } else if (second == info.begin && !matches(expression, local)) {
    seen.shift = clock_shift::skipped;
  }
  return seen;
}

std::string format_local(const firing& f) {
  const auto local = std::chrono::floor<seconds>(f.at) + f.offset;
  const auto minutes_east = std::chrono::duration_cast<minutes>(f.offset < seconds{0} ? -f.offset : f.offset);
  const date::hh_mm_ss<minutes> east{minutes_east};
  const auto two = [](std::int64_t n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  std::string text = format_time(timestamp(local)).substr(0, 19);
  return text + (f.offset < seconds{0} ? "-" : "+") + two(east.hours().count()) + ":" + two(east.minutes().count());
}

}  // namespace penstock::scheduler
