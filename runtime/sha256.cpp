#include "runtime/sha256.hpp"

#include <stdexcept>

#include <openssl/evp.h>

namespace penstock::runtime {

sha256_digest sha256(std::string_view text) {
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);  // looked up once: requests ask for it
  sha256_digest digest;
  unsigned size = digest.size();
  if (EVP_Digest(text.data(), text.size(), digest.data(), &size, algorithm, nullptr) != 1) throw std::runtime_error("SHA-256 failed");
  return digest;
}

}  // namespace penstock::runtime
