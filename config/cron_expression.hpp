// A cron expression as sets of matching numbers. Syntax: crontab(5) with five fields (minute hour day month
// weekday) or six (second first), names (jan, mon), lists, ranges, steps, and @hourly @daily @weekly @monthly
// @yearly. As in crontab(5), when both day and weekday are restricted either may match; when one of them
// begins with * both must (so "0 0 */2 * mon" is every other day that is also a Monday). When it fires next
// is the scheduler's affair (scheduler/cron.hpp). Plain values, any thread.
#pragma once

#include <bitset>
#include <string>
#include <string_view>

#include "config/error.hpp"

namespace penstock::config {

struct cron_expression {
  std::string text;  // as written
  std::bitset<60> seconds;
  std::bitset<60> minutes;
  std::bitset<24> hours;
  std::bitset<32> days;     // 1 to 31
  std::bitset<13> months;   // 1 to 12
  std::bitset<7> weekdays;  // 0 is Sunday
  bool any_day = true;      // the day field begins with * (or ?); `days` still counts
  bool any_weekday = true;  // the weekday field begins with * (or ?); `weekdays` still counts

  bool operator==(const cron_expression&) const = default;
};

// errc::invalid with a detail that names the field and the value when the text is not a cron expression, or
// can never match (February 30).
result<cron_expression> parse_cron(std::string_view text);

}  // namespace penstock::config
