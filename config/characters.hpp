// The letters, digits and words of numbers, Lua, environment variables and references: ASCII, whatever the locale. Pure, any thread.
#pragma once

namespace penstock {

inline bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline bool begins_word(char c) { return is_letter(c) || c == '_'; }
inline bool is_word(char c) { return begins_word(c) || is_digit(c); }

}  // namespace penstock
