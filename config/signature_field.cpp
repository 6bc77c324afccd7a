#include "config/signature_field.hpp"

namespace penstock::config {

namespace {

// GitHub, Stripe and Standard Webhooks say themselves where the signature is and how it is written.
field_condition plain_schemes() { return {"scheme", {"hmac-sha256", "hmac-sha1", "hmac-sha512"}}; }

field secret() {
  return {.name = "secret",
          .type = field_type::string,
          .doc = "The key that sender and receiver share. Of Standard Webhooks: whsec_ and base64.",
          .example = "\"${env:WEBHOOK_SECRET}\"",
          .secret = true};
}

field secrets() {
  return {.name = "secrets",
          .type = field_type::list,
          .doc = "Several, of which one must fit: the new one and the old one while a sender changes from one to the other.",
          .example = "[\"${secret:hook}\", \"${secret:hook_old}\"]",
          .children = {secret()},
          .minimum = 1,
          .maximum = 10};
}

std::vector<field> how_it_is_written() {
  return {{.name = "header",
           .type = field_type::string,
           .doc = "The request header that carries the signature.",
           .required = true,
           .example = "X-Webhook-Signature",
           .only_where = plain_schemes()},
          {.name = "encoding",
           .type = field_type::choice,
           .doc = "How the signature is written.",
           .fallback = "hex",
           .choices = {"hex", "base64"},
           .only_where = plain_schemes()},
          {.name = "prefix",
           .type = field_type::string,
           .doc = "What stands before the signature in the header, such as sha256=",
           .fallback = "\"\"",
           .example = "sha256=",
           .only_where = plain_schemes()}};
}

std::vector<field> how_long() {
  return {{.name = "tolerance",
           .type = field_type::duration,
           .doc = "How far the signed time may be from the clock here, both ways.",
           .fallback = "5m",
           .minimum = 1,
           .maximum = 86'400,
           .only_where = field_condition{"scheme", {"stripe", "standard"}}},
          {.name = "replay_window",
           .type = field_type::duration,
           .doc = "How long a delivery that was accepted is known again, and not taken twice. Of stripe and standard the "
                  "tolerance unless said otherwise, and never shorter than its signed time is good for; of github 1h (0s: "
                  "not at all); of the others not at all, since two events may have the same bytes.",
           .example = "10m",
           .maximum = 30 * 86'400},
          {.name = "replay_limit",
           .type = field_type::integer,
           .doc = "How many deliveries are known again at most; beyond it senders get 429 with Retry-After. 100000 unless "
                  "said otherwise.",
           .example = "1000000",
           .minimum = 1,
           .maximum = 10'000'000}};
}

}  // namespace

const field& signature_field() {
  static const field record = [] {
    field out{.name = "signature",
              .type = field_type::object,
              .doc = "What each request must be signed with. Without it anyone who reaches the daemon may post.",
              .children = {{.name = "scheme",
                            .type = field_type::choice,
                            .doc = "hmac-…: HMAC (RFC 2104) over the raw body, in a header of your choice. github, stripe, "
                                   "standard (Standard Webhooks): as these senders do it.",
                            .fallback = "hmac-sha256",
                            .choices = {"hmac-sha256", "hmac-sha1", "hmac-sha512", "github", "stripe", "standard"}},
                           secret(),
                           secrets()},
              .exactly_one = {"secret", "secrets"}};
    for (const auto& more : {how_it_is_written(), how_long()}) {
      out.children.insert(out.children.end(), more.begin(), more.end());
    }
    return out;
  }();
  return record;
}

}  // namespace penstock::config
