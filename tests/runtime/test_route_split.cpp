// The steps route and split: where each event goes, what each item becomes, and what is wrong with those that die.
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/runtime/one_step.hpp"

namespace test_route_split {

using namespace penstock;
using namespace penstock::runtime;
using Catch::Matchers::Contains;
using penstock::testing::one_step;
using penstock::testing::texts;

using pairs = std::vector<std::pair<std::string, std::string>>;

TEST_CASE("route sends to the first output whose condition holds", "[steps]") {
  one_step b("route: {big: event.total > 5000, eu: event.region == 'eu'}", {"big", "eu"});
  const batch left = b.process(one_step::events_of({R"({"total":9000,"region":"eu"})", R"({"total":1,"region":"eu"})",
                                                    R"({"total":1,"region":"us"})", R"({"region":"us"})", "{broken"}));
  CHECK(b.out.sent == pairs{{"big", "a"}, {"eu", "b"}});
  CHECK(b.out.sent_positions == std::vector<std::int64_t>{1, 2});
  CHECK(one_step::ids_of(left) == texts{"c"});
  REQUIRE(b.out.died.size() == 2);
  CHECK(b.out.died[0].first == "d");
  CHECK_THAT(b.out.died[0].second, Contains("big: ") && Contains("nil"));
  CHECK(b.out.died[1].first == "e");
  CHECK(b.one->stateless());
}

TEST_CASE("route to all that match, and nowhere when one condition fails", "[steps]") {
  one_step b("route: {to: {all_of_them: event.n ~= nil, odd: event.n % 2 == 1}, all: true}", {"all_of_them", "odd"});
  const batch left = b.process(one_step::events_of({R"({"n":1})", R"({"n":2})", R"({"n":{}})", "{}"}));
  CHECK(b.out.sent == pairs{{"all_of_them", "a"}, {"odd", "a"}, {"all_of_them", "b"}});
  CHECK(left.empty());
  REQUIRE(b.out.died.size() == 2);  // arithmetic on a table, and on nil
  CHECK_THAT(b.out.died[0].second, Contains("odd: "));
}

TEST_CASE("route's order is the one written", "[steps]") {
  one_step b("route: {zebra: event.n > 0, aardvark: event.n > 0}", {"zebra", "aardvark"});
  b.payloads({R"({"n":1})"});
  CHECK(b.out.sent == pairs{{"zebra", "a"}});
}

TEST_CASE("route is refused without conditions or with impossible names", "[steps]") {
  CHECK_THROWS_WITH(one_step("route: {}"), Contains("'to' is missing"));
  CHECK_THROWS_WITH(one_step("route: {Big: event.n > 1}", {"big"}), Contains("not a name"));
  CHECK_THROWS_WITH(one_step("route: {big: 'event.n >'}", {"big"}), Contains("not valid Lua"));
  CHECK_THROWS_WITH(one_step("route: {to: {big: event.n > 1}, al: true}", {"big"}), Contains("'all'"));
}

TEST_CASE("split makes an event of each item, with the text it had", "[steps]") {
  one_step b("split: event.items");
  const batch left = b.process(one_step::events_of({R"({"items":[{"n": 1.0, "s":"\u00e9"}, 2.50 ,"x",null,[1]]})"}));
  CHECK(one_step::payloads_of(left) == texts{R"({"n": 1.0, "s":"\u00e9"})", "2.50", "\"x\"", "null", "[1]"});
  CHECK(one_step::ids_of(left) == texts{"a/0", "a/1", "a/2", "a/3", "a/4"});
  for (const event& e : left.events) {
    CHECK(e.position == 1);
    CHECK(e.key == "k");
    CHECK(e.type == "made");
  }
}

TEST_CASE("split keeps fields of the whole beside the item", "[steps]") {
  one_step b("split: {items: event.items, keep: {order_id: event.id, n: event.total * 2}}");
  CHECK(b.payloads({R"({"id":7,"total":1.5,"items":[{"n":1,"sku":"x"},{}]})"}) ==
        texts{R"({"n":3.0,"sku":"x","order_id":7})", R"({"order_id":7,"n":3.0})"});
  CHECK(b.payloads({R"({"id":7,"total":1,"items":[{"a":1},5]})"}).empty());  // whole or not at all
  CHECK_THAT(b.reason(), Contains("item 1") && Contains("`into`"));
}

TEST_CASE("split puts items into a field", "[steps]") {
  one_step b("split: {items: event.items, into: item, keep: {order_id: event.id}}");
  CHECK(b.payloads({R"({"id":18446744073709551615,"items":[1e2,{"a":1}]})"}) ==
        texts{R"({"item":1e2,"order_id":18446744073709551615})", R"({"item":{"a":1},"order_id":18446744073709551615})"});
  one_step alone("split: {items: event.items, into: item}");
  CHECK(alone.payloads({R"({"items":[1]})"}) == texts{R"({"item":1})"});
}

TEST_CASE("split of nothing drops, of no list is a dead letter", "[steps]") {
  one_step b("split: event.items");
  CHECK(b.payloads({R"({"items":[]})"}).empty());
  CHECK(b.out.died.empty());
  CHECK(b.payloads({R"({"items":[1]})", "{}", R"({"items":{}})", R"({"items":"abc"})", "[1]", "{broken", "", R"({"items":[2]})"}) ==
        texts{"1", "2"});
  REQUIRE(b.out.died.size() == 6);
  CHECK_THAT(b.out.died[0].second, Contains("a list is needed here, not null"));
  CHECK_THAT(b.out.died[2].second, Contains("\"abc\""));
  CHECK_THAT(b.out.died[4].second, Contains("not valid JSON"));
}

TEST_CASE("split by a computed list, and by one that is too long", "[steps]") {
  one_step b("split: {items: 'event.items or {}', max_items: 3}");
  CHECK(b.payloads({"{}", R"({"items":[1,2,3]})", R"({"items":[1,2,3,4]})"}) == texts{"1", "2", "3"});
  CHECK_THAT(b.reason(), Contains("max_items is 3"));
  one_step text("split: {items: '{event}', into: line}");
  CHECK(text.payloads({"plain \"text\""}, "text/plain") == texts{R"({"line":"plain \"text\""})"});
}

TEST_CASE("what split makes can be parsed in place", "[steps]") {
  one_step b("split: event.items"), next("split: event.inner");
  CHECK(one_step::ids_of(next.process(b.process(one_step::events_of({R"({"items":[{"inner":[1]},{"inner":[2,3]}]})"})))) ==
        texts{"a/0/0", "a/1/0", "a/1/1"});
}

}  // namespace test_route_split
