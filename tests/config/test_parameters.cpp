#include <cmath>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "config/parameters.hpp"
#include "good_definitions.hpp"
#include "test_catalog.hpp"

namespace penstock::config {
namespace {

job job_with(const std::string& params) {
  const auto parsed =
      parse_pipeline("name: a\njobs: {j: {run: [x], params: " + params + "}}", testing::small_catalog());
  if (!parsed) FAIL(parsed.error().detail);
  return parsed->jobs.at("j");
}

std::string taken(const std::string& params, const std::string& given) {
  const auto out = check_parameters(job_with(params), value::parse(given));
  if (!out) FAIL(out.error().detail);
  return out->dump();
}

// "POINTER: DETAIL" of each problem.
std::vector<std::string> refused(const std::string& params, const std::string& given) {
  const auto out = check_parameters(job_with(params), value::parse(given));
  REQUIRE_FALSE(out.has_value());
  const error e = out.error();
  CHECK(e.code == errc::invalid);
  CHECK_FALSE(e.detail.empty());
  std::vector<std::string> all;
  for (const problem& p : e.problems) {
    CHECK(p.line == 0);
    all.push_back(p.pointer + ": " + p.detail);
  }
  return all;
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("a run gets all its parameters, in the declared order", "[config][parameters]") {
  const char* params = "{region: {default: eu, choices: [eu, us]}, count: {type: integer}, flag: true, tags: [a]}";
  CHECK(taken(params, R"({"count":3})") == R"({"region":"eu","count":3,"flag":true,"tags":["a"]})");
  CHECK(taken(params, R"({"tags":[],"flag":false,"count":-1,"region":"us"})") ==
        R"({"region":"us","count":-1,"flag":false,"tags":[]})");
  CHECK(taken("{a: 1}", "null") == R"({"a":1})");
  CHECK(taken("{}", "{}") == "{}");
}

TEST_CASE("a number is what it means, not how it is written", "[config][parameters]") {
  CHECK(taken("{n: {type: integer}}", R"({"n":3.0})") == R"({"n":3})");
  CHECK(taken("{n: {type: integer}}", R"({"n":-9223372036854775808})") == R"({"n":-9223372036854775808})");
  CHECK(taken("{n: {type: integer}}", R"({"n":1e3})") == R"({"n":1000})");
  CHECK(taken("{n: {type: integer, choices: [1, 2]}}", R"({"n":2.0})") == R"({"n":2})");
  CHECK(taken("{n: {type: number}}", R"({"n":3})") == R"({"n":3})");
  CHECK(taken("{n: {type: number}}", R"({"n":0.5})") == R"({"n":0.5})");
  CHECK(refused("{n: {type: integer}}", R"({"n":3.5})") == texts{"/params/n: must be an integer, not 3.5"});
  CHECK(refused("{n: {type: integer}}", R"({"n":9223372036854775808})").size() == 1);
  CHECK(refused("{n: {type: integer}}", R"({"n":1e300})").size() == 1);
  CHECK(parameter_fault(job_with("{n: {type: number}}").params.at(0), value(std::nan(""))));
}

TEST_CASE("what does not fit is named, all of it at once", "[config][parameters]") {
  CHECK(refused("{count: {type: integer}, flag: true}", R"({"count":"x","flag":1,"z":2})") ==
        texts{"/params/z: unknown parameter 'z'; known: count, flag", "/params/count: must be an integer, not \"x\"",
              "/params/flag: must be a boolean, not 1"});
  CHECK(refused("{region: {doc: Where}}", "{}") == texts{"/params/region: is missing: a string (Where)"});
  CHECK(refused("{region: }", R"({"regoin":"eu"})") ==
        texts{"/params/regoin: unknown parameter 'regoin'; did you mean 'region'?"});
  CHECK(refused("{}", R"({"a/b":1})") == texts{"/params/a~1b: unknown parameter 'a/b'; the job takes none"});
  CHECK(refused("{a: x}", R"({"a":null})") == texts{"/params/a: must be a string, not null"});
  CHECK(refused("{a: [1]}", R"({"a":{}})") == texts{"/params/a: must be a list, not {}"});
  CHECK(refused("{a: {type: object}}", R"({"a":[]})") == texts{"/params/a: must be an object, not []"});
  CHECK(refused("{a: {choices: [x, y]}}", R"({"a":"z"})") ==
        texts{"/params/a: must be one of \"x\", \"y\", not \"z\""});
  CHECK(refused("{a: {type: number, minimum: 0.5, maximum: 2}}", R"({"a":3})") ==
        texts{"/params/a: must be from 0.5 to 2, not 3"});
  CHECK(refused("{a: {type: string, maximum: 2}}", R"({"a":"äöü"})") ==
        texts{"/params/a: its number of characters must be at most 2, not 3"});
  CHECK(refused("{a: {type: list, minimum: 2}}", R"({"a":[1]})") ==
        texts{"/params/a: its number of items must be at least 2, not 1"});
  CHECK(refused("{}", "[1]") == texts{"/params: must be an object, not [1]"});
}

TEST_CASE("messages stay short and many faults are bounded", "[config][parameters]") {
  CHECK(refused("{a: {choices: [ä]}}", R"({"a":"中"})") == texts{"/params/a: must be one of \"ä\", not \"中\""});
  CHECK(refused("{a: 1}", "{\"a\":\"x" + std::string(29, '.') + "äääääääääääääääääääää\"}") ==
        texts{"/params/a: must be an integer, not \"x" + std::string(29, '.') + "ääääääääääääää…"});
  const value long_text{{"a", std::string(100'000, 'x')}};
  CHECK(check_parameters(job_with("{a: 1}"), long_text).error().detail.size() < 200);
  CHECK(check_parameters(job_with("{a: 1}"), value{{"a", "\xff\xfe"}}).error().problems.size() == 1);
  value many = value::object();
  for (int i = 0; i < 5'000; ++i) many["p" + std::to_string(i)] = 1;
  CHECK(check_parameters(job_with("{a: 1}"), many).error().problems.size() == 200);
}

TEST_CASE("a job that declares no parameters takes any", "[config][parameters]") {
  const auto parsed = parse_pipeline("name: a\njobs: {j: {run: [x]}}", testing::small_catalog());
  const job& free = parsed->jobs.at("j");
  CHECK(free.free_params);
  CHECK(check_parameters(free, value::parse(R"({"b":1,"a":[null]})"))->dump() == R"({"b":1,"a":[null]})");
  CHECK(check_parameters(free, nullptr)->dump() == "{}");
  CHECK_FALSE(check_parameters(free, value::parse("[]")).has_value());
  CHECK_FALSE(check_parameters(free, value("x")).has_value());
  CHECK_FALSE(job_with("{}").free_params);
  CHECK_FALSE(job_with("").free_params);
}

TEST_CASE("types are told by defaults and choices", "[config][parameters]") {
  const auto type_of = [](const std::string& one) { return token(job_with("{p: " + one + "}").params.at(0).type); };
  CHECK(type_of("x") == "string");
  CHECK(type_of("\"5\"") == "string");
  CHECK(type_of("5") == "integer");
  CHECK(type_of("5.5") == "number");
  CHECK(type_of("true") == "boolean");
  CHECK(type_of("[]") == "list");
  CHECK(type_of("") == "string");
  CHECK(type_of("{}") == "string");
  CHECK(type_of("{default: {a: 1}}") == "object");
  CHECK(type_of("{choices: [1, 2]}") == "integer");
  CHECK(type_of("{type: number, default: 1}") == "number");
  CHECK_FALSE(parse_parameter_type("int"));
  CHECK(parse_parameter_type("list") == parameter_type::list);

  const parameter version = job_with("{v: {type: string, default: 1.10, choices: [1.10, 2]}}").params.at(0);
  CHECK(version.fallback == value("1.10"));
  CHECK(version.choices == std::vector<value>{"1.10", "2"});
  CHECK(job_with("{n: {type: integer, default: 3.0}}").params.at(0).fallback->dump() == "3");
}

TEST_CASE("a parameter has its variable", "[config][parameters]") {
  CHECK(parameter_variable("max-age_2") == "PENSTOCK_PARAM_MAX_AGE_2");
  CHECK(parameter_variable("aZ.ä") == "PENSTOCK_PARAM_AZ___");
}

}  // namespace penstock::config
