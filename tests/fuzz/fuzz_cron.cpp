// Cron expressions: a firing is always later than the moment asked about, and of the expression's own.
// Input: the expression, a time zone, an RFC 3339 time; one a line.
#include <string>

#include "config/cron_expression.hpp"
#include "config/time.hpp"
#include "scheduler/cron.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

constexpr std::string_view zones[] = {"UTC", "Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"};

std::string zone_named(std::string_view name) {
  for (const std::string_view known : zones) {
    if (name == known) return std::string(known);
  }
  return std::string(zones[name.size() % std::size(zones)]);
}

// Of what the expression says, by the clock of the zone.
void check_place(const config::cron_expression& cron, const scheduler::firing& seen) {
  if (seen.shift == scheduler::clock_shift::skipped) return;
  const auto local = seen.at + seen.offset;
  const auto day = std::chrono::floor<std::chrono::days>(local);
  const std::chrono::year_month_day date{day};
  const auto second = std::chrono::duration_cast<std::chrono::seconds>(local - day).count();
  require(cron.seconds[static_cast<std::size_t>(second % 60)], "it fires at a second of the expression");
  require(cron.minutes[static_cast<std::size_t>(second / 60 % 60)], "it fires at a minute of the expression");
  require(cron.hours[static_cast<std::size_t>(second / 3600)], "it fires at an hour of the expression");
  require(cron.months[static_cast<unsigned>(date.month())], "it fires in a month of the expression");
  const bool on_day = cron.days[static_cast<unsigned>(date.day())];
  const bool on_weekday = cron.weekdays[std::chrono::weekday{day}.c_encoding()];
  const bool both = cron.any_day || cron.any_weekday;
  require(both ? on_day && on_weekday : on_day || on_weekday, "it fires on a day of the expression");
}

}  // namespace

void try_input(std::string_view text) {
  const std::string_view expression = take_line(text);
  const std::string zone = zone_named(take_line(text));
  const auto cron = config::parse_cron(expression);
  if (!cron) {
    require(!cron.error().detail.empty(), "a refusal says why");
    return;
  }
  const auto again = config::parse_cron(expression);
  require(again && *again == *cron, "an expression means the same each time");
  // Calendars of zones end somewhere, and so does ours.
  timestamp now = parse_time(take_line(text)).value_or(from_micros(1'774'000'000'000'000));
  if (now < *parse_time("1970-01-01T00:00:00Z") || now > *parse_time("2200-01-01T00:00:00Z")) return;
  for (int i = 0; i < 5; ++i) {
    const auto next = scheduler::next_firing(*cron, zone, now);
    if (!next) return;
    require(*next > now, "the next firing is later", std::string(expression) + " " + format_time(now) + " " + format_time(*next));
    require(*next <= now + std::chrono::days{3660}, "the next firing is within ten years");
    const scheduler::firing seen = scheduler::seen_locally(*cron, zone, *next);
    check_place(*cron, seen);
    require(parse_time(scheduler::format_local(seen)) == next, "what is shown is the same instant", scheduler::format_local(seen));
    // A moment before it, it is still the next one.
    require(scheduler::next_firing(*cron, zone, *next - std::chrono::microseconds{1}) == next, "no firing is passed over");
    now = *next;
  }
}

}  // namespace penstock::fuzz
