// Libraries that are loaded when they are needed.
#include <catch2/catch.hpp>

#include "runtime/shared_library.hpp"

namespace test_shared_library {

using penstock::runtime::shared_library;

TEST_CASE("shared_library: a function is found and can be called", "[shared_library]") {
  const shared_library maths("libm.so.6", "libc6");
  CHECK(maths.function<double(double)>("cbrt")(27.0) == Approx(3.0));
}

TEST_CASE("shared_library: what is missing is named", "[shared_library]") {
  CHECK_THROWS_WITH(shared_library("libmissing.so.9", "libmissing9"),
                    Catch::StartsWith("the library of the package libmissing9 cannot be loaded: libmissing.so.9: "));
  const shared_library maths("libm.so.6", "libc6");
  CHECK_THROWS_WITH(maths.function<void()>("cube_of"), "libm.so.6 has no function cube_of");
}

}  // namespace test_shared_library
