// Method and path to an endpoint and its path parameters. Pure; constant after construction.
//
// A pattern is literal segments, {name} for one segment, and {name...} for all the rest (at least one).
// Segments are split first and percent-decoded afterwards, so %2F never separates; a decoded segment that
// holds NUL or '/', or is
// "." or "..", is refused before anybody sees it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "api/http.hpp"

namespace penstock::api {

class router {
 public:
  enum class outcome { found, not_found, method_not_allowed, bad_path };

  struct match {
    outcome what = outcome::not_found;
    std::size_t index = 0;  // found: of the pattern, in the order they were added
    std::string allow{};    // method_not_allowed: for the Allow header, "GET, HEAD, POST, OPTIONS"
    std::string detail{};   // not_found, method_not_allowed, bad_path: in words, with the nearest route
  };

  // Adding the same method and pattern twice throws std::logic_error.
  void add(http_method method, std::string pattern);

  // HEAD finds GET. `parameters` is filled when found; its names live as long as the router.
  match find(http_method method, std::string_view path, std::vector<path_parameter>& parameters) const;

 private:
  struct segment {
    enum class kind { literal, one, rest };
    kind what;
    std::string text;  // the literal, or the parameter's name
  };
  struct entry {
    http_method method;
    std::string pattern;
    std::vector<segment> segments;
  };

  static bool matches(const entry& e, const std::vector<std::string_view>& parts);
  std::string allowed_methods(const std::vector<std::string_view>& parts) const;
  std::string nearest(std::string_view path, const std::vector<std::string_view>& parts) const;

  std::vector<entry> entries_;
};

}  // namespace penstock::api
