#include <catch2/catch.hpp>

#include "config/cron_expression.hpp"

namespace penstock::config {
namespace {

template <std::size_t size>
std::vector<std::size_t> numbers(const std::bitset<size>& set) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < size; ++i) {
    if (set[i]) out.push_back(i);
  }
  return out;
}

using list = std::vector<std::size_t>;

cron_expression parsed_cron(const char* text) {
  INFO(text);
  const auto out = parse_cron(text);
  REQUIRE(out.has_value());
  return *out;
}

}  // namespace

TEST_CASE("five fields, six fields, spaces and tabs", "[config][cron]") {
  const auto five = parsed_cron(" 30  6\t* * *  ");
  CHECK(numbers(five.seconds) == list{0});
  CHECK(numbers(five.minutes) == list{30});
  CHECK(numbers(five.hours) == list{6});
  CHECK(numbers(five.days).size() == 31);
  CHECK(numbers(five.months).size() == 12);
  CHECK(numbers(five.weekdays).size() == 7);
  CHECK(five.text == " 30  6\t* * *  ");
  const auto six = parsed_cron("15,45 0 0 1 1 *");
  CHECK(numbers(six.seconds) == list{15, 45});
  CHECK(numbers(six.days) == list{1});
}

TEST_CASE("lists, ranges and steps", "[config][cron]") {
  CHECK(numbers(parsed_cron("*/15 * * * *").minutes) == list{0, 15, 30, 45});
  CHECK(numbers(parsed_cron("10-30/10,59 * * * *").minutes) == list{10, 20, 30, 59});
  CHECK(numbers(parsed_cron("50/4 * * * *").minutes) == list{50, 54, 58});
  CHECK(numbers(parsed_cron("5-5 * * * *").minutes) == list{5});
  CHECK(numbers(parsed_cron("0 */7 * * *").hours) == list{0, 7, 14, 21});
  CHECK(numbers(parsed_cron("0 0 1-7,15 * *").days) == list{1, 2, 3, 4, 5, 6, 7, 15});
}

TEST_CASE("names of months and weekdays, and both Sundays", "[config][cron]") {
  CHECK(numbers(parsed_cron("0 0 1 JAN,mar-May *").months) == list{1, 3, 4, 5});
  CHECK(numbers(parsed_cron("0 0 * * mon-FRI").weekdays) == list{1, 2, 3, 4, 5});
  CHECK(numbers(parsed_cron("0 0 * * 0").weekdays) == list{0});
  CHECK(numbers(parsed_cron("0 0 * * 7").weekdays) == list{0});
  CHECK(numbers(parsed_cron("0 0 * * fri-sun").weekdays) == list{0, 5, 6});
  CHECK(numbers(parsed_cron("0 0 * * 5-7").weekdays) == list{0, 5, 6});
  CHECK(numbers(parsed_cron("0 0 * * */2").weekdays) == list{0, 2, 4, 6});
}

TEST_CASE("what is restricted and what is not, as crontab(5) counts it", "[config][cron]") {
  CHECK(parsed_cron("0 0 * * *").any_day);
  CHECK(parsed_cron("0 0 ? * mon").any_day);
  CHECK(parsed_cron("0 0 */2 * mon").any_day);
  CHECK(numbers(parsed_cron("0 0 */10 * mon").days) == list{1, 11, 21, 31});
  CHECK_FALSE(parsed_cron("0 0 13 * fri").any_day);
  CHECK_FALSE(parsed_cron("0 0 13 * fri").any_weekday);
  CHECK(parsed_cron("0 0 13 * ?").any_weekday);
}

TEST_CASE("macros", "[config][cron]") {
  CHECK(numbers(parsed_cron("@hourly").minutes) == list{0});
  CHECK(numbers(parsed_cron("@hourly").hours).size() == 24);
  CHECK(numbers(parsed_cron("@Daily").hours) == list{0});
  CHECK(numbers(parsed_cron("@weekly").weekdays) == list{0});
  CHECK(numbers(parsed_cron("@monthly").days) == list{1});
  CHECK(numbers(parsed_cron("@yearly").months) == list{1});
  CHECK(parsed_cron("@annually").months == parsed_cron("@yearly").months);
}

TEST_CASE("days that no year has are refused, the leap day is not", "[config][cron]") {
  CHECK(parse_cron("0 0 29 2 *").has_value());
  CHECK(parse_cron("0 0 31 1,2 *").has_value());
  CHECK_FALSE(parse_cron("0 0 30 2 *").has_value());
  CHECK_FALSE(parse_cron("0 0 31 2,4,6,9,11 *").has_value());
  CHECK_FALSE(parse_cron("0 0 30 2 */2").has_value());  // both must match
  CHECK(parse_cron("0 0 30 2 mon").has_value());        // either may match: Mondays in February
}

TEST_CASE("what is no cron expression is refused with field and value", "[config][cron]") {
  const std::vector<std::pair<const char*, const char*>> bad{
      {"", "has 0 fields"},
      {"* * * *", "has 4 fields"},
      {"* * * * * * *", "has 7 fields"},
      {"60 * * * *", "minute: '60' is not a number from 0 to 59"},
      {"60 * * * * *", "second: '60'"},
      {"* 24 * * *", "hour: '24'"},
      {"* * 0 * *", "day: '0' is not a number from 1 to 31"},
      {"* * 32 * *", "day: '32'"},
      {"* * * 13 *", "month: '13'"},
      {"* * * * 8", "weekday: '8'"},
      {"* * * foo *", "month: 'foo' is neither a number nor a name such as feb"},
      {"mon * * * *", "minute: 'mon'"},
      {"30-10 * * * *", "minute: the range '30-10' runs backwards"},
      {"*/0 * * * *", "minute: the step in '*/0'"},
      {"*/90 * * * *", "minute: the step in '*/90' is not a number from 1 to 59"},
      {"1,,2 * * * *", "something is missing in '1,,2'"},
      {"1- * * * *", "minute: ''"},
      {"-1 * * * *", "minute: ''"},
      {"1-2-3 * * * *", "minute: '2-3'"},
      {"*/ * * * *", "the step in '*/'"},
      {"? * * * *", "minute: '?'"},
      {"* * L * *", "day: 'L'"},
      {"* * * * mon#2", "weekday: 'mon#2'"},
      {"99999999999999999999 * * * *", "minute: '99999999999999999999'"},
      {"@reboot", "unknown schedule '@reboot'"},
      {"@dayly", "did you mean '@daily'?"},
  };
  for (const auto& [text, says] : bad) {
    INFO(text);
    const auto out = parse_cron(text);
    REQUIRE_FALSE(out.has_value());
    CHECK(out.error().code == errc::invalid);
    CHECK_THAT(out.error().detail, Catch::Matchers::Contains(says));
  }
}

}  // namespace penstock::config
