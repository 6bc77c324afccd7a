// Text cut into records: lines, and CSV rows as RFC 4180 has them. Pure, any thread, one at a time.
//
// `whole` everywhere: the text goes to the input's end, so its last record needs no line end. Nothing is refused: what
// is not as it should be (a quote in the wrong place, too many fields) is taken as it stands.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::runtime {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

// A record, and how much of the text it takes with its line end; taken = 0: the text ends before the record
// does.
struct record {
  std::string_view text{};
  std::size_t taken = 0;
  bool closed = true;  // csv: the quote that was opened is closed
};

record next_line(std::string_view text, bool whole);

// Reads CSV records (RFC 4180, section 2) and leaves the fields of the last one in `fields`. A quote opens
// only at the beginning of a field; what stands between a closing quote and the delimiter is taken as it is.
class csv_reader {
 public:
  explicit csv_reader(char delimiter) : delimiter_(delimiter) {}

  std::vector<std::string> fields{};

  record next(std::string_view text, bool whole);

 private:
  enum class state { field_start, plain, quoted, quote_in_quoted };

  void take(char c);
  record end_of(std::string_view row, std::size_t taken);

  const char delimiter_;
  state at_ = state::field_start;
};

// The names of a CSV header, and rows as JSON objects under them: all values strings; fields beyond the names are
// column_N, absent ones are left out.
class csv_columns {
 public:
  csv_columns() = default;
  explicit csv_columns(const std::vector<std::string>& names);

  void append_object(std::string& out, const std::vector<std::string>& fields) const;

 private:
  std::vector<std::string> quoted_{};  // as JSON strings
};

// ',' for "comma", and so on: what a setting `delimiter` means.
char delimiter_of(std::string_view word);

// One field of a CSV row, in quotes where it needs them.
void append_csv_field(std::string& out, std::string_view field, char delimiter);

}  // namespace penstock::runtime
