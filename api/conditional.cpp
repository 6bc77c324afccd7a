#include "api/conditional.hpp"

#include <array>
#include <stdexcept>
#include <utility>

#include <openssl/evp.h>

#include "api/gzip.hpp"
#include "api/parameters.hpp"
#include "scheduler/etag.hpp"

namespace penstock::api {

bool client_has(const request& r, std::string_view etag) {
  return scheduler::lists_etag(plain_etag(r.header_list("if-none-match")), etag, scheduler::etag_comparison::weak);
}

response unless_known(const request& r, response reply, const std::string& etag) {
  reply.headers.emplace_back("ETag", etag);
  if (!client_has(r, etag)) return reply;
  reply.status = 304;
  reply.unsent = reply.body.size();
  reply.body.clear();
  return reply;
}

fixed_document make_document(std::string_view content_type, std::string text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  if (EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) {
    throw std::runtime_error("SHA-256 failed");
  }
  std::string etag = '"' + base64url({reinterpret_cast<const char*>(digest.data()), 16}) + '"';
  return {content_type, std::move(text), std::move(etag)};
}

response send_document(const request& r, const fixed_document& document) {
  return unless_known(r, {.content_type = document.content_type, .body = document.text}, document.etag);
}

}  // namespace penstock::api
