// What steps cost for each event: simdjson alone (the floor), a filter, a filter and a map, a dedupe, and
// intake from NDJSON, all on a 300-byte order, in one thread, in the same minute on the same machine. Prints
// events per second and the ratio to the floor; asserts nothing.
//
// Usage: bench_steps [events] [--lines]   (default 1000000)
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <time.h>

#include <simdjson.h>

#include "runtime/json.hpp"
#include "runtime/lua.hpp"
#include "tests/bench/figures.hpp"

namespace {

using namespace penstock;
using namespace penstock::runtime;

bool lines_only = false;  // figures for a program, no table

constexpr int batch_events = 1'000;

std::string order(int number) {
  const std::string n = std::to_string(100'000 + number);
  return "{\"id\":820982911946154508,\"order_id\":\"A" + n +
         "\",\"email\":\"jon@example.com\",\"created_at\":\"2018-02-07T09:41:00-05:00\",\"total_price\":"
         "\"403.00\","
         "\"total\":" +
         std::to_string(number % 10'000) +
         ".5,\"currency\":\"EUR\",\"financial_status\":\"paid\",\"customer\":{\"id\":115310627314723954,"
         "\"first_name\":\"John\",\"last_name\":\"Smith\"},\"tags\":[\"a\",\"b\"]}";
}

std::string orders() {
  std::string lines;
  for (int i = 0; i < batch_events; ++i) lines += order(i) + "\n";
  return lines;
}

batch read(const std::shared_ptr<const buffer>& body) {
  result<batch> events = read_events(body, intake_format::ndjson, {.source = "/bench", .now = wall_now()});
  if (!events) throw std::runtime_error(events.error().detail);
  return std::move(*events);
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Events per second of CPU time (so that other work on the machine matters little) of `work`, which handles
// one batch.
double rate(int events, const std::function<void()>& work) {
  work();
  const double start = cpu_seconds();
  for (int done = 0; done < events; done += batch_events) work();
  return events / (cpu_seconds() - start);
}

void print(const char* name, const char* what, double per_second, double floor) {
  if (lines_only) return penstock::testing::print_line(name, per_second, "events/s");
  std::printf("%-24s %10.0f events/s  %5.2f of simdjson alone\n", what, per_second, per_second / floor);
}

}  // namespace

int main(int argc, char** argv) {
  lines_only = penstock::testing::take_lines_option(argc, argv);
  const int events = argc > 1 ? std::atoi(argv[1]) : 1'000'000;
  const auto body = std::make_shared<const buffer>(orders());
  const batch source = read(body);
  std::int64_t kept = 0;

  simdjson::dom::parser parser;
  const double floor = rate(events, [&] {
    for (const event& e : source.events) {
      const auto parsed = parser.parse(e.data.data(), e.data.size(), false);
      kept += parsed.error() == simdjson::SUCCESS;
    }
  });
  if (!lines_only) std::printf("%zu bytes an event\n", source.payload_bytes() / source.size());
  print("simdjson", "simdjson alone", floor, floor);

  const lua_expression attributes("meta.type == 'event'");
  print("filter_meta", "filter on meta",
        rate(events,
             [&] {
               for (const event& e : source.events) kept += attributes.truth(e).value;
             }),
        floor);

  const lua_expression filter("event.total > 0");
  print("filter", "filter",
        rate(events,
             [&] {
               for (const event& e : source.events) kept += filter.truth(e).value;
             }),
        floor);

  const lua_mapping mapping(
      std::vector<std::pair<std::string, std::string>>{{"order_id", "event.order_id"},
                                                       {"customer", "event.customer.id"},
                                                       {"total", "tonumber(event.total_price)"},
                                                       {"status", "event.financial_status"}});
  std::string made;
  print("filter_map", "filter + map",
        rate(events,
             [&] {
               batch out;
               for (const event& e : source.events) {
                 if (!filter.truth(e).value) continue;
                 made.clear();
                 kept += mapping.apply(e, made).value;
                 out.keep(made);
               }
             }),
        floor);

  const lua_script script("event.total = event.total * 2");
  print("script", "script",
        rate(events / 10,
             [&] {
               for (const event& e : source.events)
                 kept += static_cast<std::int64_t>(script.run(e).value.size());
             }),
        floor);

  print("intake", "intake of NDJSON", rate(events, [&] { kept += static_cast<std::int64_t>(read(body).size()); }),
        floor);

  if (!lines_only) std::printf("(%lld)\n", static_cast<long long>(kept));
  return 0;
}
