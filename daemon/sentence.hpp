// A text as a sentence, for the manual page and the reference: with a full stop.
#pragma once

#include <string>

namespace penstock {

inline std::string sentence(std::string text) {
  if (!text.empty() && text.back() != '.') text += '.';
  return text;
}

}  // namespace penstock
