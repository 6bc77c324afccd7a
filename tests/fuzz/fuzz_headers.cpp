// Values of request headers: Accept, Accept-Encoding, If-Match, If-None-Match, Content-Type, traceparent, tokens.
#include <array>
#include <optional>
#include <string>

#include "api/gzip.hpp"
#include "api/media.hpp"
#include "scheduler/etag.hpp"
#include "scheduler/token.hpp"
#include "scheduler/trace_context.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

void try_accept(std::string_view text) {
  constexpr std::array<std::string_view, 3> offers{api::json_type, api::yaml_type, api::text_type};
  if (const auto best = api::best_offer(text, offers)) {
    bool offered = false;
    for (const auto offer : offers) offered = offered || offer == *best;
    require(offered, "what is chosen was offered");
  }
  const std::string bare = api::bare_type(text);
  require(api::bare_type(bare) == bare, "a bare type is bare", bare);
  require(!(api::is_json(bare) && api::is_yaml(bare)), "no type is both");
  static_cast<void>(api::says_nothing(bare));
  static_cast<void>(api::accepts_gzip(text));
}

void try_tags(std::string_view text) {
  using how = scheduler::etag_comparison;
  const std::string tag = "\"1-6f0c\"";
  const bool strong = scheduler::lists_etag(text, tag, how::strong), weak = scheduler::lists_etag(text, tag, how::weak);
  require(!strong || weak, "what is equal strongly is equal weakly");
  const bool star = text.find('*') != text.npos;
  require(!weak || star || text.find(tag) != text.npos, "only a list that holds the tag lists it");
  static_cast<void>(scheduler::lists_etag(api::plain_etag(text), tag, how::weak));
  require(api::plain_etag(api::packed_etag(tag)) == tag, "a packed tag is led back");
}

void try_trace(std::string_view text) {
  const std::size_t comma = text.find('|');
  const scheduler::trace_context context =
      scheduler::read_trace_context(text.substr(0, comma), comma == text.npos ? "" : text.substr(comma + 1));
  if (context.traceparent.empty()) return require(context.tracestate.empty(), "there is no state without a parent");
  require(context.traceparent.size() == 55 && context.traceparent.starts_with("00-"), "a parent is of version 00", context.traceparent);
  require(context.tracestate.size() <= scheduler::longest_tracestate, "the state is within its limit");
  require(scheduler::read_trace_context(context.traceparent, context.tracestate) == context, "a context is handed on as it was read");
}

}  // namespace

void try_input(std::string_view text) {
  try_accept(text);
  try_tags(text);
  try_trace(text);
  if (const auto shown = scheduler::parse_token(text)) {
    require(!shown->id.empty() && !shown->secret.empty(), "a token has both its parts");
  }
}

}  // namespace penstock::fuzz
