// Tokens and the audit log: made, shown, revoked; who did what. The text of a token is in one answer only: that to its making.
#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/admission.hpp"
#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "api/server.hpp"
#include "config/in_quotes.hpp"
#include "config/validate.hpp"

namespace penstock::api {

namespace {

constexpr std::size_t longest_name = 100;   // bytes
constexpr std::size_t most_pipelines = 100;
constexpr double highest_rate = 1e6;        // requests per second
constexpr double lowest_rate = 0.001;

json token_json(const scheduler::token_record& t) {
  return {{"id", t.id},
          {"name", t.name},
          {"state", token(state_of(t, wall_now()))},
          {"roles", t.roles.names()},
          {"pipelines", t.pipelines},
          {"created_at", format_time(t.created_at)},
          {"expires_at", time_or_null(t.expires_at)},
          {"revoked_at", time_or_null(t.revoked_at)},
          {"last_used_at", time_or_null(t.last_used_at)},
          {"rate", t.rate ? json{{"per_second", t.rate->per_second}, {"burst", t.rate->burst}} : json(nullptr)}};
}

json audit_json(const scheduler::audit_record& e) {
  return {{"id", e.id},
          {"at", format_time(e.at)},
          {"who", e.who},
          {"token", text_or_null(e.token)},
          {"name", text_or_null(e.name)},
          {"address", text_or_null(e.address)},
          {"method", text_or_null(e.method)},
          {"endpoint", text_or_null(e.endpoint)},
          {"target", e.target},
          {"pipeline", text_or_null(e.pipeline)},
          {"outcome", e.outcome},
          {"status", e.status == 0 ? json(nullptr) : json(e.status)},
          {"request_id", text_or_null(e.request)},
          {"detail", text_or_null(e.detail)}};
}

error wrong(const std::string& pointer, const std::string& detail) {
  return {errc::invalid, pointer.substr(1) + ": " + detail, {{pointer, 0, 0, detail}}};
}

result<std::vector<std::string>> read_words(const json& value, const std::string& pointer) {
  std::vector<std::string> words;
  if (!value.is_array()) return wrong(pointer, "a list of strings is expected");
  for (const json& one : value) {
    if (!one.is_string()) return wrong(pointer, "a list of strings is expected");
    words.push_back(one.get<std::string>());
  }
  return words;
}

result<void> read_name(const json& value, scheduler::token_record& wish) {
  if (value.is_string()) wish.name = value.get<std::string>();
  const bool printable = std::none_of(wish.name.begin(), wish.name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (wish.name.empty() || wish.name.size() > longest_name || !printable) {
    return wrong("/name", "1 to 100 printable characters are expected: who or what the token is for");
  }
  return {};
}

result<void> read_roles(const json& value, scheduler::token_record& wish) {
  const auto words = read_words(value, "/roles");
  if (!words) return words.error();
  const auto roles = scheduler::parse_roles(*words);
  if (!roles) return wrong("/roles", roles.error().detail);
  wish.roles = *roles;
  return {};
}

result<void> read_pipelines(const json& value, scheduler::token_record& wish) {
  auto words = read_words(value, "/pipelines");
  if (!words) return words.error();
  for (const std::string& name : *words) {
    if (!config::is_name(name)) return wrong("/pipelines", config::in_quotes(name) + " cannot be the name of a pipeline");
  }
  if (words->empty()) return wrong("/pipelines", "an empty list would reach nothing; leave it out for all pipelines");
  if (words->size() > most_pipelines) return wrong("/pipelines", "at most 100 pipelines can be named");
  std::sort(words->begin(), words->end());
  words->erase(std::unique(words->begin(), words->end()), words->end());
  wish.pipelines = std::move(*words);
  return {};
}

result<void> read_expiry(const json& body, scheduler::token_record& wish, timestamp now) {
  const auto in = body.find("expires_in"), at = body.find("expires_at");
  if (in != body.end() && at != body.end()) return wrong("/expires_in", "expires_in and expires_at exclude each other");
  if (in != body.end()) {
    const auto length = in->is_string() ? parse_duration(in->get<std::string>()) : std::nullopt;
    if (!length || length->count() == 0) return wrong("/expires_in", "a duration is expected, e.g. 90d");
    wish.expires_at = now + std::chrono::duration_cast<std::chrono::microseconds>(*length);
  }
  if (at != body.end()) {
    wish.expires_at = at->is_string() ? parse_time(at->get<std::string>()) : std::nullopt;
    if (!wish.expires_at) return wrong("/expires_at", "an RFC 3339 time is expected, e.g. 2027-01-01T00:00:00Z");
    if (*wish.expires_at <= now) return wrong("/expires_at", "this time is over already");
  }
  return {};
}

result<void> read_rate(const json& value, scheduler::token_record& wish) {
  const auto expected = [] { return wrong("/rate", "{\"per_second\": 10, \"burst\": 20} is expected; burst may be left out"); };
  if (!value.is_object() || !value.contains("per_second") || value.size() > 2) return expected();
  if (value.size() == 2 && !value.contains("burst")) return expected();
  const json& rate = value["per_second"];
  if (!rate.is_number() || rate < lowest_rate || rate > highest_rate) return wrong("/rate/per_second", "a number from 0.001 to 1000000 is expected");
  scheduler::request_rate out{.per_second = rate.get<double>()};
  out.burst = static_cast<int>(std::max(1.0, std::ceil(out.per_second)));
  if (value.contains("burst")) {
    const json& burst = value["burst"];
    if (!burst.is_number_integer() || burst < 1 || burst > highest_rate) return wrong("/rate/burst", "a whole number from 1 to 1000000 is expected");
    out.burst = burst.get<int>();
  }
  wish.rate = out;
  return {};
}

// {"name": "", "roles": [], "pipelines": [], "expires_in": "90d", "rate": {"per_second": 10, "burst": 20}}
result<scheduler::token_record> read_wish(std::string_view text, timestamp now) {
  const auto body = parse_json(text);
  if (!body) return body.error();
  if (!body->is_object()) return error{errc::invalid, "an object is expected: {\"name\": \"grafana\", \"roles\": [\"read\"]}"};
  const std::vector<std::string> known{"name", "roles", "pipelines", "expires_in", "expires_at", "rate"};
  for (const auto& [key, value] : body->items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return error{errc::invalid, config::in_quotes(key) + " is not known here; " + config::suggestion(key, known)};
  }
  scheduler::token_record wish;
  const auto has = [&](const char* key) { return body->contains(key); };
  auto fine = has("name") ? read_name((*body)["name"], wish) : result<void>(wrong("/name", "a name is needed: who or what the token is for"));
  if (fine) fine = has("roles") ? read_roles((*body)["roles"], wish) : result<void>(wrong("/roles", "roles are needed: read, ingest, operate or admin"));
  if (fine && has("pipelines")) fine = read_pipelines((*body)["pipelines"], wish);
  if (fine) fine = read_expiry(*body, wish, now);
  if (fine && has("rate")) fine = read_rate((*body)["rate"], wish);
  if (!fine) return fine.error();
  return wish;
}

std::string in_words(const scheduler::token_record& t) {
  std::string text = "token " + t.id + " (" + t.name + "):";
  for (const std::string& role : t.roles.names()) text += " " + role;
  for (const std::string& name : t.pipelines) text.append(&name == t.pipelines.data() ? " in " : ", ").append(name);
  return text;
}

// Somebody to whom tokens do not matter can make the next one, whatever becomes of these.
bool needs_no_keeper(const request& r) { return r.trusted_peer; }

}  // namespace

asio::awaitable<response> list_tokens(request& r, context& c) {
  const auto wanted = read_page(r, "tokens");
  if (!wanted) co_return problem_response(wanted.error());
  const auto all = c.supervisor.tokens().list();
  json items = json::array();
  std::string next;
  bool begun = wanted->after.empty();
  for (const auto& one : all) {
    if (!begun) {
      begun = one.id == wanted->after;
      continue;
    }
    if (items.size() == wanted->limit) {
      next = make_cursor("tokens", items.back()["id"].get<std::string>());
      break;
    }
    items.push_back(token_json(one));
  }
  co_return response{.body = to_text({{"items", std::move(items)}, {"next_cursor", text_or_null(next)}}) + "\n"};
}

asio::awaitable<response> create_token(request& r, context& c) {
  auto wish = read_wish(r.body, wall_now());
  if (!wish) co_return problem_response(wish.error());
  const auto made = co_await c.supervisor.tokens().create(std::move(*wish), needs_no_keeper(r));
  if (!made) co_return problem_response(made.error());
  json document = token_json(made->record);
  document["token"] = made->text;
  response reply{.status = 201, .body = to_text(document) + "\n"};
  reply.headers.emplace_back("Location", "/v1/tokens/" + made->record.id);
  reply.headers.emplace_back("Cache-Control", "no-store");
  reply.note = in_words(made->record);
  co_return reply;
}

asio::awaitable<response> get_token(request& r, context& c) {
  const auto found = c.supervisor.tokens().find(r.parameter("id"));
  if (!found) co_return problem_response(error{errc::not_found, "no token " + config::in_quotes(r.parameter("id"))});
  co_return response{.body = to_text(token_json(*found)) + "\n"};
}

asio::awaitable<response> revoke_token(request& r, context& c) {
  const std::string& id = r.parameter("id");
  const auto found = c.supervisor.tokens().find(id);
  const auto done = co_await c.supervisor.tokens().revoke(id, needs_no_keeper(r));
  if (!done) co_return problem_response(done.error());
  // What it has open ends now, but for the request that is being answered.
  const auto is_its = [&](const request& other) { return &other != &r && other.token && other.token->id == id; };
  c.http->cut_off(is_its);
  response reply{.status = 204};
  if (found) reply.note = in_words(*found);
  co_return reply;
}

asio::awaitable<response> get_caller(request& r, context& c) {
  json document{{"who", r.token ? "token" : r.trusted_peer ? "socket" : "anyone"}, {"asked", c.supervisor.tokens().asked()}};
  document["token"] = r.token ? token_json(*r.token) : json(nullptr);
  if (r.token) {
    const auto now = c.supervisor.tokens().find(r.token->id);
    if (now) document["token"] = token_json(*now);
  }
  co_return response{.body = to_text(document) + "\n"};
}

asio::awaitable<response> list_audit(request& r, context& c) {
  const auto wanted = read_page(r, "audit");
  if (!wanted) co_return problem_response(wanted.error());
  const auto since = read_time(r, "since");
  if (!since) co_return problem_response(since.error());
  const auto until = read_time(r, "until");
  if (!until) co_return problem_response(until.error());
  const auto outcome = read_word(r, rules_of("outcome"));
  if (!outcome) co_return problem_response(outcome.error());
  scheduler::audit_filter filter{.token = std::string(r.query_value("token").value_or("")),
                                 .pipeline = std::string(r.query_value("pipeline").value_or("")),
                                 .outcome = *outcome,
                                 .since = *since,
                                 .until = *until,
                                 .before_id = wanted->after,
                                 .limit = wanted->limit + 1};
  auto entries = c.supervisor.audit().list(filter);
  const bool more = entries.size() > wanted->limit;
  if (more) entries.resize(wanted->limit);
  json items = json::array();
  for (const auto& entry : entries) items.push_back(audit_json(entry));
  const json next = more ? json(make_cursor("audit", entries.back().id)) : json(nullptr);
  co_return response{.body = to_text({{"items", std::move(items)}, {"next_cursor", next}}) + "\n"};
}

}  // namespace penstock::api
