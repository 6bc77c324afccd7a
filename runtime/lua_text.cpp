#include "runtime/lua_text.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <set>
#include <stdexcept>

#include <simdjson.h>

namespace penstock::runtime {

namespace {

namespace dom = simdjson::dom;

// Lua's parser takes at most 200 levels, and each one holds two of a function's 255 registers while it is built.
constexpr std::size_t most_literal_depth = 80;

bool is_name_byte(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// ---- literals

void append_string_literal(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      // Three digits, so that a digit behind it stays what it is.
      out += '\\';
      out += static_cast<char>('0' + byte / 100);
      out += static_cast<char>('0' + byte / 10 % 10);
      out += static_cast<char>('0' + byte % 10);
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  out += '"';
}

template <class Number>
std::string_view number_text(char (&text)[32], Number number) {
  return {text, static_cast<std::size_t>(std::to_chars(text, text + sizeof text, number).ptr - text)};
}

void append_float_literal(std::string& out, double number) {
  char text[32];
  const std::string_view written = number_text(text, number);
  out += written;
  if (written.find_first_of(".e") == std::string_view::npos) out += ".0";
}

void append_integer_literal(std::string& out, std::int64_t number) {
  char text[32];
  if (number == INT64_MIN)
    out += "0x8000000000000000";  // in decimal its digits alone are too large, so it would be a float
  else
    out += number_text(text, number);
}

bool is_nested(const dom::element& e) { return e.is_object() || e.is_array(); }

void append_literal(std::string& out, const dom::element& e);

void append_object_literal(std::string& out, const dom::object& fields) {
  std::set<std::string_view> written;
  out += '{';
  for (const dom::key_value_pair field : fields) {
    const bool first = written.insert(field.key).second;
    if (!first || field.value.is_null()) continue;
    out += '[';
    append_string_literal(out, field.key);
    out += "]=";
    append_literal(out, field.value);
    out += ',';
  }
  out += '}';
}

void append_array_literal(std::string& out, const dom::array& items) {
  if (items.begin() == items.end()) {
    out += "json.array()";  // stays an array when it is written
    return;
  }
  // Lua holds up to 50 items without a key in registers; with arrays in arrays they would run out.
  const bool keyed = std::any_of(items.begin(), items.end(), is_nested);
  std::int64_t index = 0;
  out += '{';
  for (const dom::element item : items) {
    ++index;
    if (keyed) {
      out += '[';
      append_integer_literal(out, index);
      out += "]=";
    }
    append_literal(out, item);
    out += ',';
  }
  out += '}';
}

void append_literal(std::string& out, const dom::element& e) {
  switch (e.type()) {
    case dom::element_type::INT64: append_integer_literal(out, e.get_int64().value_unsafe()); break;
    case dom::element_type::UINT64:
      append_float_literal(out, static_cast<double>(e.get_uint64().value_unsafe()));
      break;
    case dom::element_type::DOUBLE: append_float_literal(out, e.get_double().value_unsafe()); break;
    case dom::element_type::STRING: append_string_literal(out, e.get_string().value_unsafe()); break;
    case dom::element_type::BOOL: out += e.get_bool().value_unsafe() ? "true" : "false"; break;
    case dom::element_type::NULL_VALUE: out += "null"; break;
    case dom::element_type::ARRAY: append_array_literal(out, e.get_array().value_unsafe()); break;
    case dom::element_type::OBJECT: append_object_literal(out, e.get_object().value_unsafe()); break;
  }
}

void append_part(std::string& out, const dom::element& context, std::string_view name) {
  dom::element part;
  if (context.at_key(name).get(part) || part.is_null())
    out += "nil";
  else
    append_literal(out, part);
}

}  // namespace

bool mentions(std::string_view text, std::string_view word) {
  for (std::size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
    const std::size_t after = at + word.size();
    const char before = at == 0 ? ' ' : text[at - 1];
    const char next = after == text.size() ? ' ' : text[after];
    const bool quoted = before == next && (next == '\'' || next == '"');
    const bool field = before == '.' && (at < 2 || text[at - 2] != '.');
    if (!quoted && !field && !is_name_byte(before) && !is_name_byte(next)) return true;
  }
  return false;
}

std::vector<std::string> plain_path(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\n"), last = text.find_last_not_of(" \t\n");
  constexpr std::string_view start = "event.";
  if (first == text.npos || !text.substr(first).starts_with(start)) return {};
  std::vector<std::string> path{{}};
  for (const char c : text.substr(first + start.size(), last + 1 - first - start.size())) {
    if (c == '.')
      path.emplace_back();
    else if (is_name_byte(c))
      path.back() += c;
    else
      return {};
  }
  const auto is_name = [](const std::string& name) {
    return !name.empty() && !std::isdigit(static_cast<unsigned char>(name.front()));
  };
  return std::all_of(path.begin(), path.end(), is_name) ? path : std::vector<std::string>();
}

std::string run_locals(std::string_view text, const std::string* run_context) {
  if (!run_context) return {};
  std::string names, values;
  dom::parser parser;
  dom::element context;
  for (const std::string_view name : {"params", "run"}) {
    if (!mentions(text, name)) continue;
    if (names.empty()) {
      simdjson::error_code wrong = parser.allocate(0, most_literal_depth);
      if (!wrong) wrong = parser.parse(*run_context).get(context);
      if (wrong)
        throw std::invalid_argument(std::string("the run's parameters cannot be read: ") +
                                    simdjson::error_message(wrong));
    } else {
      names += ", ";
      values += ", ";
    }
    names += name;
    append_part(values, context, name);
  }
  return names.empty() ? std::string() : "local " + names + " = " + values + " ";
}

}  // namespace penstock::runtime
