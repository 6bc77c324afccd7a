#include "config/cron_expression.hpp"

#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

#include "config/in_quotes.hpp"

namespace penstock::config {
namespace {

struct field_rule {
  std::string_view name;
  int first, last;
  std::vector<std::string> names;  // names[i] stands for first + i
};

const std::vector<field_rule>& rules() {
  static const std::vector<field_rule> all{
      {"second", 0, 59, {}},
      {"minute", 0, 59, {}},
      {"hour", 0, 23, {}},
      {"day", 1, 31, {}},
      {"month", 1, 12, {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
      {"weekday", 0, 7, {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}}};
  return all;
}

const std::map<std::string, std::string, std::less<>>& macros() {
  static const std::map<std::string, std::string, std::less<>> all{
      {"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
      {"@weekly", "0 0 * * 0"},   {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
      {"@annually", "0 0 1 1 *"},
  };
  return all;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && separators.find(text[i]) == std::string_view::npos) continue;
    parts.push_back(text.substr(begin, i - begin));
    begin = i + 1;
  }
  return parts;
}

error wrong(const field_rule& rule, const std::string& detail) {
  return error{errc::invalid, std::string(rule.name) + ": " + detail};
}

std::string range_of(const field_rule& rule) {
  return std::to_string(rule.first) + " to " + std::to_string(rule.last);
}

result<int> parse_number(std::string_view text, const field_rule& rule) {
  for (std::size_t i = 0; i < rule.names.size(); ++i) {
    if (lower(text) == rule.names[i]) return rule.first + static_cast<int>(i);
  }
  int number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = failed == std::errc{} && end == text.data() + text.size();
  if (whole && number >= rule.first && number <= rule.last) return number;
  if (!whole && failed != std::errc::result_out_of_range && !rule.names.empty()) {
    return wrong(rule, in_quotes(text) + " is neither a number nor a name such as " + rule.names[1]);
  }
  return wrong(rule, in_quotes(text) + " is not a number from " + range_of(rule));
}

struct steps {
  int from, to, by;
};

// "*", "5", "1-5", each perhaps with "/2". "5/2" means from 5 to the end.
result<steps> parse_part(std::string_view part, const field_rule& rule) {
  const auto slash = part.find('/');
  const std::string_view range = part.substr(0, slash);
  const bool is_weekday = rule.name == "weekday";
  // Seven is only another word for Sunday: an open range ends at Saturday, and fri-sun ends at seven.
  steps out{rule.first, is_weekday ? 6 : rule.last, 1};
  if (slash != part.npos) {
    const field_rule step_rule{rule.name, 1, rule.last, {}};
    const auto by = parse_number(part.substr(slash + 1), step_rule);
    if (!by)
      return wrong(rule, "the step in " + in_quotes(part) + " is not a number from " + range_of(step_rule));
    out.by = *by;
  }
  const bool star = range == "*" || (range == "?" && (rule.name == "day" || is_weekday));
  if (star) return out;
  const auto dash = range.find('-');
  const auto from = parse_number(range.substr(0, dash), rule);
  if (!from) return from.error();
  out.from = *from;
  if (dash == range.npos) {
    if (slash == part.npos) out.to = out.from;
    return out;
  }
  const auto to = parse_number(range.substr(dash + 1), rule);
  if (!to) return to.error();
  out.to = is_weekday && *to == 0 ? 7 : *to;
  if (out.from > out.to) {
    return wrong(rule, "the range " + in_quotes(range) + " runs backwards; write two ranges with a comma");
  }
  return out;
}

// Which numbers a field matches, as bits.
result<std::bitset<60>> parse_field(std::string_view text, const field_rule& rule) {
  std::bitset<60> out;
  for (std::string_view part : split(text, ",")) {
    if (part.empty()) return wrong(rule, "something is missing in " + in_quotes(text));
    const auto range = parse_part(part, rule);
    if (!range) return range.error();
    for (int i = range->from; i <= range->to; i += range->by) {
      out.set(static_cast<std::size_t>(rule.name == "weekday" ? i % 7 : i));
    }
  }
  return out;
}

template <std::size_t size>
std::bitset<size> narrowed(const std::bitset<60>& wide) {
  std::bitset<size> out;
  for (std::size_t i = 0; i < size; ++i) out[i] = wide[i];
  return out;
}

// Some day of the year fits, leap years counted. Weekdays come round on every date.
bool ever_matches(const cron_expression& cron) {
  if (!cron.any_day && !cron.any_weekday) return true;  // either may match, and each weekday comes
  constexpr std::array<std::size_t, 13> longest{0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  for (std::size_t month = 1; month <= 12; ++month) {
    for (std::size_t day = 1; cron.months[month] && day <= longest[month]; ++day) {
      if (cron.days[day]) return true;
    }
  }
  return false;
}

result<std::string> without_macro(std::string_view text) {
  if (!text.starts_with('@')) return std::string(text);
  if (const auto found = macros().find(lower(text)); found != macros().end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [name, meaning] : macros()) names.push_back(name);
  return error{errc::invalid, "unknown schedule " + in_quotes(text) + "; " + suggestion(text, names)};
}

bool begins_with_star(std::string_view field) { return field.starts_with('*') || field.starts_with('?'); }

}  // namespace

result<cron_expression> parse_cron(std::string_view text) {
  const auto plain = without_macro(text);
  if (!plain) return plain.error();
  std::vector<std::string_view> fields;
  for (std::string_view part : split(*plain, " \t")) {
    if (!part.empty()) fields.push_back(part);
  }
  if (fields.size() != 5 && fields.size() != 6) {
    return error{errc::invalid,
                 in_quotes(text) + " has " + std::to_string(fields.size()) +
                     " fields; a cron expression has five (minute hour day month weekday) or six "
                     "(second first)"};
  }
  if (fields.size() == 5) fields.insert(fields.begin(), "0");
  std::array<std::bitset<60>, 6> sets;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const auto parsed = parse_field(fields[i], rules()[i]);
    if (!parsed) return parsed.error();
    sets[i] = *parsed;
  }
  cron_expression out{.text = std::string(text),
                      .seconds = sets[0],
                      .minutes = sets[1],
                      .hours = narrowed<24>(sets[2]),
                      .days = narrowed<32>(sets[3]),
                      .months = narrowed<13>(sets[4]),
                      .weekdays = narrowed<7>(sets[5]),
                      .any_day = begins_with_star(fields[3]),
                      .any_weekday = begins_with_star(fields[5])};
  if (!ever_matches(out))
    return error{errc::invalid, in_quotes(text) + " never comes: no such day in any year"};
  return out;
}

}  // namespace penstock::config
