#include "api/serving.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/admission.hpp"
#include "api/handlers.hpp"
#include "api/media.hpp"
#include "api/problem.hpp"
#include "config/in_quotes.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/machine_failure.hpp"

namespace penstock::api {

namespace {

// While the daemon drains, what only reads is still answered.
bool serves(const endpoint_rules& rules, phase now) {
  return rules.always || now == phase::ready || (now == phase::stopping && rules.method == http_method::get);
}

// Whether a client may wish for a form of the answer. A probe, and a sender that may deliver only once, are never refused for that.
bool negotiates(const request& r, const endpoint_rules& rules) {
  if (rules.needs == access::open || rules.needs == access::signed_body || asks_for_websocket(r)) return false;
  const std::string_view accept = r.header_value("accept");
  return !accept.empty() && accept != "*/*";
}

// Bodies that are JSON and nothing else; what reads several types decides for itself.
bool reads_only_json(const endpoint_rules& rules) {
  return !rules.body.empty() && rules.body != "PipelineDefinition" && rules.body != "Events" && rules.body != "Delivery";
}

asio::awaitable<response> refusal(response reply) { co_return reply; }

std::optional<response> check_media(const request& r, const endpoint_rules& rules, const std::vector<std::string_view>& offers) {
  const std::string_view sent = r.header_value("content-type");
  if (!r.body.empty() && !sent.empty() && sent != json_type && reads_only_json(rules)) {
    const std::string type = bare_type(sent);
    if (!is_json(type) && !says_nothing(type)) {
      return problem_response(error{errc::unsupported_media,
                                    "content type " + config::in_quotes(sent) + " is not read here; known: application/json"});
    }
  }
  if (!offers.empty() && negotiates(r, rules) && !best_offer(r.header_list("accept"), offers)) return not_acceptable(r, offers);
  return std::nullopt;
}

constexpr std::size_t shown_elsewhere = 128 << 10;  // JSON of more bytes is made text on another thread, so that nobody feels it

// For endpoints whose answer has several forms. The text is made of the JSON when the client wants that more.
asio::awaitable<response> handle_and_show(const endpoint& e, request& r, context& c, const std::vector<std::string_view>& offers) {
  const bool as_text = e.text && best_offer(r.header_list("accept"), offers) == text_type;
  response reply = co_await e.handle(r, c);
  reply.headers.emplace_back("Vary", "Accept");
  if (!as_text || reply.status >= 300 || reply.content_type != json_type) co_return reply;
  auto work = [&e, &reply] { return e.text(shown_json::parse(reply.body)); };
  if (reply.body.size() > shown_elsewhere) {
    reply.body = co_await c.blocking.run(std::move(work));
  } else {
    reply.body = work();
  }
  reply.content_type = text_type;
  co_return reply;
}

asio::awaitable<response> handled(const endpoint& e, request& r, context& c, const std::vector<std::string_view>& offers) {
  return offers.size() > 1 ? handle_and_show(e, r, c, offers) : e.handle(r, c);
}

// Moving events in is what the daemon is for, and it counts these by topic; everything else that changes something is written
// down.
bool is_audited(const endpoint_rules& rules) {
  return rules.method != http_method::get && (rules.needs == access::operate || rules.needs == access::admin);
}

std::string pipeline_of(const scheduler::audit_record& entry, const request& r, context& c) {
  if (!entry.pipeline.empty() || entry.endpoint.find("/runs/{id}") == std::string::npos) return entry.pipeline;
  const auto run = c.supervisor.run(r.parameter("id"));
  return run ? run->pipeline : std::string();
}

// What changes definitions or tokens is answered once its entry is durable; what is done with them leaves traces of its own,
// so its entry may come a moment after the answer. Of what failed there may be a flood, and nothing of what there was too much
// of: entries of that would hold up the very work that it came too early for.
asio::awaitable<response> audited(const endpoint& e, request& r, context& c, const std::vector<std::string_view>& offers) {
  auto entry = audit_entry(r, e.rules);
  entry.pipeline = pipeline_of(entry, r, c);
  response reply;
  std::exception_ptr failure;
  try {
    auto work = handled(e, r, c, offers);
    reply = co_await std::move(work);
  } catch (...) {
    failure = std::current_exception();
  }
  entry.status = !failure ? reply.status : runtime::machine_failure(failure).empty() ? 500 : 503;  // as session answers
  entry.outcome = entry.status < 400 ? "done" : "failed";
  entry.detail = reply.note;
  if (entry.endpoint == "/v1/pipelines") entry.pipeline = reply.subject;
  if (e.rules.needs == access::admin) {
    co_await c.supervisor.audit().add(std::move(entry));
  } else if (entry.outcome == "done") {
    c.supervisor.audit().note(std::move(entry));
  } else if (entry.status != 429) {
    c.supervisor.audit().note_some(std::move(entry), std::chrono::steady_clock::now());
  }
  if (failure) std::rethrow_exception(failure);
  co_return reply;
}

}  // namespace

std::vector<std::string_view> offers_of(const endpoint_rules& rules) {
  std::vector<std::string_view> offers;
  for (const answer_rules& answer : rules.answers) {
    for (const std::string_view type : answer.media) {
      if (std::find(offers.begin(), offers.end(), type) == offers.end()) offers.push_back(type);
    }
  }
  return offers;
}

asio::awaitable<response> serve(const endpoint& e, request& r, context& c, const std::vector<std::string_view>& offers) {
  if (!serves(e.rules, c.now)) return not_ready(r, c);
  if (auto refused = check_media(r, e.rules, offers)) return refusal(std::move(*refused));
  return is_audited(e.rules) ? audited(e, r, c, offers) : handled(e, r, c, offers);
}

}  // namespace penstock::api
