// Who is let in: tokens, roles and scopes of requests, and what the audit log is told of them.
//
// Control thread. admit() is asked for each request before its body is read. A token that is limited to some pipelines reaches
// only what is theirs: what is another's is answered the same whether it exists or not, so nobody learns what there is.
// Handlers of lists ask reaches() for each item.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/context.hpp"
#include "api/http.hpp"
#include "api/server.hpp"
#include "scheduler/audit.hpp"

namespace penstock::api {

// A refusal (401, 403, 404, 429), or nothing: it may go on. `r.token` is then who asks, where one is asked for. A refusal is
// in the audit log already.
//
// Not asked for a token: endpoints that are open, a `trusted_peer`, and everybody while no token is asked for (but then the
// page of another site, in somebody's browser, may change nothing: its requests are not that person's wish). A signed_body
// endpoint is let through; it asks may_post_unsigned() when it has no signature to check.
std::optional<response> admit(request& r, const endpoint_rules& rules, context& c);

// For a hook that checks no signature: 401 or 403, or nothing. `pipeline`: whose hook it is.
bool may_post_unsigned(const request& r, context& c, const std::string& pipeline);
response refuse_unsigned(const request& r, context& c);

// Is the caller limited to some pipelines? And does it reach this one, this topic (declared by one of them), this live
// stream (fed by one of them)?
bool is_scoped(const request& r);
bool reaches(const request& r, const std::string& pipeline);
bool reaches_topic(const request& r, context& c, const std::string& topic);
bool reaches_stream(const request& r, context& c, const std::string& stream);
// The pipelines that a scoped caller is limited to.
const std::vector<std::string>& scope_of(const request& r);

// What the audit log says of a change that was let in; outcome and status are filled in when it is done.
scheduler::audit_record audit_entry(const request& r, const endpoint_rules& rules);

// The token of `Authorization: Bearer …`; empty: none.
std::string_view bearer_of(const request& r);

}  // namespace penstock::api
