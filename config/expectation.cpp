#include "config/expectation.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "config/place.hpp"

namespace penstock::config {

bool same_value(const value& one, const value& other) {
  if (one.is_object() && other.is_object()) {
    return one.size() == other.size() && std::all_of(one.items().begin(), one.items().end(), [&](const auto& member) {
             const auto found = other.find(member.key());
             return found != other.end() && same_value(member.value(), *found);
           });
  }
  if (one.is_array() && other.is_array()) {
    return std::equal(one.begin(), one.end(), other.begin(), other.end(), same_value);
  }
  // The library takes the largest numbers for negative ones here.
  if (one.is_number_integer() && other.is_number_integer() && one.is_number_unsigned() != other.is_number_unsigned()) {
    const value& with_sign = one.is_number_unsigned() ? other : one;
    const value& without = one.is_number_unsigned() ? one : other;
    return std::cmp_equal(with_sign.get<std::int64_t>(), without.get<std::uint64_t>());
  }
  return one == other;
}

namespace {

constexpr std::size_t long_text = 60;  // bytes; of longer ones only the part that differs is told

bool within_character(std::string_view text, std::size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
}

// What follows `begin`, in quotes.
std::string excerpt(std::string_view text, std::size_t begin) {
  std::size_t end = std::min(begin + long_text / 2, text.size());
  while (within_character(text, end)) --end;
  return value(std::string(text.substr(begin, end - begin))).dump() + (end < text.size() ? "…" : "");
}

std::string difference_of_texts(const std::string& expected, const std::string& got) {
  const auto [one, other] = std::mismatch(expected.begin(), expected.end(), got.begin(), got.end());
  auto at = static_cast<std::size_t>(one - expected.begin());
  while (at > 0 && (within_character(expected, at) || within_character(got, at))) --at;
  return "from byte " + std::to_string(at + 1) + " on " + excerpt(expected, at) + " expected, " + excerpt(got, at) + " came";
}

// Where two values differ first, and how. They do differ.
std::string difference(const value& expected, const value& got, const std::string& at = {}) {
  if (expected.is_object() && got.is_object()) {
    for (const auto& [key, inner] : expected.items()) {
      const std::string there = at + "/" + pointer_part(key);
      const auto found = got.find(key);
      if (found == got.end()) return there + ": missing";
      if (!same_value(inner, *found)) return difference(inner, *found, there);
    }
    for (const auto& [key, inner] : got.items()) {
      if (!expected.contains(key)) return at + "/" + pointer_part(key) + ": not expected";
    }
  }
  if (expected.is_array() && got.is_array()) {
    for (std::size_t i = 0; i < std::min(expected.size(), got.size()); ++i) {
      if (!same_value(expected[i], got[i])) return difference(expected[i], got[i], at + "/" + std::to_string(i));
    }
    return at + ": " + std::to_string(expected.size()) + " items expected, " + std::to_string(got.size()) + " came";
  }
  const std::string where = at.empty() ? "" : at + ": ";
  const bool texts = expected.is_string() && got.is_string();
  if (texts && std::max(expected.get_ref<const std::string&>().size(), got.get_ref<const std::string&>().size()) > long_text) {
    return where + difference_of_texts(expected.get<std::string>(), got.get<std::string>());
  }
  return where + expected.dump() + " expected, " + got.dump() + " came";
}

// As a person writes it; of the attributes only those that `like` names.
value shown(const test_event& event, const test_event& like) {
  if (like.attributes.empty()) return event.data;
  value attributes = value::object();
  for (const auto& [name, expected] : like.attributes) {
    const auto found = event.attributes.find(name);
    attributes[name] = found == event.attributes.end() ? "" : found->second;
  }
  return {{"event", std::move(attributes)}, {"data", event.data}};
}

value shown(const test_death& letter) {
  value out = value::object();
  if (!letter.step.empty()) out["step"] = letter.step;
  if (!letter.reason.empty()) out["reason"] = letter.reason;
  if (letter.data) out["data"] = *letter.data;
  return out;
}

bool as_expected(const test_event& expected, const test_event& got) {
  return same_value(shown(expected, expected), shown(got, expected));
}

bool as_expected(const test_death& expected, const test_death& got) {
  return (expected.step.empty() || expected.step == got.step) && got.reason.find(expected.reason) != std::string::npos &&
         (!expected.data || same_value(*expected.data, *got.data));
}

template <class Event>
struct ways_to_show {
  std::function<value(const Event& expected)> expected;
  std::function<value(const Event& got, const Event* expected)> got;
  std::function<std::string(const Event& expected, const Event& got)> difference;
};

// What agrees at both ends is set aside, so that one event too many or too few in the middle is shown as just that.
template <class Event>
std::optional<unmet_expectation> compare_lists(const std::string& where, const std::vector<Event>& expected,
                                               const std::vector<Event>& got, const ways_to_show<Event>& show) {
  const std::size_t least = std::min(expected.size(), got.size());
  std::size_t first = 0, behind = 0;
  while (first < least && as_expected(expected[first], got[first])) ++first;
  if (first == expected.size() && first == got.size()) return std::nullopt;
  while (behind < least - first && as_expected(expected[expected.size() - 1 - behind], got[got.size() - 1 - behind])) ++behind;
  unmet_expectation out{.where = where, .expected = expected.size(), .got = got.size(), .mismatches = {}};
  for (std::size_t i = first; i < std::max(expected.size(), got.size()) - behind; ++i) {
    const Event* wanted = i < expected.size() - behind ? &expected[i] : nullptr;
    const Event* came = i < got.size() - behind ? &got[i] : nullptr;
    if (wanted && came && as_expected(*wanted, *came)) continue;
    mismatch one{.index = i, .expected = {}, .got = {}};
    if (wanted) one.expected = show.expected(*wanted);
    if (came) one.got = show.got(*came, wanted);
    if (wanted && came) one.detail = show.difference(*wanted, *came);
    out.mismatches.push_back(std::move(one));
  }
  return out;
}

const ways_to_show<test_event>& of_events() {
  static const ways_to_show<test_event> ways{
      .expected = [](const test_event& expected) { return shown(expected, expected); },
      .got = [](const test_event& got, const test_event* expected) { return expected ? shown(got, *expected) : got.data; },
      .difference =
          [](const test_event& expected, const test_event& got) {
            return difference(shown(expected, expected), shown(got, expected));
          }};
  return ways;
}

const ways_to_show<test_death>& of_deaths() {
  static const ways_to_show<test_death> ways{
      .expected = [](const test_death& expected) { return shown(expected); },
      .got = [](const test_death& got, const test_death*) { return shown(got); },
      .difference =
          [](const test_death& expected, const test_death& got) {
            if (!expected.step.empty() && expected.step != got.step) return "/step: " + got.step + " came";
            if (got.reason.find(expected.reason) == std::string::npos) return std::string("/reason: does not hold what is expected");
            return difference(*expected.data, *got.data, "/data");
          }};
  return ways;
}

}  // namespace

std::vector<unmet_expectation> compare(const pipeline_test& test, const test_seen& seen) {
  std::vector<unmet_expectation> unmet;
  const auto add = [&unmet](std::optional<unmet_expectation> one) {
    if (one) unmet.push_back(std::move(*one));
  };
  if (test.expect) add(compare_lists("expect", *test.expect, seen.to, of_events()));
  for (const auto& [name, expected] : test.outputs) {
    const auto found = seen.outputs.find(name);
    static const std::vector<test_event> none;
    add(compare_lists("outputs/" + name, expected, found == seen.outputs.end() ? none : found->second, of_events()));
  }
  add(compare_lists("dead", test.dead, seen.dead, of_deaths()));
  return unmet;
}

}  // namespace penstock::config
