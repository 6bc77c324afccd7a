#include "api/admission.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <variant>

#include <boost/asio/ip/address.hpp>

#include "api/problem.hpp"
#include "config/definition.hpp"
#include "config/in_quotes.hpp"

namespace penstock::api {

namespace {

using scheduler::token_book;
using scheduler::token_record;

constexpr std::string_view challenge = "Bearer realm=\"penstock\"";  // RFC 6750 section 3

scheduler::role role_for(access needs) {
  switch (needs) {
    case access::read:
      return scheduler::role::read;
    case access::ingest:
    case access::signed_body:
      return scheduler::role::ingest;
    case access::operate:
      return scheduler::role::operate;
    case access::open:
    case access::any_token:
    case access::admin:
      break;
  }
  return scheduler::role::admin;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text.append(text.empty() ? "" : ", ").append(word);
  return text;
}

response unauthorized(const std::string& detail, bool shown) {
  response r = problem_response(401, "unauthorized", detail);
  std::string scheme(challenge);
  if (shown) scheme += ", error=\"invalid_token\"";
  r.headers.emplace_back("WWW-Authenticate", std::move(scheme));
  return r;
}

response forbidden(const std::string& detail) {
  response r = problem_response(error{errc::forbidden, detail});
  r.headers.emplace_back("WWW-Authenticate", std::string(challenge) + ", error=\"insufficient_scope\"");
  return r;
}

response too_fast(const token_record& t, std::chrono::nanoseconds wait) {
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(wait).count();
  return problem_response(error{errc::overloaded,
                                "token " + t.id + " is allowed " + std::to_string(t.rate->burst) + " requests at once and then one each " +
                                    format_duration(std::chrono::milliseconds(std::llround(1000 / t.rate->per_second))),
                                {},
                                static_cast<int>(std::clamp<std::int64_t>(seconds, 1, 86'400))});
}

response no_token() {
  return unauthorized("a token is needed here: send 'Authorization: Bearer pst_...', or set PENSTOCK_TOKEN for the penstock client", false);
}

response wrong_role(const token_record& t, access needs) {
  return forbidden("this needs role " + std::string(token(role_for(needs))) + "; token " + t.id + " has " + joined(t.roles.names()));
}

response out_of_scope(const token_record& t, const std::string& what) {
  return forbidden(what + " is not in reach of token " + t.id + "; it is for these pipelines: " + joined(t.pipelines));
}

// Why the token is not good, or nothing.
std::optional<response> judge(const token_book::answer& seen) {
  switch (seen.what) {
    case token_book::verdict::good:
      return std::nullopt;
    case token_book::verdict::expired:
      return unauthorized("token " + seen.token->id + " expired at " + format_time(*seen.token->expires_at), true);
    case token_book::verdict::revoked:
      return unauthorized("token " + seen.token->id + " was revoked at " + format_time(*seen.token->revoked_at), true);
    case token_book::verdict::too_fast:
      return too_fast(*seen.token, seen.wait);
    case token_book::verdict::unknown:
      break;
  }
  return unauthorized("this token is not known here", true);
}

// Only its own pipelines, and of these only what exists: the usual answer would name others that are spelt alike.
std::optional<response> check_pipeline(request& r, const endpoint_rules& rules, context& c) {
  const std::string& name = r.parameter("name");
  if (!reaches(r, name)) return out_of_scope(*r.token, "pipeline " + config::in_quotes(name));
  if (rules.method == http_method::put || c.supervisor.definition(name)) return std::nullopt;
  return problem_response(error{errc::not_found, "no pipeline " + config::in_quotes(name)});
}

std::optional<response> check_scope(request& r, const endpoint_rules& rules, context& c) {
  if (c.now == phase::starting && !rules.always) return std::nullopt;  // nothing is known yet, and nothing served
  const auto has = [&](std::string_view part) { return rules.path.find(part) != std::string::npos; };
  if (has("/pipelines/{name}")) return check_pipeline(r, rules, c);
  if (has("/topics/{topic}")) {
    const std::string& topic = r.parameter("topic");
    if (reaches_topic(r, c, topic)) return std::nullopt;
    return out_of_scope(*r.token, "topic " + config::in_quotes(topic));
  }
  if (has("/streams/{stream}")) {
    const std::string& stream = r.parameter("stream");
    if (reaches_stream(r, c, stream)) return std::nullopt;
    return out_of_scope(*r.token, "stream " + config::in_quotes(stream));
  }
  if (has("/runs/{id}")) {
    const std::string& id = r.parameter("id");
    const auto run = c.supervisor.run(id);
    if (run && reaches(r, run->pipeline)) return std::nullopt;
    return problem_response(error{errc::not_found, "no run '" + id + "'"});  // as of one that does not exist
  }
  if (rules.for_scoped) return std::nullopt;
  return out_of_scope(*r.token, "what belongs to the whole daemon");
}

// Somebody may have written a whole token where its id belongs.
std::string without_secrets(std::string_view target) {
  constexpr std::string_view mark = "pst_";
  std::string text(target);
  const auto is_of_token = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_'; };
  for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += mark.size()) {
    const std::size_t secret = text.find('_', at + mark.size());
    if (secret == std::string::npos) continue;
    const auto end = std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(secret) + 1, text.end(), is_of_token);
    text.replace(text.begin() + static_cast<std::ptrdiff_t>(secret) + 1, end, "***");
  }
  return text;
}

void write_down(const request& r, const endpoint_rules& rules, context& c, const response& refusal, const token_record* shown) {
  auto entry = audit_entry(r, rules);
  if (shown) {
    entry.who = "token";
    entry.token = shown->id;
    entry.name = shown->name;
  }
  entry.target = without_secrets(r.path);  // a query of a stranger may hold anything
  entry.outcome = "refused";
  entry.status = refusal.status;
  entry.detail = refusal.status == 401 ? (shown ? std::string(token(state_of(*shown, wall_now()))) + " token" : "no good token") : "not allowed";
  c.supervisor.audit().note_some(std::move(entry), std::chrono::steady_clock::now());
}

// A page whose name was made to mean this machine (DNS rebinding): to the browser it is of the same origin as the daemon. Such a
// name has a dot; what has none only this machine and its network can give a meaning.
bool is_rebound(const request& r) {
  boost::system::error_code no_address;
  const auto from = asio::ip::make_address(r.peer, no_address);
  if (no_address || !from.is_loopback()) return false;
  std::string_view host = r.header_value("host");
  if (host.starts_with('[')) return false;  // an IPv6 address
  host = host.substr(0, host.rfind(':'));
  asio::ip::make_address(std::string(host), no_address);
  return no_address && host.find('.') != std::string_view::npos && !lower(host).ends_with(".localhost");
}

// Any page that a browser shows may send requests to this machine, and while the door is open they would be taken for its
// user's. A token is not sent by itself, so where one is asked for there is nothing to fear.
std::optional<response> refuse_strange_page(const request& r, const endpoint_rules& rules, context& c) {
  std::string wrong;
  if (is_rebound(r)) {
    wrong = "this daemon is asked for under the name " + config::in_quotes(r.header_value("host")) +
            ", which may be a trick of a page of another site; use localhost, an address or a name without dots, or ask for tokens";
  } else if (rules.method != http_method::get && !from_same_origin(r)) {
    wrong = "a page of another site may not change anything here";
  }
  if (wrong.empty()) return std::nullopt;
  response refusal = problem_response(error{errc::forbidden, wrong});
  write_down(r, rules, c, refusal, nullptr);
  return refusal;
}

bool feeds(const config::component_use& to, const std::string& stream) {
  return to.component == "subscribers" && to.settings.value("name", std::string()) == stream;
}

bool feeds(const config::flow& flow, const std::string& stream) {
  if (const auto* command = std::get_if<config::command>(&flow.does)) return command->to && feeds(*command->to, stream);
  const auto& dataflow = std::get<config::dataflow>(flow.does);
  return (dataflow.to && feeds(*dataflow.to, stream)) ||
         std::any_of(dataflow.outputs.begin(), dataflow.outputs.end(), [&](const auto& output) { return feeds(output, stream); });
}

// Does one of the definitions that the caller reaches have it?
template <class Has>
bool in_scope(const request& r, context& c, Has has) {
  if (!is_scoped(r)) return true;
  return std::any_of(r.token->pipelines.begin(), r.token->pipelines.end(), [&](const std::string& name) {
    const auto definition = c.supervisor.definition(name);
    return definition && has(*definition);
  });
}

}  // namespace

std::string_view bearer_of(const request& r) {
  const std::string_view given = r.header_value("authorization");
  constexpr std::string_view scheme = "bearer ";
  if (given.size() <= scheme.size() || !same_letters(given.substr(0, scheme.size()), scheme)) return {};
  const std::size_t first = given.find_first_not_of(' ', scheme.size());
  return first == std::string_view::npos ? std::string_view() : given.substr(first);
}

std::optional<response> admit(request& r, const endpoint_rules& rules, context& c) {
  token_book& book = c.supervisor.tokens();
  if (rules.needs == access::open || r.trusted_peer) return std::nullopt;
  if (!book.asked()) return refuse_strange_page(r, rules, c);
  const std::string_view text = bearer_of(r);
  const bool hook = rules.needs == access::signed_body;
  if (hook && !scheduler::parse_token(text)) {  // some senders sign in this header
    // Strangers get no room for a body where nobody receives one.
    const std::string path = "/" + r.parameter("path");
    if (!c.supervisor.hook_owner(path).empty()) return std::nullopt;
    return problem_response(error{errc::not_found, "no hook at " + config::in_quotes("/hooks" + path)});
  }
  std::optional<response> refused;
  token_book::answer seen;
  if (text.empty()) {
    refused = no_token();
  } else {
    seen = book.check(text, wall_now(), std::chrono::steady_clock::now());
    refused = judge(seen);
  }
  if (!refused) {
    r.token = seen.token;
    if (hook || rules.needs == access::any_token) return std::nullopt;
    if (!r.token->roles.allows(role_for(rules.needs))) {
      refused = wrong_role(*r.token, rules.needs);
    } else if (is_scoped(r)) {
      refused = check_scope(r, rules, c);
    }
  }
  if (refused && (refused->status == 401 || refused->status == 403)) write_down(r, rules, c, *refused, seen.token.get());
  return refused;
}

bool may_post_unsigned(const request& r, context& c, const std::string& pipeline) {
  if (r.trusted_peer || !c.supervisor.tokens().asked()) return true;
  return r.token && r.token->roles.allows(scheduler::role::ingest) && reaches(r, pipeline);
}

response refuse_unsigned(const request& r, context& c) {
  response refusal = no_token();
  if (r.token) {
    refusal = r.token->roles.allows(scheduler::role::ingest) ? out_of_scope(*r.token, "this hook") : wrong_role(*r.token, access::ingest);
  }
  const endpoint_rules rules{.method = http_method::post, .path = "/hooks/{path...}", .needs = access::signed_body, .summary = ""};
  write_down(r, rules, c, refusal, r.token.get());
  return refusal;
}

bool is_scoped(const request& r) { return r.token && !r.token->pipelines.empty(); }

bool reaches(const request& r, const std::string& pipeline) { return !r.token || scheduler::reaches(*r.token, pipeline); }

bool reaches_topic(const request& r, context& c, const std::string& topic) {
  return in_scope(r, c, [&](const config::pipeline& p) { return p.topics.contains(topic); });
}

bool reaches_stream(const request& r, context& c, const std::string& stream) {
  return in_scope(r, c, [&](const config::pipeline& p) {
    return std::any_of(p.flows.begin(), p.flows.end(), [&](const auto& one) { return feeds(one.second, stream); });
  });
}

const std::vector<std::string>& scope_of(const request& r) { return r.token->pipelines; }

scheduler::audit_record audit_entry(const request& r, const endpoint_rules& rules) {
  scheduler::audit_record entry{.who = r.trusted_peer ? "socket" : "anyone"};
  entry.at = wall_now();
  if (r.token) {
    entry.who = "token";
    entry.token = r.token->id;
    entry.name = r.token->name;
  }
  entry.address = r.peer;
  entry.method = token(r.method);
  entry.endpoint = rules.path;
  entry.target = without_secrets(r.target);
  entry.pipeline = rules.path.find("/pipelines/{name}") == std::string::npos ? "" : r.parameter("name");
  entry.request = r.id;
  return entry;
}

}  // namespace penstock::api
