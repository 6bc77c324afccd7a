// SHA-256 (FIPS 180-4) of a text, by OpenSSL. Pure, any thread.
#pragma once

#include <array>
#include <string_view>

namespace penstock::runtime {

using sha256_digest = std::array<unsigned char, 32>;

// Throws std::runtime_error when the library cannot (a system that forbids it).
sha256_digest sha256(std::string_view text);

// Its bytes, for what takes text.
inline std::string_view bytes_of(const sha256_digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace penstock::runtime
