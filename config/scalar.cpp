#include "config/scalar.hpp"

#include <charconv>
#include <cmath>

#include <nlohmann/json.hpp>

#include "config/in_quotes.hpp"

namespace penstock::config {
namespace {

bool is_plain(const node& n) { return n.type == node::kind::scalar && !n.quoted; }

template <class T, class... Format>
std::optional<T> converted(std::string_view text, Format... format) {
  T out{};
  const char* end = text.data() + text.size();
  const auto [stopped, failed] = std::from_chars(text.data(), end, out, format...);
  if (failed != std::errc{} || stopped != end || text.empty()) return std::nullopt;
  return out;
}

}  // namespace

std::optional<std::int64_t> integer_of(const node& n) {
  if (!is_plain(n)) return std::nullopt;
  std::string_view text = n.text;
  const bool prefixed = text.starts_with("0x") || text.starts_with("0o");
  if (prefixed && text.find('-') != text.npos) return std::nullopt;
  if (text.starts_with("0x")) return converted<std::int64_t>(text.substr(2), 16);
  if (text.starts_with("0o")) return converted<std::int64_t>(text.substr(2), 8);
  if (text.starts_with("+-")) return std::nullopt;
  if (text.starts_with('+')) text.remove_prefix(1);
  return converted<std::int64_t>(text, 10);
}

std::optional<double> number_of(const node& n) {
  if (const auto integer = integer_of(n)) return static_cast<double>(*integer);
  if (!is_plain(n)) return std::nullopt;
  std::string_view text = n.text;
  if (text.starts_with("+-")) return std::nullopt;
  if (text.starts_with('+')) text.remove_prefix(1);
  // from_chars would also take "inf" and "nan", which are words here.
  const std::size_t first = text.starts_with('-') ? 1 : 0;
  if (text.find_first_of("0123456789.", first) != first) return std::nullopt;
  const auto number = converted<double>(text, std::chars_format::general);
  return number && std::isfinite(*number) ? number : std::nullopt;
}

std::optional<bool> boolean_of(const node& n) {
  if (is_plain(n) && n.text == "true") return true;
  if (is_plain(n) && n.text == "false") return false;
  return std::nullopt;
}

value json_of(const node& n) {
  value out;
  switch (n.type) {
    case node::kind::null:
      break;
    case node::kind::scalar:
      if (const auto integer = integer_of(n)) return *integer;
      if (const auto number = number_of(n)) return *number;
      if (const auto boolean = boolean_of(n)) return *boolean;
      return n.text;
    case node::kind::sequence:
      out = value::array();
      for (const node& item : n.items) out.push_back(json_of(item));
      break;
    case node::kind::mapping:
      out = value::object();
      // Keys are unique already, and the ordered object would search all of them again for each.
      for (const auto& entry : n.fields) {
        out.get_ref<value::object_t&>().emplace_back(entry.key, json_of(entry.value));
      }
      break;
  }
  return out;
}

std::string kind_of(const node& n) {
  switch (n.type) {
    case node::kind::null:
      return "nothing";
    case node::kind::sequence:
      return "a list";
    case node::kind::mapping:
      return "a mapping";
    case node::kind::scalar:
      break;
  }
  if (number_of(n)) return "a number";
  return boolean_of(n) ? "true or false" : "a text";
}

std::string kind_and_text_of(const node& n) {
  constexpr std::size_t longest_number = 40;
  if (n.type != node::kind::scalar) return kind_of(n);
  if (number_of(n) && n.text.size() <= longest_number) return "the number " + n.text;
  return boolean_of(n) ? n.text : "the text " + in_quotes(n.text);
}

}  // namespace penstock::config
