// Small things done with text. Pure, any thread.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <system_error>

namespace penstock::runtime {

inline constexpr std::string_view whitespace = " \t\r\n";  // JSON's (RFC 8259, 2)

// Without the whitespace at both ends; a part of `text` also when nothing is left.
inline std::string_view trimmed(std::string_view text) {
  const std::size_t from = text.find_first_not_of(whitespace);
  if (from == text.npos) return text.substr(text.size());
  return text.substr(from, text.find_last_not_of(whitespace) - from + 1);
}

// A-Z in small letters; all else as it is.
inline std::string lower_case(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return out;
}

// What the system calls an errno: "No such file or directory".
inline std::string error_words(int error_number) { return std::generic_category().message(error_number); }

}  // namespace penstock::runtime
