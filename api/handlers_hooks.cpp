// Webhooks: what is posted to /hooks/PATH goes to the flow that claims the path, raw, and is answered once it
// is safe.
#include <utility>

#include "api/admission.hpp"
#include "api/handlers.hpp"
#include "api/problem.hpp"
#include "runtime/webhooks.hpp"

namespace penstock::api {

asio::awaitable<response> post_hook(request& r, context& c) {
  runtime::delivery d;
  for (const header& h : r.headers) {
    if (r.token && same_letters(h.name, "authorization")) continue;  // our own token goes no further
    const auto [at, added] = d.headers.emplace(lower(h.name), h.value);
    if (!added) at->second.append(", ").append(h.value);  // RFC 9110 section 5.3
  }
  const std::string path = "/" + r.parameter("path");
  d.body = std::make_shared<const runtime::buffer>(std::move(r.body));
  d.trusted = may_post_unsigned(r, c, is_scoped(r) ? c.supervisor.hook_owner(path) : "");
  const bool trusted = d.trusted;
  const auto done = co_await c.webhooks.deliver(path, std::move(d));
  if (!done && !trusted && done.error().code == errc::forbidden) co_return refuse_unsigned(r, c);
  if (!done) co_return problem_response(done.error());
  // A success: a sender that missed the first answer must not try for ever.
  if (done->duplicate) co_return response{.status = 200, .body = "{\"accepted\":0,\"duplicate\":true}\n"};
  co_return response{.status = 202, .body = "{\"accepted\":" + std::to_string(done->accepted) + "}\n"};
}

}  // namespace penstock::api
