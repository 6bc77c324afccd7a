#include <string>

#include <catch2/catch.hpp>

#include "runtime/output_file.hpp"

namespace test_output_file {

using penstock::errc;
using penstock::runtime::parse_output;

namespace {

std::string parsed(const std::string& text) {
  const auto output = parse_output(text);
  return output ? *output : "refused: " + output.error().detail;
}

}  // namespace

TEST_CASE("output file: nothing", "[output_file]") {
  CHECK(parsed("").empty());
  CHECK(parsed(" \n\r\n\t").empty());
  CHECK(parsed("# only\n\n# comments\n").empty());
}

TEST_CASE("output file: lines", "[output_file]") {
  CHECK(parsed("a=1\nb.c-d_E=x = y \n\n# no\na=2") == R"({"a":"2","b.c-d_E":"x = y "})");
  CHECK(parsed("path=C:\\new \"quoted\"\r\nempty=\r\n") == R"({"empty":"","path":"C:\\new \"quoted\""})");
  CHECK(parsed("word=\xc3\xb1\n") == "{\"word\":\"\xc3\xb1\"}");
}

TEST_CASE("output file: an object", "[output_file]") {
  CHECK(parsed(" {\"b\" : [1, 2.50, null],\n \"a\": {\"x\": \"y\"}}\n") == R"({"a":{"x":"y"},"b":[1,2.5,null]})");
  CHECK(parsed("{}") == "{}");
}

TEST_CASE("output file: what is refused says where", "[output_file]") {
  CHECK(parsed("a=1\nnonsense\n").starts_with("refused: has a line 2 that is not name=value"));
  CHECK(parsed("a=1\n=2\n").starts_with("refused: has a line 2"));
  CHECK(parsed("a b=2\n").starts_with("refused: has a line 1"));
  CHECK(parsed("a=\xff\n") == "refused: has a line 1 that is not UTF-8");
  CHECK(parsed("[1]").starts_with("refused: has a line 1"));
  CHECK(parsed("{\"a\":1} {\"b\":2}").starts_with("refused: is not a JSON object"));
  CHECK(parsed("{\"a\":\"\xff\"}").starts_with("refused: is not a JSON object"));
  CHECK(parsed("{\"a\":").starts_with("refused: is not a JSON object"));
  std::string deep = "{\"a\":" + std::string(20'000, '[') + std::string(20'000, ']') + "}";
  CHECK(parsed(deep).starts_with("refused: is not a JSON object"));
}

TEST_CASE("output file: 64 KiB and no more", "[output_file]") {
  std::string text = "a=" + std::string(64 * 1024 - 2, 'x');
  CHECK(parse_output(text).has_value());
  const auto refused = parse_output(text + "x");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::too_large);
  CHECK(refused.error().detail == "is longer than 64KiB");
}

}  // namespace test_output_file
