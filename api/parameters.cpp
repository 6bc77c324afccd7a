#include "api/parameters.hpp"

#include <algorithm>
#include <charconv>

#include "config/field.hpp"
#include "config/in_quotes.hpp"

namespace penstock::api {

namespace {

constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

error wrong_value(std::string_view name, std::string_view value, const std::string& expected) {
  return {errc::malformed,
          "query parameter " + std::string(name) + ": " + config::in_quotes(value) + " is not " + expected};
}

}  // namespace

std::string base64url(std::string_view bytes) {
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : bytes) {
    bits = (bits << 8) | static_cast<unsigned char>(c);
    for (held += 8; held >= 6; held -= 6) out += alphabet[(bits >> (held - 6)) & 63];
  }
  if (held > 0) out += alphabet[(bits << (6 - held)) & 63];
  return out;
}

std::optional<std::string> base64url_decode(std::string_view text) {
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const std::size_t value = alphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out += static_cast<char>((bits >> held) & 255);
  }
  // One letter alone is no byte; and the bits that belong to no byte are zero, so that there is one text for the same bytes.
  if (held >= 6 || (bits & ((1U << held) - 1)) != 0) return std::nullopt;
  return out;
}

std::string make_cursor(std::string_view name, std::string_view position) {
  return base64url(std::string(name) + ':' + std::string(position));
}

result<page> read_page(const request& r, std::string_view name) {
  const auto limit = read_integer(r, rules_of("limit"));
  if (!limit) return limit.error();
  page out;
  if (*limit) out.limit = static_cast<std::size_t>(**limit);
  const auto cursor = r.query_value("cursor");
  if (!cursor || cursor->empty()) return out;
  const auto text = base64url_decode(*cursor);
  const std::string start = std::string(name) + ':';
  if (!text || !text->starts_with(start) || text->size() == start.size()) {
    return wrong_value("cursor", *cursor, "a next_cursor of this list");
  }
  out.after = text->substr(start.size());
  return out;
}

result<std::optional<std::int64_t>> read_integer(const request& r, const parameter_rules& rules) {
  const auto text = r.query_value(rules.name);
  if (!text) return std::optional<std::int64_t>{};
  std::int64_t value = 0;
  const char* end = text->data() + text->size();
  const auto [stopped, failure] = std::from_chars(text->data(), end, value);
  if (failure != std::errc{} || stopped != end || value < rules.least || value > rules.most) {
    std::string range = "a whole number from " + std::to_string(rules.least);
    if (rules.most < INT64_MAX) range += " to " + std::to_string(rules.most);
    return wrong_value(rules.name, *text, range);
  }
  return std::optional{value};
}

result<std::string> read_word(const request& r, const parameter_rules& rules) {
  const auto words = read_words(r, rules);
  if (!words) return words.error();
  if (words->size() > 1) return wrong_value(rules.name, *r.query_value(rules.name), "one word; " + config::suggestion("", rules.known));
  return words->empty() ? std::string() : words->front();
}

result<std::vector<std::string>> read_words(const request& r, const parameter_rules& rules) {
  std::vector<std::string> words;
  std::string_view text = r.query_value(rules.name).value_or("");
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (std::find(rules.known.begin(), rules.known.end(), word) == rules.known.end()) {
      return wrong_value(rules.name, word, "known here; " + config::suggestion(word, rules.known));
    }
    words.emplace_back(word);
  }
  return words;
}

result<bool> read_flag(const request& r, std::string_view name) {
  const auto text = r.query_value(name);
  if (!text || *text == "false" || *text == "0") return false;
  if (text->empty() || *text == "true" || *text == "1") return true;
  return wrong_value(name, *text, "true or false");
}

result<std::optional<timestamp>> read_time(const request& r, std::string_view name) {
  const auto text = r.query_value(name);
  if (!text) return std::optional<timestamp>{};
  const auto time = parse_time(*text);
  if (!time) return wrong_value(name, *text, "an RFC 3339 time such as 2018-02-07T00:00:00Z");
  return time;
}

result<std::optional<std::chrono::nanoseconds>> read_duration(const request& r, std::string_view name,
                                                              std::chrono::nanoseconds most) {
  const auto text = r.query_value(name);
  if (!text) return std::optional<std::chrono::nanoseconds>{};
  const auto value = parse_duration(*text);
  if (!value || *value > most) {
    return wrong_value(name, *text, "a duration such as 30s, at most " + format_duration(most));
  }
  return value;
}

}  // namespace penstock::api
