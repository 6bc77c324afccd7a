// Packing and unpacking at the edges of slices and limits, and the headers about them.
#include <random>

#include <catch2/catch.hpp>

#include "api/gzip.hpp"

using namespace penstock::api;

namespace {

std::string noise(std::size_t size) {
  std::mt19937 random(7);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

std::string pack(const std::string& text) {
  gzip_packer packer(text);
  while (!packer.go_on()) {
  }
  return packer.take();
}

gzip_unpacker::state unpack(const std::string& packed, std::string& into, std::size_t limit) {
  gzip_unpacker unpacker(packed, into, limit, 64);
  for (;;) {
    const auto now = unpacker.go_on();
    CHECK(into.size() <= limit + 1);
    if (now != gzip_unpacker::state::going_on) return now;
  }
}

}  // namespace

TEST_CASE("what is packed is unpacked, whatever its size", "[gzip]") {
  constexpr std::size_t slice = 128 << 10;
  for (const std::size_t size : {std::size_t{1}, slice / 2 - 1, slice / 2, slice / 2 + 1, slice - 1, slice, slice + 1, 2 * slice, 5 * slice + 3}) {
    for (const std::string& text : {std::string(size, 'x'), noise(size)}) {
      const std::string packed = pack(text);
      std::string back;
      CHECK(unpack(packed, back, size) == gzip_unpacker::state::done);
      CHECK(back == text);
      CHECK(back.capacity() >= back.size() + 64);
      std::string less;
      CHECK(unpack(packed, less, size - 1) == gzip_unpacker::state::too_large);
      std::string cut;
      CHECK(unpack(packed.substr(0, packed.size() - 1), cut, size) == gzip_unpacker::state::broken);
      std::string twice;
      CHECK(unpack(packed + packed, twice, 2 * size) == gzip_unpacker::state::done);
      CHECK(twice == text + text);
      std::string more;
      CHECK(unpack(packed + "more", more, 2 * size) == gzip_unpacker::state::broken);
    }
  }
}

TEST_CASE("unpacking holds no more than its limit", "[gzip]") {
  const std::string bomb = pack(std::string(64 << 20, '\0'));
  std::string out;
  CHECK(unpack(bomb, out, 1 << 20) == gzip_unpacker::state::too_large);
  CHECK(out.capacity() < 3 << 20);
}

TEST_CASE("a flipped bit is noticed", "[gzip]") {
  const std::string text = noise(2000), packed = pack(text);
  for (std::size_t at = 0; at < packed.size(); at += 7) {
    if (at >= 4 && at < 10) continue;  // time, flags and system in the header say nothing about the text
    std::string changed = packed, out;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    INFO(at);
    const bool same = unpack(changed, out, text.size()) == gzip_unpacker::state::done && out == text;
    CHECK_FALSE(same);
  }
}

TEST_CASE("ETags of packed variants", "[gzip]") {
  CHECK(packed_etag("\"1-abc\"") == "\"1-abc-gzip\"");
  CHECK(plain_etag("\"1-abc-gzip\"") == "\"1-abc\"");
  CHECK(plain_etag("\"1-abc\"") == "\"1-abc\"");
  CHECK(plain_etag("*") == "*");
  CHECK(plain_etag("W/\"1-abc-gzip\"") == "W/\"1-abc\"");
  CHECK(plain_etag("\"b\", \"1-abc-gzip\",W/\"c-gzip\"") == "\"b\", \"1-abc\",W/\"c\"");
  CHECK(plain_etag("") == "");
}
