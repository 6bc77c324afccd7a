#include "api/event_body.hpp"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>
#include <simdjson.h>

#include "api/json.hpp"
#include "api/media.hpp"
#include "config/in_quotes.hpp"
#include "runtime/cloudevents.hpp"

namespace penstock::api {

namespace {

using runtime::intake_format;
namespace ondemand = simdjson::ondemand;

// A CloudEvent in headers (HTTP binding 1.0.2, section 3.1): also when some of what it needs is missing, so that it is told.
bool has_event_headers(const request& r) {
  constexpr std::string_view required[] = {"specversion", "id", "source", "type"};
  return std::any_of(r.headers.begin(), r.headers.end(), [&](const header& h) {
    return h.name.size() > 3 && same_letters(h.name.substr(0, 3), "ce-") &&
           std::any_of(std::begin(required), std::end(required),
                       [&h](std::string_view name) { return same_letters(h.name.substr(3), name); });
  });
}

// ---- triggers ----

// The parts of a trigger's body as they were written.
struct trigger_text {
  std::string_view params, events;  // empty: not given
  std::optional<std::int64_t> priority{};
};

// Nothing when simdjson dislikes the text; the caller then finds out where.
std::optional<result<trigger_text>> split_trigger(ondemand::parser& parser, std::string_view text) {
  ondemand::document document;
  const simdjson::padded_string_view padded(text.data(), text.size(), text.size() + runtime::padding);
  if (parser.iterate(padded).get(document)) return std::nullopt;
  ondemand::object object;
  if (const auto failure = document.get_object().get(object)) {
    if (failure != simdjson::INCORRECT_TYPE || !parse_json(text)) return std::nullopt;
    return error{errc::invalid, "the body must be an object such as {\"params\": {}, \"events\": []}"};
  }
  trigger_text out;
  for (auto entry : object) {
    std::string_view key;
    ondemand::value value;
    ondemand::json_type type{};
    if (entry.unescaped_key().get(key) || entry.value().get(value) || value.type().get(type))
      return std::nullopt;
    if (key == "params") {
      if (type != ondemand::json_type::object) return error{errc::invalid, "params must be an object"};
      ondemand::object params;
      if (value.get_object().get(params) || params.raw_json().get(out.params)) return std::nullopt;
    } else if (key == "events") {
      if (type != ondemand::json_type::array) return error{errc::invalid, "events must be an array"};
      ondemand::array events;
      if (value.get_array().get(events) || events.raw_json().get(out.events)) return std::nullopt;
    } else if (key == "priority") {
      std::int64_t priority = -1;
      if (type != ondemand::json_type::number || value.get_int64().get(priority) || priority < 0 || priority > 9) {
        return error{errc::invalid, "priority must be a whole number from 0 to 9", {{"/priority", 0, 0, "must be a whole number from 0 to 9"}}};
      }
      out.priority = priority;
    } else {
      return error{
          errc::invalid,
          "unknown key " + config::in_quotes(key) + "; " + config::suggestion(key, {"params", "events", "priority"}),
          {{"/" + std::string(key), 0, 0, "unknown key"}}};
    }
  }
  // Something behind the object: then there is a place to point at, and otherwise not.
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) return std::nullopt;
  return out;
}

error not_json(std::string_view text) {
  const auto parsed = parse_json(text);
  return parsed ? error{errc::malformed, "the body is not one JSON document"} : parsed.error();
}

bool is_empty_array(std::string_view array) {
  const auto first = array.find_first_not_of(" \t\r\n", 1);
  return first != array.npos && array[first] == ']';
}

result<void> add_events(scheduler::trigger_request& out, std::string_view array, timestamp now) {
  if (is_empty_array(array)) return {};  // as if there were none
  // The ids made here are not kept: those of a run's events derive from the run's id.
  const runtime::event_defaults defaults{.source = "/runs", .now = now};
  auto events = runtime::read_events(std::make_shared<runtime::buffer>(std::string(array)),
                                     intake_format::json, defaults);
  if (!events) {
    error wrong = events.error();
    wrong.detail = "events: " + wrong.detail;
    for (problem& p : wrong.problems) p.pointer = "/events" + p.pointer;
    return wrong;
  }
  out.ndjson.reserve(array.size());
  for (const runtime::event& e : events->events) runtime::append_ndjson(out.ndjson, e);
  out.events = static_cast<std::int64_t>(events->size());
  return {};
}

}  // namespace

event_format format_of(const request& r) {
  const bool binary = has_event_headers(r);
  const std::string_view sent = r.header_value("content-type");
  if (sent == "application/json" && !binary) return {};  // most requests: no copy of it
  const std::string type = bare_type(sent);
  if (type == cloudevent_type) return {.format = intake_format::cloudevent};
  if (type == cloudevents_batch_type) return {.format = intake_format::cloudevents_batch};
  if (type.starts_with("application/cloudevents")) return {.known = false};  // another event format, such as Avro
  if (binary) return {.binary = true};
  if (type == "application/x-ndjson" || type == "application/ndjson" || type == "application/jsonl" ||
      type == "application/x-jsonlines") {
    return {.format = intake_format::ndjson};
  }
  if (is_json(type)) return {};
  return {.certain = false, .known = says_nothing(type)};
}

result<runtime::batch> read_event_body(const request& r, std::shared_ptr<const runtime::buffer> body,
                                       const event_format& format, const runtime::event_defaults& defaults) {
  if (!format.known) {
    return error{errc::unsupported_media,
                 "content type " + config::in_quotes(r.header_value("content-type")) +
                     " is not read here; known: application/json, application/x-ndjson, "
                     "application/cloudevents+json, application/cloudevents-batch+json, or ce-* headers"};
  }
  if (format.binary) {
    const auto header = [&r](std::string_view name) { return r.header_value(name); };
    return runtime::read_binary_cloudevent(header, std::move(body), defaults.now);
  }
  auto events = runtime::read_events(body, format.format, defaults);
  if (events || format.certain || events.error().code != errc::malformed) return events;
  const bool lines = body->text().find('\n') != std::string_view::npos;
  if (lines) {
    auto as_lines = runtime::read_events(body, intake_format::ndjson, defaults);
    // More than one line, or it is the same failure told worse.
    if (as_lines) return as_lines;
  }
  return events;
}

result<scheduler::trigger_request> read_trigger(const runtime::buffer& body, timestamp now) {
  scheduler::trigger_request out;
  const std::string_view text = body.text();
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return out;
  thread_local ondemand::parser parser;
  const auto parts = split_trigger(parser, text);
  if (!parts) return not_json(text);
  if (!*parts) return parts->error();
  if ((*parts)->priority) out.priority = static_cast<int>(*(*parts)->priority);
  if (!(*parts)->params.empty()) {
    const auto params = parse_json((*parts)->params);
    if (!params) return not_json(text);
    out.params = to_text(*params);
  }
  if (!(*parts)->events.empty()) {
    const auto added = add_events(out, (*parts)->events, now);
    if (!added) return added.error();
  }
  return out;
}

}  // namespace penstock::api
