#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/output_tail.hpp"

namespace test_output_tail {

using penstock::from_micros;
using penstock::runtime::output_tail;

namespace {

constexpr std::size_t longest = 1000;

std::vector<std::string> take(output_tail& tail) {
  std::vector<std::string> texts;
  for (const auto& line : tail.take(longest)) texts.push_back(line.from + (":" + line.text));
  return texts;
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("output tail: what fits comes back whole, each stream's lines by themselves", "[output_tail]") {
  output_tail tail(1000);
  CHECK(tail.empty());
  tail.add('o', from_micros(1), "one\ntw");
  tail.add('e', from_micros(2), "bad ");
  tail.add('o', from_micros(3), "o\n\nthree");
  tail.add('e', from_micros(4'000'000), "news\n");
  tail.add('o', from_micros(5), "");
  CHECK_FALSE(tail.empty());
  CHECK(tail.taken_in() == 23);
  const auto lines = tail.take(longest);
  REQUIRE(lines.size() == 5);
  CHECK(lines[1].text == "two");
  CHECK(lines[1].bytes == 4);
  CHECK(lines[3].text == "three");  // not finished, but its last byte was there first
  CHECK(lines[3].bytes == 5);
  CHECK(lines[4].text == "bad news");
  CHECK(lines[4].at == from_micros(4'000'000));
  CHECK(tail.empty());
  CHECK(tail.taken_in() == 0);
}

TEST_CASE("output tail: the last lines stay, the cut one says so", "[output_tail]") {
  output_tail tail(100);
  std::string all;
  for (int i = 1000; i < 2000; ++i) all += "line " + std::to_string(i) + "\n";
  const std::size_t chunk = GENERATE(1u, 7u, 10u, 99u, 100u, 101u, 5000u, 10000u);
  std::int64_t at = 0;
  for (std::size_t i = 0; i < all.size(); i += chunk) tail.add('o', from_micros(at += 2000), all.substr(i, chunk));
  CHECK(tail.taken_in() == static_cast<std::int64_t>(all.size()));
  const auto lines = tail.take(longest);
  REQUIRE(lines.size() >= 10);
  CHECK(lines.size() <= 21);
  CHECK(lines.back().text == "line 1999");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string whole = "line " + std::to_string(2000 - lines.size() + i);
    if (lines[i].text.starts_with("…")) {
      CHECK(i == 0);
      CHECK(whole.ends_with(lines[i].text.substr(std::string("…").size())));
    } else {
      CHECK(lines[i].text == whole);
    }
  }
}

TEST_CASE("output tail: a line that never ends", "[output_tail]") {
  output_tail tail(100);
  for (int i = 0; i < 1000; ++i) tail.add('o', from_micros(i * 5000), std::string(50, 'x'));
  tail.add('e', from_micros(9'000'000), "err\n");
  CHECK(take(tail) == texts{"o:…" + std::string(100, 'x'), "e:err"});
  // The next one begins where that one was.
  tail.add('o', from_micros(9'000'000), "xx\nnext\n");
  CHECK(take(tail) == texts{"o:…xx", "o:next"});
}

TEST_CASE("output tail: a flood on one stream leaves the other alone", "[output_tail]") {
  output_tail tail(100);
  tail.add('e', from_micros(1), "last words\n");
  for (int i = 0; i < 100; ++i) tail.add('o', from_micros(i * 5000), std::string(99, 'x') + "\n");
  CHECK(take(tail) == texts{"e:last words", "o:" + std::string(99, 'x')});
}

TEST_CASE("output tail: long lines come in pieces", "[output_tail]") {
  output_tail tail(5000);
  tail.add('o', from_micros(1), std::string(2500, 'y') + "\n");
  CHECK(take(tail) == texts{"o:" + std::string(1000, 'y'), "o:" + std::string(1000, 'y'), "o:" + std::string(500, 'y')});
  tail.add('o', from_micros(1), std::string(1000, 'y') + "\nz\n");
  CHECK(take(tail) == texts{"o:" + std::string(1000, 'y'), "o:z"});
}

}  // namespace test_output_tail
