// Server-sent events of other servers: cut anywhere, they are the same messages; none is longer than allowed.
#include <string>
#include <vector>

#include "runtime/sse_parser.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

constexpr std::size_t most_bytes = 64;

// Everything that can be told of an answer.
std::string described(const runtime::sse_parser& parser, const std::vector<runtime::sse_message>& messages) {
  std::string out = parser.last_id() + "|" + (parser.retry() ? std::to_string(parser.retry()->count()) : "none");
  for (const auto& m : messages) {
    out += "\n" + m.data + "|" + m.type + "|" + m.id + (m.own_id ? "|own" : "|") + (m.too_long ? "|too long" : "|");
  }
  return out;
}

}  // namespace

void try_input(std::string_view text) {
  std::vector<runtime::sse_message> whole, pieces;
  runtime::sse_parser at_once(most_bytes, "7"), bit_by_bit(most_bytes, "7");
  at_once.put(text, whole);
  in_pieces(text, [&](std::string_view piece) { bit_by_bit.put(piece, pieces); });
  for (const auto& m : whole) require(m.data.size() <= most_bytes, "data is within its limit");
  require(described(at_once, whole) == described(bit_by_bit, pieces), "pieces make no difference",
          described(at_once, whole) + "\n--- in pieces:\n" + described(bit_by_bit, pieces));
}

}  // namespace penstock::fuzz
