#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/ulid.hpp"

namespace test_ulid {

using namespace penstock;
using namespace penstock::runtime;

TEST_CASE("a ULID begins with its time, as the specification encodes it", "[ulid]") {
  // 1469918176385 ms is the specification's own example: 01ARYZ6S41.
  const timestamp at{std::chrono::milliseconds{1469918176385}};
  CHECK(make_ulid(at).substr(0, 10) == "01ARYZ6S41");
  CHECK(make_ulid(at + std::chrono::microseconds{999}).substr(0, 10) == "01ARYZ6S41");
  CHECK(make_ulid(at + std::chrono::milliseconds{1}).substr(0, 10) == "01ARYZ6S42");
  CHECK(make_ulid(timestamp{}).substr(0, 10) == "0000000000");
  CHECK(make_ulid(timestamp{std::chrono::milliseconds{(1LL << 48) - 1}}).substr(0, 10) == "7ZZZZZZZZZ");
}

TEST_CASE("ULIDs of one thread and millisecond count up by one", "[ulid]") {
  const timestamp at{std::chrono::milliseconds{1'700'000'000'000}};
  std::string last = make_ulid(at);
  for (int i = 0; i < 100'000; ++i) {
    std::string next = make_ulid(at);
    REQUIRE(last < next);
    REQUIRE(is_ulid(next));
    last = std::move(next);
  }
}

TEST_CASE("a clock that steps back gives the earlier stamp, and another id", "[ulid]") {
  const timestamp at{std::chrono::milliseconds{1'700'000'000'000}};
  const std::string first = make_ulid(at);
  const std::string later = make_ulid(at + std::chrono::seconds{5});
  const std::string back = make_ulid(at);
  CHECK(first < later);
  CHECK(back < later);
  CHECK(back.substr(0, 10) == first.substr(0, 10));
  CHECK(back != first);
}

TEST_CASE("a clock that is corrected backwards a little keeps the order", "[ulid]") {
  const timestamp at{std::chrono::milliseconds{1'700'000'000'000}};
  std::string last = make_ulid(at);
  for (const int step : {-1, -999, -500, 0, 1, 0, -998}) {  // milliseconds against `at`
    std::string next = make_ulid(at + std::chrono::milliseconds{step});
    CHECK(last < next);
    last = std::move(next);
  }
}

TEST_CASE("threads never make the same ULID", "[ulid]") {
  const timestamp at{std::chrono::milliseconds{1'700'000'000'000}};
  std::vector<std::vector<std::string>> made(8);
  {
    std::vector<std::jthread> threads;
    for (auto& ids : made) {
      threads.emplace_back([&ids, at] {
        for (int i = 0; i < 10'000; ++i) ids.push_back(make_ulid(at));
      });
    }
  }
  std::set<std::string> all;
  for (const auto& ids : made) all.insert(ids.begin(), ids.end());
  CHECK(all.size() == 80'000);
}

TEST_CASE("is_ulid refuses what is not one", "[ulid]") {
  CHECK(is_ulid(make_ulid()));
  CHECK(is_ulid("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"));
  CHECK_FALSE(is_ulid("8ZZZZZZZZZZZZZZZZZZZZZZZZZ"));  // more than 128 bits
  CHECK_FALSE(is_ulid(""));
  CHECK_FALSE(is_ulid("01ARYZ6S41TSV4RRFFQ69G5FA"));    // 25
  CHECK_FALSE(is_ulid("01ARYZ6S41TSV4RRFFQ69G5FAVX"));  // 27
  CHECK_FALSE(is_ulid("01ARYZ6S41TSV4RRFFQ69G5FAI"));   // I L O U are not in the alphabet
  CHECK_FALSE(is_ulid("01aryz6s41tsv4rrffq69g5fav"));
  CHECK_FALSE(is_ulid(std::string("01ARYZ6S41TSV4RRFFQ69G5FA\0", 26)));
}

}  // namespace test_ulid
