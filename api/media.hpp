// Media types: what a body may be, and which of several forms of an answer a client wants (RFC 9110, sections 8.3 and 12.5.1).
// Pure, any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace penstock::api {

inline constexpr std::string_view json_type = "application/json";
inline constexpr std::string_view yaml_type = "application/yaml";  // RFC 9512
inline constexpr std::string_view ndjson_type = "application/x-ndjson";
inline constexpr std::string_view text_type = "text/plain; charset=utf-8";
inline constexpr std::string_view metrics_type = "text/plain; version=0.0.4; charset=utf-8";
inline constexpr std::string_view sse_type = "text/event-stream";
inline constexpr std::string_view problem_type = "application/problem+json";
inline constexpr std::string_view schema_type = "application/schema+json";
inline constexpr std::string_view cloudevent_type = "application/cloudevents+json";
inline constexpr std::string_view cloudevents_batch_type = "application/cloudevents-batch+json";

// Without spaces and tabs around it.
std::string_view trimmed(std::string_view text);

// Of the parameters behind a range ("level=1;q=0.5"): 0 to 1000 (RFC 9110, section 12.4.2). What is no quality counts as 1, as if
// it were not there.
int quality_of(std::string_view parameters);

// "Text/Plain; charset=utf-8" -> "text/plain"
std::string bare_type(std::string_view content_type);

bool is_yaml(std::string_view bare);
// Also types that end in +json.
bool is_json(std::string_view bare);
// What clients send who name no type: nothing, curl's form type, plain text, bytes.
bool says_nothing(std::string_view bare);

// The offer that the Accept header values most; of equal ones that which it names most exactly, then first, then the first offer.
// Parameters other than q do not count. application/json also asks for what ends in +json, and other names of YAML for YAML.
// Without the header the first offer; nothing when none is acceptable. There is at least one offer.
std::optional<std::string_view> best_offer(std::string_view accept, std::span<const std::string_view> offers);

// "application/json, text/plain"
std::string media_list(std::span<const std::string_view> types);

}  // namespace penstock::api
