#include "api/conditional.hpp"

#include <utility>

#include "api/gzip.hpp"
#include "api/parameters.hpp"
#include "runtime/sha256.hpp"
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
  const auto digest = runtime::sha256(text);
  std::string etag = '"' + base64url(runtime::bytes_of(digest).substr(0, 16)) + '"';
  return {content_type, std::move(text), std::move(etag)};
}

response send_document(const request& r, const fixed_document& document) {
  return unless_known(r, {.content_type = document.content_type, .body = document.text}, document.etag);
}

}  // namespace penstock::api
