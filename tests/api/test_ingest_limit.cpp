// How many requests bring events at once, second by second.
#include <catch2/catch.hpp>
#include <optional>
#include <vector>

#include "api/ingest_limit.hpp"

namespace test_ingest_limit {

using namespace penstock::api;
using namespace std::chrono_literals;

namespace {

// How many of `asked` requests are taken in at that moment, and stay.
int taken(ingest_limit& limit, std::vector<ingest_limit::place>& inside, int asked, ingest_limit::clock::time_point now) {
  int count = 0;
  for (int i = 0; i < asked; ++i) {
    if (auto place = limit.enter(now)) {
      inside.push_back(std::move(place));
      ++count;
    }
  }
  return count;
}

}  // namespace

TEST_CASE("a burst is taken in, a flood is not", "[ingest_limit]") {
  ingest_limit limit(10);
  std::vector<ingest_limit::place> inside;
  const ingest_limit::clock::time_point start(1h);
  CHECK(taken(limit, inside, 60, start) == 50);
  CHECK(taken(limit, inside, 1, start + 1s) == 0);
  inside.resize(10);
  CHECK(taken(limit, inside, 10, start + 1s) == 0);
  SECTION("up to the limit there is always room") {
    for (int i = 0; i < 1000; ++i) {
      inside.pop_back();
      CHECK(taken(limit, inside, 2, start + 1s) == 1);
    }
  }
  SECTION("the room for a burst comes back within a minute") {
    CHECK(taken(limit, inside, 60, start + 31s) == 20);
    inside.resize(10);
    CHECK(taken(limit, inside, 60, start + 2min) == 40);
  }
}

TEST_CASE("a request may outlive the limit it was counted by", "[ingest_limit]") {
  std::optional<ingest_limit> limit(std::in_place, 1);
  const auto place = limit->enter(ingest_limit::clock::time_point(1h));
  CHECK(place);
  limit.reset();
}

}  // namespace test_ingest_limit
