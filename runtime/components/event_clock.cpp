#include "runtime/components/event_clock.hpp"

#include <cmath>
#include <optional>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>
#include <openssl/evp.h>

#include "config/time.hpp"
#include "runtime/aggregates.hpp"

namespace penstock::runtime::components {

namespace {

// The years 100 to 9900: windows around them can still be written as RFC 3339.
constexpr std::int64_t earliest_time = -59'011'459'200'000'000, latest_time = 250'246'627'200'000'000;

// Of an RFC 3339 text or milliseconds since 1970, as JSON.
std::optional<std::int64_t> micros_of_time(std::string_view json) {
  std::optional<std::int64_t> at;
  if (json.size() >= 2 && json.front() == '"') {
    if (const auto parsed = parse_time(json.substr(1, json.size() - 2))) at = to_micros(*parsed);
  } else if (const auto ms = number_of(json)) {
    if (std::abs(ms->real) > 1e15) return std::nullopt;
    at = ms->whole ? ms->integer * 1000 : std::llround(ms->real * 1000);
  }
  return at;
}

}  // namespace

config::field duration_field(std::string name, std::string doc, std::string fallback, std::string example,
                             double minimum) {
  return {.name = std::move(name),
          .type = config::field_type::duration,
          .doc = std::move(doc),
          .fallback = std::move(fallback),
          .example = std::move(example),
          .minimum = minimum};
}

config::field time_field() {
  return {.name = "time",
          .type = config::field_type::expression,
          .doc = "When the event happened: an RFC 3339 text or milliseconds since 1970. Without it, meta.time.",
          .example = "event.time"};
}

config::field delay_field() {
  return duration_field("delay",
                        "How far the watermark stays behind the newest time, so that events that are out of order by "
                        "less are in time.",
                        "0s", "1m", 0);
}

config::field idle_field() {
  return duration_field("idle", "When no event has come for so long, the watermark moves on with the wall clock.", "1m",
                        "10s", shortest_s);
}

config::field max_ahead_field() {
  return duration_field("max_ahead", "An event whose time is further ahead of the wall clock is a dead letter.", "1h",
                        "5m", 0);
}

std::int64_t micros_of(const config::value& nanoseconds) { return nanoseconds.get<std::int64_t>() / 1000; }

std::string find_event_time(std::string_view given, std::int64_t wall, std::int64_t max_ahead, std::int64_t& time) {
  if (!given.empty()) {
    const std::optional<std::int64_t> found = micros_of_time(given);
    if (!found)
      return "time: an RFC 3339 text or milliseconds since 1970 are needed, not " +
             std::string(given.size() > 100 ? "this value" : given);
    time = *found;
  }
  if (time < earliest_time || time > latest_time) return "its time is not within the years 100 to 9900";
  if (time - wall > max_ahead)
    return "its time " + format_time(from_micros(time)) + " is more than " +
           format_duration(std::chrono::microseconds(max_ahead)) + " ahead of the clock (max_ahead)";
  return {};
}

std::string key_text(std::string_view json) {
  if (json == "null") return {};
  if (json.front() != '"') return std::string(json);
  if (json.find('\\') == json.npos) return std::string(json.substr(1, json.size() - 2));
  return nlohmann::json::parse(json).get<std::string>();
}

id_maker::id_maker()
    : digest_(EVP_MD_fetch(nullptr, "SHA256", nullptr), EVP_MD_free), context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  if (!digest_ || !context_) throw std::runtime_error("SHA-256 is not available");
}

std::string id_maker::of(std::string_view text) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  const bool done = EVP_DigestInit_ex2(context_.get(), digest_.get(), nullptr) == 1 &&
                    EVP_DigestUpdate(context_.get(), text.data(), text.size()) == 1 &&
                    EVP_DigestFinal_ex(context_.get(), hash, nullptr) == 1;
  if (!done) throw std::runtime_error("SHA-256 failed");
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < 16; ++i) {
    out += digits[hash[i] >> 4];
    out += digits[hash[i] & 15];
  }
  return out;
}

}  // namespace penstock::runtime::components
