// A manual page made of the tree that --help is made of, so that the two cannot differ. man(7) macros. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace penstock {

struct man_section {
  std::string title;                                        // in capitals
  std::string text{};                                       // before the entries
  std::vector<std::pair<std::string, std::string>> entries{};  // term and what it means
};

struct man_options {
  int section = 1;
  std::string tagline;  // "operate a Penstock daemon"
  std::vector<man_section> more{};
  std::vector<std::string> see_also{};  // "penstockd(8)"
};

// The footer of the app becomes sections: a line that ends with a colon begins one, and a line of two columns in it is an
// entry.
std::string man_page(const CLI::App& app, const man_options& options);

}  // namespace penstock
