// Payloads to events and events to text: NDJSON, JSON arrays, CloudEvents JSON. simdjson does the reading.
// Pure functions over bytes, any thread (each thread keeps its own parser).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "config/error.hpp"
#include "runtime/event.hpp"

namespace penstock::runtime {

// What events get that do not bring the attribute themselves.
struct event_defaults {
  std::string source;  // e.g. "/topics/orders"
  std::string type = "event";
  timestamp now{};  // receive time
  std::string_view id{};  // of a single event; of several it is followed by -1, -2, ...; empty: a ULID for each
};

enum class intake_format { json, ndjson, cloudevent, cloudevents_batch };

struct intake_limits {
  std::size_t event_bytes = 1 << 20;
  std::size_t events = 100'000;
  int depth = 64;  // nested arrays and objects; an empty one inside does not count
};

// Reads a whole request body. json: one object is one event, an array is many (its items must be objects or
// any JSON value, each one event); ndjson: one event a line, blank lines skipped. Payload views point into
// `body`, which the batch adopts. errc::malformed names line (ndjson) or item (arrays) and what is wrong;
// then nothing is returned. errc::too_large: one event or the count is over its limit.
result<batch> read_events(std::shared_ptr<const buffer> body, intake_format format,
                          const event_defaults& defaults, const intake_limits& limits = {});

// Checks one payload: well-formed JSON within the depth limit. Returns what is wrong, or empty.
std::string check_json(std::string_view padded_text, int max_depth = 64);

// One line of NDJSON: the payload itself when it is JSON (newlines inside become spaces), a JSON string
// otherwise (base64 when it is not UTF-8). Appends to `out`, newline included.
void append_ndjson(std::string& out, const event& e);

// The event as CloudEvents 1.0 JSON with `offset` (position) beside: what `GET /v1/topics/T/events` shows.
void append_cloudevent(std::string& out, const event& e);

// Appends `text` as a JSON string with quotes; bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

// The same for text that must be UTF-8: false, and nothing appended, when it is not.
bool append_utf8_json_string(std::string& out, std::string_view text);

}  // namespace penstock::runtime
