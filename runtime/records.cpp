#include "runtime/records.hpp"

#include <algorithm>

#include "runtime/json.hpp"

namespace penstock::runtime {

record next_line(std::string_view text, bool whole) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos && !whole) return {};
  std::string_view line = text.substr(0, end);
  const std::size_t taken = std::min(line.size() + 1, text.size());
  if (line.ends_with('\r')) line.remove_suffix(1);
  return {line, taken};
}

record csv_reader::next(std::string_view text, bool whole) {
  fields.assign(1, {});
  at_ = state::field_start;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n' && at_ != state::quoted) return end_of(text.substr(0, i), i + 1);
    take(text[i]);
  }
  return whole ? end_of(text, text.size()) : record{};
}

void csv_reader::take(char c) {
  if (at_ == state::quoted && c == '"') {
    at_ = state::quote_in_quoted;
  } else if (at_ == state::quoted) {
    fields.back() += c;
  } else if (c == delimiter_) {
    fields.emplace_back();
    at_ = state::field_start;
  } else if (c == '"' && at_ == state::field_start) {
    at_ = state::quoted;
  } else {
    fields.back() += c;
    at_ = c == '"' && at_ == state::quote_in_quoted ? state::quoted : state::plain;
  }
}

record csv_reader::end_of(std::string_view row, std::size_t taken) {
  if (at_ == state::plain && fields.back().ends_with('\r')) fields.back().pop_back();
  if (row.ends_with('\r')) row.remove_suffix(1);
  return {row, taken, at_ != state::quoted};
}

csv_columns::csv_columns(const std::vector<std::string>& names) {
  for (const std::string& name : names) append_json_string(quoted_.emplace_back(), name);
}

void csv_columns::append_object(std::string& out, const std::vector<std::string>& fields) const {
  out += '{';
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (i > 0) out += ',';
    out += i < quoted_.size() ? quoted_[i] : "\"column_" + std::to_string(i + 1) + "\"";
    out += ':';
    append_json_string(out, fields[i]);
  }
  out += '}';
}

char delimiter_of(std::string_view word) {
  return word == "tab" ? '\t' : word == "semicolon" ? ';' : word == "pipe" ? '|' : ',';
}

void append_csv_field(std::string& out, std::string_view field, char delimiter) {
  const char special[] = {delimiter, '"', '\r', '\n'};
  if (field.find_first_of(std::string_view(special, sizeof special)) == std::string_view::npos) {
    out += field;
    return;
  }
  out += '"';
  for (const char c : field) {
    out += c;
    if (c == '"') out += c;
  }
  out += '"';
}

}  // namespace penstock::runtime
