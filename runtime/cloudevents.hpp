// A CloudEvent whose attributes are HTTP headers and whose data is the body: binary content mode of the CloudEvents
// HTTP protocol binding 1.0.2, section 3.1. One reader for topics and hooks. Pure, any thread. (The structured and
// batched modes are bodies like others: json.hpp.)
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "config/error.hpp"
#include "runtime/event.hpp"

namespace penstock::runtime {

// The value of a request header by its lower-case name; empty when there is none. Valid as long as the request.
using header_lookup = std::function<std::string_view(std::string_view name)>;

// A media type with its letters in lower case, which mean the same (RFC 9110, section 8.3.1); its parameters stay as they are.
std::string with_small_letters(std::string_view media_type);

// One event. `body` is its payload, adopted by the batch; an empty one is null when its type is JSON. `now`: its time
// when it brings none. errc::malformed: an attribute is missing or not readable, or the data is not JSON though its
// type says so; errc::too_large: beyond intake_limits::event_bytes.
result<batch> read_binary_cloudevent(const header_lookup& header, std::shared_ptr<const buffer> body, timestamp now);

}  // namespace penstock::runtime
