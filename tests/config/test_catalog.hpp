// A small catalog of components for the tests of config/: every field type is in it somewhere. The real
// components describe themselves in runtime/components.
#pragma once

#include "config/field.hpp"

namespace penstock::testing {

// check_lua refuses a text with unbalanced parentheses, which is all the Lua that these tests need.
const config::catalog& small_catalog();

}  // namespace penstock::testing
