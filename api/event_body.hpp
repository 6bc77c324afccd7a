// Request bodies that carry events, by content type: JSON, NDJSON, CloudEvents (binary, structured, batch),
// and the body of a trigger. Pure but for the clock that is a parameter; any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "api/http.hpp"
#include "config/error.hpp"
#include "config/time.hpp"
#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::api {

// What the Content-Type says. `certain` is false when it says nothing about events (absent, or curl's form
// type): the body is then JSON, or NDJSON when it only makes sense so. `known` is false for types that are not read here.
struct event_format {
  runtime::intake_format format = runtime::intake_format::json;
  bool binary = false;  // CloudEvents attributes in ce-* headers
  bool certain = true;
  bool known = true;
};

event_format format_of(const request& r);

// All events of a body; views point into `body`, which the batch adopts. `r` is read for ce-* headers only.
// errc::malformed with line or item, errc::too_large, errc::unsupported_media.
result<runtime::batch> read_event_body(const request& r, std::shared_ptr<const runtime::buffer> body,
                                       const event_format& format, const runtime::event_defaults& defaults);

// {"params": {}, "events": []}, both optional, or nothing at all. Payloads are kept byte for byte.
// errc::malformed: not JSON; errc::invalid: another key, params that are no object, events that are no array.
result<scheduler::trigger_request> read_trigger(const runtime::buffer& body, timestamp now);

}  // namespace penstock::api
