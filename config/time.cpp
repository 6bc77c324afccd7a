#include "config/time.hpp"

#include <array>
#include <cstdio>
#include <limits>

#include "config/characters.hpp"

namespace penstock {
namespace {

using std::chrono::microseconds;

// Takes exactly `count` digits off the front of the text.
std::optional<int> take_digits(std::string_view& text, std::size_t count) {
  if (text.size() < count) return std::nullopt;
  int number = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (!is_digit(text[i])) return std::nullopt;
    number = number * 10 + (text[i] - '0');
  }
  text.remove_prefix(count);
  return number;
}

bool take_any(std::string_view& text, std::string_view choices) {
  if (text.empty() || choices.find(text.front()) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<std::chrono::sys_days> take_date(std::string_view& text) {
  const auto year = take_digits(text, 4);
  if (!year || !take_any(text, "-")) return std::nullopt;
  const auto month = take_digits(text, 2);
  if (!month || !take_any(text, "-")) return std::nullopt;
  const auto day = take_digits(text, 2);
  if (!day) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year{*year},
                                         std::chrono::month{static_cast<unsigned>(*month)},
                                         std::chrono::day{static_cast<unsigned>(*day)}};
  if (!date.ok()) return std::nullopt;
  return std::chrono::sys_days{date};
}

// ".5" is 500,000 us; no fraction at all is 0; digits beyond the sixth are cut off.
std::optional<microseconds> take_fraction(std::string_view& text) {
  if (!take_any(text, ".")) return microseconds{0};
  std::int64_t micros = 0;
  std::size_t digits = 0;
  while (!text.empty() && is_digit(text.front())) {
    if (digits < 6) micros = micros * 10 + (text.front() - '0');
    ++digits;
    text.remove_prefix(1);
  }
  if (digits == 0 || digits > 9) return std::nullopt;
  for (std::size_t i = digits; i < 6; ++i) micros *= 10;
  return microseconds{micros};
}

std::optional<microseconds> take_time_of_day(std::string_view& text) {
  const auto hour = take_digits(text, 2);
  if (!hour || !take_any(text, ":")) return std::nullopt;
  const auto minute = take_digits(text, 2);
  if (!minute || !take_any(text, ":")) return std::nullopt;
  const auto second = take_digits(text, 2);
  if (!second || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  const auto fraction = take_fraction(text);
  if (!fraction) return std::nullopt;
  return std::chrono::hours{*hour} + std::chrono::minutes{*minute} + std::chrono::seconds{*second} +
         *fraction;
}

std::optional<std::chrono::minutes> take_offset(std::string_view& text) {
  if (take_any(text, "Zz")) return std::chrono::minutes{0};
  const bool west = !text.empty() && text.front() == '-';
  if (!take_any(text, "+-")) return std::nullopt;
  const auto hours = take_digits(text, 2);
  if (!hours || !take_any(text, ":")) return std::nullopt;
  const auto minutes = take_digits(text, 2);
  if (!minutes || *hours > 23 || *minutes > 59) return std::nullopt;
  const std::chrono::minutes offset = std::chrono::hours{*hours} + std::chrono::minutes{*minutes};
  return west ? -offset : offset;
}

struct unit {
  std::string_view name;
  std::int64_t amount;
};

// Largest first: the parts of a duration come in this order.
constexpr std::array<unit, 8> duration_units{{{"w", 604'800'000'000'000},
                                              {"d", 86'400'000'000'000},
                                              {"h", 3'600'000'000'000},
                                              {"m", 60'000'000'000},
                                              {"s", 1'000'000'000},
                                              {"ms", 1'000'000},
                                              {"us", 1'000},
                                              {"ns", 1}}};

constexpr std::array<unit, 10> size_units{{{"TiB", std::int64_t{1} << 40},
                                           {"TB", 1'000'000'000'000},
                                           {"GiB", std::int64_t{1} << 30},
                                           {"GB", 1'000'000'000},
                                           {"MiB", std::int64_t{1} << 20},
                                           {"MB", 1'000'000},
                                           {"KiB", std::int64_t{1} << 10},
                                           {"kB", 1'000},
                                           {"KB", 1'000},
                                           {"B", 1}}};

struct amount_text {
  std::string_view whole, fraction, unit;
};

// Takes "1.5GiB" off the front: digits, perhaps a point and digits, then letters.
std::optional<amount_text> take_amount(std::string_view& text) {
  const auto take_while = [&text](auto holds) {
    std::size_t end = 0;
    while (end < text.size() && holds(text[end])) ++end;
    const std::string_view taken = text.substr(0, end);
    text.remove_prefix(end);
    return taken;
  };
  amount_text out;
  out.whole = take_while(is_digit);
  if (out.whole.empty()) return std::nullopt;
  if (take_any(text, ".")) {
    out.fraction = take_while(is_digit);
    if (out.fraction.empty()) return std::nullopt;
  }
  out.unit = take_while(is_letter);
  if (out.unit.empty()) return std::nullopt;
  return out;
}

std::optional<std::int64_t> whole_amount(std::string_view digits, std::int64_t unit_amount) {
  std::int64_t number = 0;
  for (char c : digits) {
    if (__builtin_mul_overflow(number, std::int64_t{10}, &number)) return std::nullopt;
    if (__builtin_add_overflow(number, std::int64_t{c - '0'}, &number)) return std::nullopt;
  }
  if (__builtin_mul_overflow(number, unit_amount, &number)) return std::nullopt;
  return number;
}

// The fraction of a duration's unit, in nanoseconds; nothing when that is not a whole number.
std::optional<std::int64_t> exact_fraction(std::string_view digits, std::int64_t unit_amount) {
  while (!digits.empty() && digits.back() == '0') digits.remove_suffix(1);
  std::int64_t sum = 0;
  for (char c : digits) {
    if (unit_amount % 10 != 0) return std::nullopt;
    unit_amount /= 10;
    sum += unit_amount * (c - '0');
  }
  return sum;
}

// The fraction of a size's unit, in bytes, rounded down. From the last digit to the first, so nothing
// overflows.
std::int64_t rounded_fraction(std::string_view digits, std::int64_t unit_amount) {
  std::int64_t sum = 0;
  for (auto c = digits.rbegin(); c != digits.rend(); ++c) sum = (sum + unit_amount * (*c - '0')) / 10;
  return sum;
}

// 1'500 of unit 1'000'000 is ".0015"; 0 is "".
std::string fraction_text(std::int64_t part, std::int64_t unit_amount) {
  std::string out;
  while (part > 0) {
    unit_amount /= 10;
    out += static_cast<char>('0' + part / unit_amount);
    part %= unit_amount;
  }
  return out.empty() ? out : "." + out;
}

}  // namespace

std::string format_time(timestamp t) {
  const auto day = std::chrono::floor<std::chrono::days>(t);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss<microseconds> time{t - day};
  std::array<char, 64> text{};
  const int length = std::snprintf(
      text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02d.%06dZ", static_cast<int>(date.year()),
      static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
      static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
      static_cast<int>(time.seconds().count()), static_cast<int>(time.subseconds().count()));
  return std::string(text.data(), static_cast<std::size_t>(length));
}

std::optional<timestamp> parse_time(std::string_view text) {
  const auto date = take_date(text);
  if (!date || !take_any(text, "Tt ")) return std::nullopt;
  const auto time = take_time_of_day(text);
  if (!time) return std::nullopt;
  const auto offset = take_offset(text);
  if (!offset || !text.empty()) return std::nullopt;
  const timestamp found = timestamp{*date} + *time - *offset;
  // Years have four digits, also once they are of UTC: what is read can be written.
  if (found < timestamp{std::chrono::sys_days{std::chrono::year{0} / 1 / 1}} || found >= timestamp{std::chrono::sys_days{std::chrono::year{10'000} / 1 / 1}})
    return std::nullopt;
  return found;
}

std::optional<nanoseconds> parse_duration(std::string_view text) {
  std::int64_t sum = 0;
  std::size_t next_unit = 0;
  do {
    const auto amount = take_amount(text);
    if (!amount) return std::nullopt;
    while (next_unit < duration_units.size() && duration_units[next_unit].name != amount->unit) ++next_unit;
    if (next_unit == duration_units.size()) return std::nullopt;
    const std::int64_t unit_amount = duration_units[next_unit++].amount;
    const auto whole = whole_amount(amount->whole, unit_amount);
    const auto fraction = exact_fraction(amount->fraction, unit_amount);
    if (!whole || !fraction) return std::nullopt;
    if (__builtin_add_overflow(sum, *whole, &sum) || __builtin_add_overflow(sum, *fraction, &sum)) {
      return std::nullopt;
    }
  } while (!text.empty());
  return nanoseconds{sum};
}

std::string format_duration(nanoseconds d) {
  std::int64_t left = d.count();
  if (left == 0) return "0s";
  if (left == std::numeric_limits<std::int64_t>::min()) ++left;  // its negation does not exist
  std::string out = left < 0 ? "-" : "";
  left = left < 0 ? -left : left;
  for (const unit& u : duration_units) {
    if (u.name == "w" || left < u.amount) continue;
    out += std::to_string(left / u.amount);
    left %= u.amount;
    const bool takes_the_rest = u.amount <= 1'000'000'000;  // seconds and smaller show a fraction
    if (takes_the_rest) return out.append(fraction_text(left, u.amount)).append(u.name);
    out += u.name;
  }
  return out;
}

std::optional<std::int64_t> parse_size(std::string_view text) {
  const auto amount = take_amount(text);
  if (!amount || !text.empty()) return std::nullopt;
  for (const unit& u : size_units) {
    if (u.name != amount->unit) continue;
    const auto whole = whole_amount(amount->whole, u.amount);
    std::int64_t sum = rounded_fraction(amount->fraction, u.amount);
    if (!whole || __builtin_add_overflow(sum, *whole, &sum)) return std::nullopt;
    return sum;
  }
  return std::nullopt;
}

std::string format_size(std::int64_t bytes) {
  std::string shortest = std::to_string(bytes) + "B";
  std::size_t digits = shortest.size() - 1;
  for (const unit& u : size_units) {
    if (bytes == 0 || bytes % u.amount != 0) continue;
    const std::string number = std::to_string(bytes / u.amount);
    if (number.size() >= digits) continue;
    digits = number.size();
    shortest = number + std::string(u.name);
  }
  return shortest;
}

}  // namespace penstock
