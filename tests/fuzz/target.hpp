// What a fuzz target is made of: one function that tries an input, and what it says when something does not hold.
//
// A target is one file, fuzz_NAME.cpp, that defines try_input(). It is linked with entry_libfuzzer.cpp (preset fuzz: clang
// makes up inputs) or entry_replay.cpp (all other presets: the inputs of corpus/NAME again). One thread. An input is
// text that a person can write in an editor: what a target needs besides the text under test stands in lines above it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string_view>

namespace penstock::fuzz {

// Defined by each target. Must come to the same end each time, and keep nothing.
void try_input(std::string_view text);

// Ends the program with what is wrong unless it holds.
inline void require(bool holds, std::string_view what, std::string_view seen = {}) {
  if (holds) return;
  std::cerr << "does not hold: " << what << (seen.empty() ? "" : ": ") << seen << std::endl;
  std::abort();
}

// The first line, without its end; `text` is then what is behind it.
inline std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == text.npos ? text.size() : end + 1);
  return line;
}

// Calls `then` with one piece of the text after the other. How long they are follows from the text: mostly a few bytes, some
// longer ones.
template <class Then>
void in_pieces(std::string_view text, Then then) {
  std::uint32_t chance = 2166136261;  // FNV-1a, then a linear congruence: any will do that is the same everywhere
  for (const char c : text) chance = (chance ^ static_cast<unsigned char>(c)) * 16777619;
  while (!text.empty()) {
    chance = chance * 1664525 + 1013904223;
    const std::size_t size = (chance >> 28) == 0 ? 1 + (chance >> 16) % 512 : 1 + (chance >> 16) % 7;
    const std::string_view piece = text.substr(0, size);
    text.remove_prefix(piece.size());
    then(piece);
  }
}

}  // namespace penstock::fuzz
