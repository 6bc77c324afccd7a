// Bodies that carry events: JSON, NDJSON, CloudEvents (structured, batch, binary), and those that start a run.
// Input: headers as "name: value", an empty line, the body. What is read is shown as JSON, and read again it is the same.
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "api/event_body.hpp"
#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

using json = nlohmann::ordered_json;

const timestamp now = from_micros(1'774'000'000'000'000);

bool is_json(const std::string& text) { return runtime::check_json(runtime::buffer(text).text()).empty(); }

result<runtime::batch> read_again(std::string text, runtime::intake_format format) {
  return runtime::read_events(std::make_shared<const runtime::buffer>(std::move(text)), format, {.source = "/topics/t", .now = now});
}

// As a topic shows it, and as a consumer would send it on.
void try_one(const runtime::event& e, bool of_json) {
  require(!e.id.empty() && !e.source.empty() && !e.type.empty(), "an event has what CloudEvents requires");
  require(e.data.size() <= runtime::intake_limits{}.event_bytes, "an event is within its limit");
  if (of_json && !e.data.empty()) require(runtime::check_json(e.data).empty(), "a payload of JSON is JSON", e.data);
  std::string shown, line;
  runtime::append_cloudevent(shown, e);
  require(is_json(shown), "an event is shown as JSON", shown);
  runtime::append_ndjson(line, e);
  require(line.ends_with('\n') && line.find('\n') == line.size() - 1, "an event is one line", line);
  line.pop_back();
  require(is_json(line), "a line is JSON", line);
  const auto again = read_again(shown, runtime::intake_format::cloudevent);
  require(again && again->size() == 1, "an event is read as it was shown", again ? shown : again.error().detail + shown);
  const runtime::event& same = again->events.front();
  require(same.id == e.id && same.source == e.source && same.type == e.type && same.subject == e.subject && same.time == e.time,
          "its attributes are read as they were shown", shown);
  if (of_json && !e.data.empty()) require(json::parse(same.data) == json::parse(e.data), "its data is read as it was shown", shown);
}

}  // namespace

void try_input(std::string_view text) {
  api::request r;
  for (std::string_view line = take_line(text); !line.empty(); line = take_line(text)) {
    const std::size_t colon = std::min(line.find(':'), line.size());
    std::string_view value = line.substr(std::min(colon + 1, line.size()));
    while (value.starts_with(' ')) value.remove_prefix(1);
    r.headers.push_back({line.substr(0, colon), value});
  }
  const auto body = std::make_shared<const runtime::buffer>(std::string(text));
  const api::event_format format = api::format_of(r);
  auto events = api::read_event_body(r, body, format, {.source = "/topics/orders", .now = now});
  if (!events) {
    require(!events.error().detail.empty(), "a refusal says why");
  } else {
    std::string lines;
    for (const runtime::event& e : events->events) {
      try_one(e, e.is_json());
      runtime::append_ndjson(lines, e);
    }
    const auto again = read_again(lines, runtime::intake_format::ndjson);
    if (!events->empty()) require(again && again->size() == events->size(), "as lines they are as many events", lines);
  }
  const auto trigger = api::read_trigger(*body, now);
  if (!trigger) return require(!trigger.error().detail.empty(), "a refusal says why");
  if (!trigger->params.empty()) require(json::parse(trigger->params).is_object(), "parameters are an object", trigger->params);
  const auto count = std::count(trigger->ndjson.begin(), trigger->ndjson.end(), '\n');
  require(count == trigger->events, "each event of a trigger is a line", trigger->ndjson);
}

}  // namespace penstock::fuzz
