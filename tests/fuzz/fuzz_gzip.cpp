// Packed bodies: unpacking stops at its limit, whatever comes; what is packed is unpacked as it was.
#include <string>

#include "api/gzip.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

using state = api::gzip_unpacker::state;

state unpack(std::string_view packed, std::string& out, std::size_t limit) {
  api::gzip_unpacker unpacker(packed, out, limit, 64);
  state now = state::going_on;
  while (now == state::going_on) now = unpacker.go_on();
  require(out.size() <= limit + (now == state::done ? 0 : 1), "the limit is kept");
  return now;
}

}  // namespace

void try_input(std::string_view text) {
  std::string out;
  unpack(text, out, 1 << 16);
  api::gzip_packer packer(text);
  while (!packer.go_on()) {
  }
  const std::string packed = packer.take();
  out.clear();
  require(unpack(packed, out, text.size()) == state::done && out == text, "what is packed is unpacked as it was");
  if (text.empty()) return;
  out.clear();
  require(unpack(packed, out, text.size() - 1) == state::too_large, "one byte beyond the limit is too much");
  out.clear();
  require(unpack(std::string_view(packed).substr(0, packed.size() - 1), out, text.size()) == state::broken, "all of it is needed");
}

}  // namespace penstock::fuzz
