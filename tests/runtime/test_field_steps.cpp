// The steps select, rename, cast and flatten: golden payloads, numbers to the last digit, and what is refused.
#include <string>

#include <catch2/catch.hpp>

#include "tests/runtime/one_step.hpp"

namespace test_field_steps {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::one_step;
using penstock::testing::texts;

TEST_CASE("select keeps only what is named, as it was written", "[steps]") {
  one_step b("select: [total, customer.name, none, customer.none.deep]");
  CHECK(b.payloads({R"({"id":1, "total": 1.0 ,"customer":{"id":7,"name":"\u00c5"}})", R"({"customer":5})", "{}"}) ==
        texts{R"({"total":1.0,"customer":{"name":"\u00c5"}})", "{}", "{}"});
  CHECK(b.out.died.empty());
  CHECK(b.payloads({"[1]", "{broken", "", "7"}).empty());
  CHECK(b.out.died.size() == 4);
  one_step one("select: id");
  CHECK(one.payloads({R"({"id":9007199254740993,"x":1})"}) == texts{R"({"id":9007199254740993})"});
  one_step both("select: [a, a.b]");
  CHECK(both.payloads({R"({"a":{"b":1,"c":2}})"}) == texts{R"({"a":{"b":1,"c":2}})"});
  CHECK_THROWS_WITH(one_step("select: [a..b]"), Contains("not a field"));
}

TEST_CASE("rename keeps order and values", "[steps]") {
  one_step b("rename: {old: new, a.x: y, inner.p: inner.q}");
  CHECK(b.payloads({R"({"first":1,"old":1.50,"a":{"x":"s","z":0},"inner":{"p":1,"r":2}})", R"({"first":1})"}) ==
        texts{R"({"first":1,"new":1.50,"a":{"z":0},"inner":{"q":1,"r":2},"y":"s"})", R"({"first":1})"});
  one_step swapped("rename: {a: b, b: a}");
  CHECK(swapped.payloads({R"({"a":1,"b":2})", R"({"a":1})"}) == texts{R"({"b":1,"a":2})", R"({"b":1})"});
}

TEST_CASE("rename loses nothing", "[steps]") {
  one_step b("rename: {old: new}");
  CHECK(b.payloads({R"({"old":1,"new":2})", R"({"new":2})"}) == texts{R"({"new":2})"});
  CHECK_THAT(b.reason(), Contains("'new' already"));
  one_step into("rename: {x: a.b}");
  CHECK(into.payloads({R"({"x":1})", R"({"x":1,"a":5})"}) == texts{R"({"a":{"b":1}})"});
  CHECK_THAT(into.reason(), Contains("no room for 'a.b'"));
  CHECK_THROWS_WITH(one_step("rename: {a: c, b: c}"), Contains("two fields"));
}

TEST_CASE("cast to numbers and integers", "[steps]") {
  one_step b("cast: {n: number, i: integer}");
  CHECK(b.payloads({R"({"n":"1.50","i":"42"})", R"({"n":1.50,"i":5.0})", R"({"n":" -007 ","i":"+3"})",
                    R"({"n":".5","i":1e3})", R"({"n":18446744073709551615,"i":"18446744073709551615"})",
                    R"({"n":null})", R"({"n":"123456789012345678901","i":"-9223372036854775808"})"}) ==
        texts{R"({"n":1.50,"i":42})", R"({"n":1.50,"i":5})", R"({"n":-7,"i":3})", R"({"n":0.5,"i":1000})",
              R"({"n":18446744073709551615,"i":18446744073709551615})", R"({"n":null})",
              R"({"n":123456789012345683968.0,"i":-9223372036854775808})"});
  CHECK(b.out.died.empty());
  for (const char* bad : {R"({"n":"abc"})", R"({"n":""})", R"({"n":true})", R"({"n":[1]})", R"({"n":"nan"})", R"({"n":"inf"})",
                          R"({"n":"0x10"})", R"({"n":"1 2"})", R"({"i":1.5})", R"({"i":"1.5"})", R"({"i":1e300})",
                          R"({"i":"99999999999999999999"})", R"({"n":"1e999"})"}) {
    INFO(bad);
    CHECK(b.payloads({bad}).empty());
  }
  CHECK(b.out.died.size() == 13);
  CHECK(b.out.died[0].second == "'n': \"abc\" is no number");
}

TEST_CASE("cast to booleans, texts and times", "[steps]") {
  one_step b("cast: {ok: boolean, s: string, at: time, deep.ok: boolean}");
  CHECK(b.payloads({R"({"ok":"Yes","s":1.0,"deep":{"ok":0,"x":1.10}})", R"({"ok":false,"s":{"a": 1}})",
                    R"({"s":"a\"b","ok":1})", R"({"s":true})"}) ==
        texts{R"({"ok":true,"s":"1.0","deep":{"ok":false,"x":1.10}})", R"({"ok":false,"s":"{\"a\": 1}"})",
              R"({"s":"a\"b","ok":true})", R"({"s":"true"})"});
  const std::string day = R"({"at":"2018-02-07T00:00:00.000000Z"})";
  CHECK(b.payloads({R"({"at":"2018-02-07T01:00:00+01:00"})", R"({"at":"2018-02-07"})", R"({"at":"2018-02-07 00:00:00"})",
                    R"({"at":1517961600})", R"({"at":1517961600000})", R"({"at":"1517961600000000"})"}) ==
        texts{day, day, day, day, day, day});
  CHECK(b.out.died.empty());
  CHECK(b.payloads({R"({"ok":"maybe"})", R"({"ok":2})", R"({"at":"yesterday"})", R"({"at":true})", R"({"at":1e300})",
                    R"({"at":"2018-02-30"})"})
            .empty());
  CHECK(b.out.died.size() == 6);
}

TEST_CASE("flatten brings all to one level", "[steps]") {
  one_step b("flatten: {}");
  CHECK(b.payloads({R"({"a":{"b":1.0,"c":{"d":"x"}},"l":[2,{"e":3}],"n":null,"o":{},"p":[]})"}) ==
        texts{R"({"a_b":1.0,"a_c_d":"x","l_0":2,"l_1_e":3,"n":null,"o":{},"p":[]})"});
  CHECK(b.payloads({R"({"a":{"b":1},"a_b":2})", "[{}]", "{}"}) == texts{"{}"});
  REQUIRE(b.out.died.size() == 2);
  CHECK_THAT(b.out.died[0].second, Contains("'a_b'"));
  one_step dots("flatten: {separator: .}");
  CHECK(dots.payloads({R"({"a":{"\"b":1}})"}) == texts{R"({"a.\"b":1})"});
}

TEST_CASE("flatten of names that would grow without end", "[steps]") {
  // 60 levels with a long name each, and many values at the bottom.
  one_step b("flatten: {}");
  std::string open, close, values;
  for (int i = 0; i < 60; ++i) {
    open += "{\"" + std::string(5000, 'x') + "\":";
    close += "}";
  }
  for (int i = 0; i < 1000; ++i) values += (i ? ",\"" : "{\"") + std::to_string(i) + "\":1";
  CHECK(b.payloads({open + values + "}" + close, R"({"a":1})"}) == texts{R"({"a":1})"});
  CHECK_THAT(b.reason(), Contains("16MiB"));
}

}  // namespace test_field_steps
