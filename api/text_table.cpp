#include "api/text_table.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace penstock::api {
namespace {

// Columns that a text takes on a terminal, nearly: code points, not bytes.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789.-") == std::string::npos;
}

}  // namespace

text_table::text_table(std::vector<std::string> headings) : headings_(std::move(headings)) {}

void text_table::add(std::vector<std::string> cells) {
  if (cells.size() != headings_.size())
    throw std::logic_error("a row has another number of cells than its table");
  for (std::string& cell : cells) {
    for (char& c : cell) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
    }
  }
  rows_.push_back(std::move(cells));
}

void text_table::print(std::ostream& out) const {
  std::vector<std::size_t> widths;
  std::vector<bool> right;
  for (std::size_t column = 0; column < headings_.size(); ++column) {
    std::size_t widest = width(headings_[column]);
    bool numbers = !rows_.empty();
    for (const auto& row : rows_) {
      widest = std::max(widest, width(row[column]));
      numbers = numbers && is_number(row[column]);
    }
    widths.push_back(widest);
    right.push_back(numbers);
  }
  const auto print_row = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (std::size_t column = 0; column < cells.size(); ++column) {
      const std::string pad(widths[column] - width(cells[column]), ' ');
      line += (column > 0 ? "  " : "") + (right[column] ? pad + cells[column] : cells[column] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  };
  print_row(headings_);
  for (const auto& row : rows_) print_row(row);
}

}  // namespace penstock::api
