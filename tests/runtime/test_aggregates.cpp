// Aggregates and watermark by themselves: against figures from numpy and Python's statistics module, at the borders of
// numbers, through joins, and through their stored form in every division into rows.
#include <cmath>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/aggregates.hpp"
#include "runtime/watermark.hpp"

namespace test_aggregates {

using namespace penstock::runtime;
using Catch::Matchers::Contains;
using kind = aggregate_kind;
using texts = std::vector<std::string>;

namespace {

// One of everything over the column x.
std::vector<aggregate_use> everything() {
  return {{"events", kind::events},       {"count", kind::count, "x"},   {"first", kind::first, "x"},
          {"last", kind::last, "x"},      {"min", kind::min, "x"},       {"max", kind::max, "x"},
          {"sum", kind::sum, "x"},        {"mean", kind::mean, "x"},     {"stddev", kind::stddev, "x"},
          {"distinct", kind::distinct, "x"}, {"p50", kind::percentile, "x", 50}, {"p95", kind::percentile, "x", 95},
          {"all", kind::collect, "x"}};
}

// A plan over one column and one state of it.
struct one_window {
  explicit one_window(std::vector<aggregate_use> uses) : plan(std::move(uses)), state(plan.begin()) {}
  explicit one_window(kind k, double at = 50) : one_window({{"r", k, "x", at}}) {}

  // `null` is nil. Returns what is wrong.
  std::string add(const std::string& json, std::int64_t time = 0) {
    std::vector<aggregate_value> values(plan.columns().size());
    for (auto& value : values) value.json = json == "null" ? std::string_view() : std::string_view(json);
    std::string wrong = plan.check(values);
    if (wrong.empty()) plan.add(state, values, time);
    return wrong;
  }
  one_window& add_all(const texts& all) {
    for (const auto& json : all) REQUIRE(add(json) == "");
    return *this;
  }
  nlohmann::json results() const {
    std::string out;
    plan.append_result(out, state);
    out[0] = '{';
    return nlohmann::json::parse(out + "}");
  }
  std::string result() const {
    std::string out;
    plan.append_result(out, state);
    return out.substr(out.find(':') + 1);
  }

