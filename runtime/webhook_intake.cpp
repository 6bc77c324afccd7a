#include "runtime/webhook_intake.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/cloudevents.hpp"
#include "runtime/json.hpp"
#include "runtime/text.hpp"

namespace penstock::runtime {

namespace {

std::string_view header_of(const delivery& d, std::string_view name) {
  const auto found = d.headers.find(std::string(name));
  return found == d.headers.end() ? std::string_view() : std::string_view(found->second);
}

bool has_event_headers(const delivery& d) {
  constexpr const char* required[] = {"ce-specversion", "ce-id", "ce-source", "ce-type"};
  return std::any_of(std::begin(required), std::end(required), [&d](const char* name) { return d.headers.contains(name); });
}

// Without a content type that says otherwise a body is JSON: many senders, curl -d among them, name none or a
// wrong one.
intake_format format_of(const std::string& type) {
  if (type == "application/cloudevents-batch+json") return intake_format::cloudevents_batch;
  if (type == "application/cloudevents+json") return intake_format::cloudevent;
  if (type.find("ndjson") != std::string::npos || type.find("jsonl") != std::string::npos)
    return intake_format::ndjson;
  return intake_format::json;
}

// As an event's id a delivery's must be one that is read and written everywhere the same.
bool may_be_event_id(std::string_view id) {
  return id.size() <= 256 && std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

webhook_intake::webhook_intake(std::string path, const config::value& signature,
                               const std::function<std::string(const std::string&)>& reveal)
    : source_("/hooks" + path) {
  if (!path.starts_with('/')) throw std::runtime_error("path '" + path + "' must begin with a slash");
  if (signature.is_null()) return;
  signature_ = std::make_shared<const signature_rule>(signature_rule_of(signature));
  const auto several = signature.find("secrets");
  const config::value references =
      several == signature.end() ? config::value::array({signature.at("secret")}) : *several;
  for (const config::value& reference : references) {
    keys_.push_back(signing_key(*signature_, reveal(reference.get<std::string>())));
  }
}

result<verified_delivery> webhook_intake::verify(const delivery& d, timestamp now) const {
  if (!signature_ && !d.trusted) return error{errc::forbidden, source_ + " checks no signature, so it takes trusted deliveries only"};
  if (!signature_) return verified_delivery{};
  return verify_signature(*signature_, keys_, d.headers, d.body->text(), now);
}

result<batch> webhook_intake::read(const delivery& d, const std::string& id, timestamp now) const {
  std::string type = lower_case(header_of(d, "content-type"));
  type.resize(std::min(type.size(), type.find_first_of("; \t")));
  const intake_format format = format_of(type);
  const bool structured = type.starts_with("application/cloudevents");
  if (structured && format == intake_format::json) {
    return error{errc::unsupported_media, "content type '" + type + "' is not read here; known of CloudEvents: application/cloudevents+json, " +
                                              "application/cloudevents-batch+json, or ce-* headers"};
  }
  if (!structured && has_event_headers(d)) {
    return read_binary_cloudevent([&d](std::string_view name) { return header_of(d, name); }, d.body, now);
  }
  const event_defaults defaults{
      .source = source_, .now = now, .id = may_be_event_id(id) ? std::string_view(id) : std::string_view()};
  auto events = read_events(d.body, format, defaults);
  if (!events && events.error().code == errc::malformed && type == "application/x-www-form-urlencoded") {
    return error{errc::unsupported_media,
                 "this delivery is a form, and JSON is read here; set the sender's content type to application/json "
                 "(at GitHub: Settings, Webhooks, Content type)"};
  }
  return events;
}

result<batch> webhook_intake::take(const delivery& d, timestamp now) const {
  const result<verified_delivery> verified = verify(d, now);
  if (!verified) return verified.error();
  return read(d, verified->id, now);
}

asio::awaitable<result<delivery_answer>> webhook_intake::receive(delivery d, std::shared_ptr<replay_memory> seen,
                                                                 onward go_on, timestamp now) const {
  const result<verified_delivery> verified = verify(d, now);
  if (!verified) co_return verified.error();
  std::unique_ptr<replay_memory::claim> claim;
  if (!verified->keys.empty()) {
    auto begun = seen->begin(verified->keys, now, signature_->replay_limit);
    if (!begun) co_return begun.error();
    if (!*begun) {
      spdlog::info("{}: a delivery like one that was accepted came again{}", source_, verified->id.empty() ? "" : ", id " + verified->id);
      co_return delivery_answer{.accepted = 0, .duplicate = true};
    }
    claim = std::move(*begun);
  }
  result<batch> events = read(d, verified->id, now);
  if (!events) co_return events.error();
  const bool told_apart = claim && may_be_event_id(verified->id);
  posted one{std::move(*events), told_apart ? verified->id : std::string()};
  const result<delivery_answer> answer = co_await go_on(std::move(one));
  if (answer && claim) claim->keep(verified->remembered_until);
  co_return answer;
}

}  // namespace penstock::runtime
