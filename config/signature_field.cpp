#include "config/signature_field.hpp"

namespace penstock::config {

const field& signature_field() {
  static const field record{
      .name = "signature",
      .type = field_type::object,
      .doc = "What each request must be signed with. Without it anyone who reaches the daemon may post.",
      .children = {{.name = "scheme",
                    .type = field_type::choice,
                    .doc = "HMAC (RFC 2104) over the raw body.",
                    .fallback = "hmac-sha256",
                    .choices = {"hmac-sha256", "hmac-sha1", "hmac-sha512"}},
                   {.name = "header",
                    .type = field_type::string,
                    .doc = "The request header that carries the signature.",
                    .required = true,
                    .example = "X-Webhook-Signature"},
                   {.name = "secret",
                    .type = field_type::string,
                    .doc = "The key that sender and receiver share.",
                    .required = true,
                    .example = "\"${env:WEBHOOK_SECRET}\"",
                    .secret = true},
                   {.name = "encoding",
                    .type = field_type::choice,
                    .doc = "How the signature is written.",
                    .fallback = "hex",
                    .choices = {"hex", "base64"}},
                   {.name = "prefix",
                    .type = field_type::string,
                    .doc = "What stands before the signature in the header; GitHub sends sha256=",
                    .fallback = "\"\"",
                    .example = "sha256="}}};
  return record;
}

}  // namespace penstock::config
