// What the steps that go by the events' own time (window, join) have in common: the settings of that time, how it is read
// from an event, and what names a result. Pure functions but id_maker, which belongs to its step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "config/field.hpp"

struct evp_md_st;  // of OpenSSL
struct evp_md_ctx_st;

namespace penstock::runtime::components {

constexpr double shortest_s = 0.001;

config::field duration_field(std::string name, std::string doc, std::string fallback, std::string example,
                             double minimum);
config::field time_field();
config::field delay_field();
config::field idle_field();
config::field max_ahead_field();

// A checked duration in microseconds.
std::int64_t micros_of(const config::value& nanoseconds);

// `time` comes in as the event's own, and goes out as what `given`, the JSON of the setting `time`, says; empty: there is
// no such setting. Microseconds since 1970, as is `wall`. Returns what is wrong with it, or empty.
std::string find_event_time(std::string_view given, std::int64_t wall, std::int64_t max_ahead, std::int64_t& time);

// A key as an event has it: texts as they are, all else as JSON, null as none.
std::string key_text(std::string_view json);

// The first half of SHA-256, as 32 hexadecimal digits: enough to never meet another.
class id_maker {
 public:
  id_maker();
  std::string of(std::string_view text);

 private:
  std::unique_ptr<evp_md_st, void (*)(evp_md_st*)> digest_;
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace penstock::runtime::components
