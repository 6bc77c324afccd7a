#include "runtime/cloudevents.hpp"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "config/in_quotes.hpp"
#include "runtime/json.hpp"

namespace penstock::runtime {

namespace {

// A quoted string's content (RFC 9110, section 5.6.4); any other text as it is.
std::string unquoted(std::string_view text) {
  if (text.size() < 2 || text.front() != '"' || text.back() != '"') return std::string(text);
  std::string out;
  for (std::size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] == '\\' && i + 2 < text.size()) ++i;
    out += text[i];
  }
  return out;
}

// A % that no two hex digits follow stays: senders that do not encode write it so.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr == text.data() + i + 3) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// Why it can be no attribute (CloudEvents 1.0.2, section 3.1.1), or nothing.
const char* attribute_fault(std::string_view text) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  std::string ignored;
  if (std::any_of(text.begin(), text.end(), control)) return "has a control character";
  return append_utf8_json_string(ignored, text) ? nullptr : "is not UTF-8";
}

// Section 3.1.3.2: quotes go first, then one round of percent-decoding.
result<std::string> attribute_text(std::string_view header_value) {
  std::string text = percent_decoded(unquoted(header_value));
  if (const char* fault = attribute_fault(text)) return error{errc::malformed, fault};
  return text;
}

result<void> read_attributes(batch& memory, event& e, const header_lookup& header) {
  std::string_view time;
  const std::pair<const char*, std::string_view*> known[] = {
      {"ce-id", &e.id},           {"ce-source", &e.source},     {"ce-type", &e.type},
      {"ce-subject", &e.subject}, {"ce-partitionkey", &e.key},  {"ce-time", &time}};
  for (const auto& [name, slot] : known) {
    const auto text = attribute_text(header(name));
    if (!text) return error{errc::malformed, std::string(name) + " " + text.error().detail};
    *slot = memory.keep(*text);
  }
  if (header("ce-specversion") != "1.0") return error{errc::malformed, "ce-specversion must be 1.0"};
  if (e.id.empty() || e.source.empty() || e.type.empty()) {
    return error{errc::malformed, "a CloudEvent has ce-id, ce-source and ce-type"};
  }
  if (time.empty()) return {};
  const auto parsed = parse_time(time);
  if (!parsed) {
    return error{errc::malformed, "ce-time " + config::in_quotes(time) + " is not an RFC 3339 time"};
  }
  e.time = *parsed;
  return {};
}

}  // namespace

std::string with_small_letters(std::string_view media_type) {
  std::string out(media_type);
  const auto end = out.begin() + static_cast<std::ptrdiff_t>(std::min(out.find(';'), out.size()));
  std::transform(out.begin(), end, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return out;
}

result<batch> read_binary_cloudevent(const header_lookup& header, std::shared_ptr<const buffer> body,
                                     timestamp now) {
  const std::size_t most = intake_limits{}.event_bytes;
  if (body->text().size() > most) {
    return error{errc::too_large, "the event has " + std::to_string(body->text().size()) + " bytes, at most " +
                                      std::to_string(most) + " are taken"};
  }
  batch events;
  event e;
  e.time = now;
  e.data = body->text();
  events.adopt(std::move(body));
  std::string type = with_small_letters(header("content-type"));
  std::replace(type.begin(), type.end(), '\t', ' ');  // white space to HTTP, a control character to CloudEvents
  if (const char* fault = attribute_fault(type)) return error{errc::malformed, std::string("content-type ") + fault};
  e.datacontenttype = events.keep(type);
  if (const auto read = read_attributes(events, e, header); !read) return read.error();
  if (e.is_json() && e.data.empty()) e.data = events.keep("null");
  if (e.is_json()) {
    if (const std::string wrong = check_json(e.data); !wrong.empty()) {
      return error{errc::malformed, "the event's data is not JSON: " + wrong};
    }
  }
  events.events.push_back(e);
  return events;
}

}  // namespace penstock::runtime
