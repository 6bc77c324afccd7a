// What nearly every unit test includes, parsed once per program (see CMakeLists.txt).
#pragma once

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>