  aggregate_plan plan;
  aggregate_state state;
};

std::string result_of(kind k, const texts& values, double at = 50) { return one_window(k, at).add_all(values).result(); }

bool near(const nlohmann::json& found, double wanted) {
  return std::abs(found.get<double>() - wanted) <= 1e-12 * std::max(1.0, std::abs(wanted));
}

}  // namespace

TEST_CASE("numbers are read and written as JSON has them", "[aggregates]") {
  CHECK(number_of("12")->whole);
  CHECK(number_of("-9223372036854775808")->integer == INT64_MIN);
  CHECK_FALSE(number_of("9223372036854775808")->whole);
  CHECK_FALSE(number_of("1.0")->whole);
  CHECK(number_of("1e3")->real == 1000);
  for (const char* not_one : {"", "\"1\"", "true", "null", "[1]", "{}", "-", "nan", "inf", "+1", "1x"}) {
    INFO(not_one);
    CHECK_FALSE(number_of(not_one));
  }
  std::string out, memory;
  append_number(out, 2);
  append_number(out += ' ', 0.1);
  append_number(out += ' ', 1e300);
  append_number(out += ' ', std::nan(""));
  append_number(out += ' ', HUGE_VAL);
  CHECK(out == "2.0 0.1 1e+300 null null");
  CHECK(canonical("1.0", memory) == "1");
  CHECK(canonical("1e2", memory) == "100");
  CHECK(canonical("-0.0", memory) == "0");
  CHECK(canonical("-0", memory) == "0");
  CHECK(canonical("\"1.0\"", memory) == "\"1.0\"");
  CHECK(canonical("0.50", memory) == "0.5");
  CHECK(canonical("1e30", memory) == canonical("1000000000000000000000000000000.0", out));
}

TEST_CASE("figures agree with numpy and statistics", "[aggregates]") {
  // x = [3.5, 1, 4, 1, 5.25, 9, 2, 6]: numpy.percentile(x, [50, 95, 99, 10]), statistics.stdev(x), math.fsum(x)
  one_window w(everything());
  w.add_all({"3.5", "1", "4", "1", "5.25", "9", "2", "6"});
  const nlohmann::json r = w.results();
  CHECK(r["events"] == 8);
  CHECK(r["count"] == 8);
  CHECK(r["min"].dump() == "1");
  CHECK(r["max"].dump() == "9");
  CHECK(r["sum"] == 31.75);
  CHECK(near(r["mean"], 3.96875));
  CHECK(near(r["stddev"], 2.746548158273269));
  CHECK(r["distinct"] == 7);
  CHECK(r["p50"] == 3.75);
  CHECK(near(r["p95"], 7.95));
  CHECK(r["all"].dump() == "[3.5,1,4,1,5.25,9,2,6]");
  CHECK(result_of(kind::percentile, {"1", "2", "3", "4"}, 0) == "1.0");
  CHECK(result_of(kind::percentile, {"4", "3", "2", "1"}, 100) == "4.0");
  CHECK(result_of(kind::percentile, {"4", "3", "2", "1"}, 25) == "1.75");
  CHECK(result_of(kind::percentile, {"7"}, 99) == "7.0");
}

TEST_CASE("no value, nil and false", "[aggregates]") {
  one_window w(everything());
  CHECK(w.results().dump() ==
        R"({"all":[],"count":0,"distinct":0,"events":0,"first":null,"last":null,"max":null,"mean":null,"min":null,"p50":null,"p95":null,"stddev":null,"sum":null})");
  w.add_all({"null", "null"});
  CHECK(w.results()["events"] == 2);
  CHECK(w.results()["count"] == 0);
  CHECK(w.results()["sum"] == nullptr);
  CHECK(result_of(kind::count, {"true", "false", "0", "null", "\"\""}) == "3");
  CHECK(result_of(kind::stddev, {"5"}) == "null");
  CHECK(result_of(kind::stddev, {"5", "5"}) == "0.0");
  CHECK(result_of(kind::mean, {"5", "null", "6"}) == "5.5");
}

TEST_CASE("whole numbers stay exact, sums of fractions are compensated", "[aggregates]") {
  CHECK(result_of(kind::sum, {"9007199254740993", "1", "-1"}) == "9007199254740993");
  CHECK(result_of(kind::sum, {"9223372036854775806", "1"}) == "9223372036854775807");
  CHECK(result_of(kind::sum, {"9223372036854775807", "1"}) == "9223372036854775808.0");
  CHECK(result_of(kind::sum, {"1", "2.0"}) == "3.0");
  CHECK(result_of(kind::sum, texts(10, "0.1")) == "1.0");
  CHECK(result_of(kind::sum, {"1e100", "1.0", "-1e100"}) == "1.0");
  CHECK(result_of(kind::sum, {"1e308", "1e308"}) == "null");
  CHECK(result_of(kind::max, {"9007199254740992.0", "9007199254740993"}) == "9007199254740993");
  CHECK(result_of(kind::max, {"1", "1.0"}) == "1");
  CHECK(result_of(kind::min, {"-1.5", "-1", "2"}) == "-1.5");
  texts far;
  for (int i = 0; i < 1000; ++i) far.push_back(std::to_string(1'000'000'000 + i % 2) + ".0");
  CHECK(std::abs(std::stod(result_of(kind::stddev, far)) - 0.500250187) < 1e-8);
}

TEST_CASE("first and last follow the time, then the arrival", "[aggregates]") {
  one_window w({{"first", kind::first, "x"}, {"last", kind::last, "x"}});
  w.add("\"b\"", 20);
  w.add("\"a\"", 10);
  w.add("\"c\"", 30);
  w.add("\"a2\"", 10);
  w.add("\"c2\"", 30);
  w.add("null", 5);
  w.add("{\"x\":[1]}", 29);
  CHECK(w.results().dump() == R"({"first":"a","last":"c2"})");
}

TEST_CASE("distinct knows equal numbers and keeps kinds apart", "[aggregates]") {
  CHECK(result_of(kind::distinct, {"1", "1.0", "1e0", "\"1\"", "true", "\"true\"", "[1]", "[1]", "{}", "null"}) == "6");
}

TEST_CASE("what is no number is refused before anything has changed", "[aggregates]") {
  one_window w(everything());
  w.add_all({"1", "2"});
  const std::string before = w.results().dump();
  CHECK_THAT(w.add("\"3\""), Contains("min: a number is needed, not \"3\""));
  CHECK_THAT(w.add("\"" + std::string(99, 'x') + "\xC3\xA4\""), Contains("…") && !Contains("\xC3\xE2"));
  CHECK(w.add("true") != "");
  CHECK(w.results().dump() == before);
  CHECK(result_of(kind::collect, {"\"3\"", "{}"}) == "[\"3\",{}]");
}

TEST_CASE("percentiles of one expression share their values", "[aggregates]") {
  const aggregate_plan plan({{"p50", kind::percentile, "x", 50},
                             {"p95", kind::percentile, "x", 95},
                             {"other", kind::percentile, "y", 95},
                             {"n", kind::events}});
  CHECK(plan.columns().size() == 2);
  CHECK(plan.begin().size() == 3);
}

TEST_CASE("joined states are as if all had been added to one", "[aggregates]") {
  const texts early{"1", "2.5", "null", "7"}, late{"4", "2.5", "-3", "1e3"};
  for (const bool none_early : {false, true}) {
    one_window a(everything()), b(everything()), both(everything());
    std::int64_t time = 0;
    if (!none_early) {
      for (const auto& json : early) a.add(json, ++time), both.add(json, time);
    }
    for (const auto& json : late) b.add(json, ++time), both.add(json, time);
    CHECK(a.plan.can_join(a.state, b.state, 20));
    CHECK_FALSE(a.plan.can_join(a.state, b.state, 3));
    a.plan.join(a.state, std::move(b.state));
    nlohmann::json found = a.results(), wanted = both.results();
    for (const char* const rounded : {"mean", "stddev"}) {
      CHECK(near(found[rounded], wanted[rounded]));
      found.erase(rounded);
      wanted.erase(rounded);
    }
    CHECK(found == wanted);
  }
}

TEST_CASE("lists are bounded", "[aggregates]") {
  for (const kind k : {kind::collect, kind::percentile, kind::distinct}) {
    one_window w(k);
    w.add_all({"1", "2", "3"});
    const std::vector<aggregate_value> more{{"4", *number_of("4")}}, known{{"2.0", *number_of("2.0")}}, nil{{}};
    CHECK(w.plan.has_room(w.state, more, 4));
    CHECK_FALSE(w.plan.has_room(w.state, more, 3));
    CHECK(w.plan.has_room(w.state, nil, 3));
    CHECK(w.plan.has_room(w.state, known, 3) == (k == kind::distinct));
  }
}

TEST_CASE("a state comes back from its rows as it was", "[aggregates]") {
  // One row of values after each event, after every second, after all: the lists must not depend on it.
  for (const int every : {1, 2, 100}) {
    one_window w(everything()), again(everything());
    std::vector<std::string> value_rows;
    std::string row;
    const texts values{"1", "null", "2.5", "1.0", "9223372036854775807", "-4", "1"};
    for (std::size_t i = 0; i < values.size(); ++i) {
      w.add(values[i], static_cast<std::int64_t>(i));
      if ((i + 1) % static_cast<std::size_t>(every) != 0 && i + 1 < values.size()) continue;
      std::string added;
      state_writer list(added);
      if (w.plan.append_unsaved(list, w.state)) value_rows.push_back(added);
      CHECK_FALSE(w.plan.append_unsaved(list, w.state));
    }
    state_writer out(row);
    w.plan.write(out, w.state);

    state_reader in(row);
    again.state = again.plan.read(in);
    in.end();
    for (const auto& values_row : value_rows) {
      state_reader list(values_row);
      again.plan.read_values(list, again.state);
    }
    again.plan.check_complete(again.state);
    CHECK(again.results() == w.results());
    CHECK(again.plan.kept_bytes(again.state) == w.plan.kept_bytes(w.state));
    w.add("77.5", 50);
    again.add("77.5", 50);
    CHECK(again.results() == w.results());
  }
}

TEST_CASE("damaged rows are refused", "[aggregates]") {
  one_window w(everything());
  w.add_all({"1", "2"});
  std::string row, list;
  state_writer out(row), values(list);
  w.plan.write(out, w.state);
  w.plan.append_unsaved(values, w.state);
  for (std::size_t length = 0; length < row.size(); ++length) {
    state_reader in(std::string_view(row).substr(0, length));
    CHECK_THROWS_WITH(w.plan.read(in), Contains("damaged"));
  }
  for (std::size_t length = 0; length < list.size(); ++length) {
    state_reader in(row), part(std::string_view(list).substr(0, length));
    aggregate_state state = w.plan.read(in);
    CHECK_THROWS_WITH(w.plan.check_complete(state), Contains("damaged"));
    CHECK_THROWS_WITH(w.plan.read_values(part, state), Contains("damaged"));
  }
}

TEST_CASE("the watermark follows events, and the clock when none come", "[aggregates][watermark]") {
  constexpr std::int64_t s = 1'000'000;
  watermark mark(5 * s, 60 * s);
  CHECK_FALSE(mark.wake_at(100));
  CHECK_FALSE(mark.tick(1'000'000 * s, 100));
  mark.heard(1'000 * s);
  mark.saw(100 * s);
  mark.saw(50 * s);
  CHECK(mark.at() == 95 * s);
  CHECK(mark.wake_at(100 * s) == 1'060 * s);   // 5 s are missing, but it is not idle before
  CHECK(mark.wake_at(300 * s) == 1'205 * s);
  CHECK_FALSE(mark.tick(1'059 * s, 100 * s));
  CHECK(mark.tick(1'060 * s, 100 * s));
  CHECK(mark.at() == 155 * s);
  CHECK(mark.wake_at(160 * s) == 1'065 * s);   // idle already: as soon as it is due
  CHECK(mark.tick(1'065 * s, 160 * s));
  CHECK(mark.at() == 160 * s);
  mark.heard(1'070 * s);
  CHECK(mark.wake_at(161 * s) == 1'130 * s);
}

TEST_CASE("time in which the daemon was down is not idle time", "[aggregates][watermark]") {
  constexpr std::int64_t s = 1'000'000;
  watermark mark(0, 60 * s);
  mark.heard(1'000 * s);
  mark.saw(100 * s);
  const std::int64_t much_later = 50'000 * s;
  CHECK_FALSE(mark.tick(much_later, 400 * s));
  CHECK(mark.at() == 100 * s);
  CHECK(mark.wake_at(400 * s) == much_later + 60 * s);
  std::string row;
  state_writer out(row);
  mark.write(out);
  watermark again(0, 60 * s);
  state_reader in(row);
  again.read(in);
  CHECK(again.tick(much_later + 60 * s, 400 * s));
  CHECK(again.at() >= 400 * s);
}

}  // namespace test_aggregates
