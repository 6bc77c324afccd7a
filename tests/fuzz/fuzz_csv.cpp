// CSV: cut anywhere, it is the same rows; a row that is written is read as it was; a row is a JSON object.
// Input: the delimiter (comma, semicolon, tab, pipe), then the text.
#include <string>
#include <vector>

#include "config/checked_value.hpp"
#include "runtime/event.hpp"
#include "runtime/json.hpp"
#include "runtime/records.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

using runtime::csv_reader;
using row = std::vector<std::string>;

std::vector<row> rows_of(std::string_view text, char delimiter) {
  csv_reader reader(delimiter);
  std::vector<row> out;
  while (!text.empty()) {
    const runtime::record r = reader.next(text, true);
    require(r.taken > 0 && r.taken <= text.size(), "a reader that knows the end gets on");
    text.remove_prefix(r.taken);
    out.push_back(reader.fields);
  }
  return out;
}

// As a file does it: what has not ended yet is shown again with what comes behind.
std::vector<row> rows_in_pieces(std::string_view text, char delimiter) {
  csv_reader reader(delimiter);
  std::vector<row> out;
  std::string held;
  const auto cut = [&](bool whole) {
    for (;;) {
      const runtime::record r = held.empty() ? runtime::record{} : reader.next(held, whole);
      if (r.taken == 0) return;
      held.erase(0, r.taken);
      out.push_back(reader.fields);
    }
  };
  in_pieces(text, [&](std::string_view piece) {
    held += piece;
    cut(false);
  });
  cut(true);
  return out;
}

}  // namespace

void try_input(std::string_view text) {
  const std::string_view word = take_line(text);
  const char delimiter = word == "semicolon" || word == "tab" || word == "pipe" ? runtime::delimiter_of(word) : ',';
  const std::vector<row> rows = rows_of(text, delimiter);
  require(rows == rows_in_pieces(text, delimiter), "pieces make no difference");
  const runtime::csv_columns columns(rows.empty() ? row{} : rows.front());
  for (const row& fields : rows) {
    std::string object, line;
    columns.append_object(object, fields);
    const runtime::buffer padded(object);
    require(runtime::check_json(padded.text()).empty(), "a row is a JSON object", object);
    for (const std::string& field : fields) {
      if (&field != &fields.front()) line += delimiter;
      runtime::append_csv_field(line, field, delimiter);
    }
    line += "\r\n";
    const std::vector<row> again = rows_of(line, delimiter);
    require(again.size() == 1 && again.front() == fields, "a row that is written is read as it was", line);
  }
}

}  // namespace penstock::fuzz
