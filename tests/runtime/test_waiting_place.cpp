#include <optional>

#include <catch2/catch.hpp>

#include "runtime/waiting_place.hpp"

namespace test_waiting_place {

using penstock::runtime::waiting_place;

TEST_CASE("so many have a place, and one that is left is free", "[waiting_place]") {
  std::size_t taken = 0;
  std::optional<waiting_place> first(std::in_place, taken, 2);
  const waiting_place second(taken, 2);
  CHECK(*first);
  CHECK(second);
  {
    const waiting_place third(taken, 2);
    CHECK_FALSE(third);
    CHECK(taken == 2);
  }
  CHECK(taken == 2);
  first.reset();
  CHECK(taken == 1);
  CHECK(waiting_place(taken, 2));
  CHECK(taken == 1);
}

}  // namespace test_waiting_place
