#include "api/router.hpp"

#include <algorithm>
#include <stdexcept>

#include "config/field.hpp"
#include "config/in_quotes.hpp"

namespace penstock::api {

namespace {

void split(std::string_view path, std::vector<std::string_view>& parts) {
  parts.clear();
  if (!path.starts_with('/')) return;
  path.remove_prefix(1);
  for (;;) {
    const std::size_t slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return;
    path.remove_prefix(slash + 1);
  }
}

bool safe_segment(std::string_view text) {
  return !text.empty() && text != "." && text != ".." && text.find('\0') == std::string_view::npos &&
         text.find('/') == std::string_view::npos;
}

std::optional<std::string> decode_segment(std::string_view part) {
  auto text = percent_decode(part);
  if (text && !safe_segment(*text)) text.reset();
  return text;
}

}  // namespace

void router::add(http_method method, std::string pattern) {
  for (const entry& e : entries_) {
    if (e.method == method && e.pattern == pattern) throw std::logic_error("route added twice: " + pattern);
  }
  std::vector<std::string_view> parts;
  split(pattern, parts);
  std::vector<segment> segments;
  for (std::string_view part : parts) {
    if (!part.starts_with('{')) {
      segments.push_back({segment::kind::literal, std::string(part)});
    } else if (part.ends_with("...}")) {
      segments.push_back({segment::kind::rest, std::string(part.substr(1, part.size() - 5))});
    } else {
      segments.push_back({segment::kind::one, std::string(part.substr(1, part.size() - 2))});
    }
  }
  entries_.push_back({method, std::move(pattern), std::move(segments)});
}

bool router::matches(const entry& e, const std::vector<std::string_view>& parts) {
  const bool open = !e.segments.empty() && e.segments.back().what == segment::kind::rest;
  if (open ? parts.size() < e.segments.size() : parts.size() != e.segments.size()) return false;
  for (std::size_t i = 0; i < e.segments.size(); ++i) {
    const segment& s = e.segments[i];
    if (s.what == segment::kind::literal ? s.text != parts[i] : parts[i].empty()) return false;
  }
  return true;
}

router::match router::find(http_method method, std::string_view path,
                           std::vector<path_parameter>& parameters) const {
  thread_local std::vector<std::string_view> parts;
  split(path, parts);
  const http_method wanted = method == http_method::head ? http_method::get : method;
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const entry& e) { return e.method == wanted && matches(e, parts); });
  if (found == entries_.end()) {
    std::string allow = allowed_methods(parts);
    if (allow.empty()) return {outcome::not_found, 0, {}, nearest(path, parts)};
    std::string detail = "this path takes " + allow;
    return {outcome::method_not_allowed, 0, std::move(allow), std::move(detail)};
  }
  parameters.clear();
  for (std::size_t i = 0; i < found->segments.size(); ++i) {
    const segment& s = found->segments[i];
    if (s.what == segment::kind::literal) continue;
    const std::size_t last = s.what == segment::kind::rest ? parts.size() : i + 1;
    std::string value;
    for (std::size_t part = i; part < last; ++part) {
      const auto text = decode_segment(parts[part]);
      if (!text) {
        return {outcome::bad_path,
                0,
                {},
                "the path segment " + config::in_quotes(parts[part]) + " is not a name"};
      }
      if (part > i) value += '/';
      value += *text;
    }
    parameters.push_back({s.text, std::move(value)});
  }
  return {outcome::found, static_cast<std::size_t>(found - entries_.begin()), {}, {}};
}

std::string router::allowed_methods(const std::vector<std::string_view>& parts) const {
  std::string allow;
  for (const entry& e : entries_) {
    if (!matches(e, parts)) continue;
    if (!allow.empty()) allow += ", ";
    allow += token(e.method);
    if (e.method == http_method::get) allow += ", HEAD";
  }
  if (!allow.empty()) allow += ", OPTIONS";
  return allow;
}

// Compares with every pattern after filling in what was sent where a pattern has parameters, so that only a
// wrong literal counts.
std::string router::nearest(std::string_view path, const std::vector<std::string_view>& parts) const {
  std::vector<std::string> filled;
  for (const entry& e : entries_) {
    std::string candidate;
    for (std::size_t i = 0; i < e.segments.size(); ++i) {
      const segment& s = e.segments[i];
      const bool take = s.what != segment::kind::literal && i < parts.size() && !parts[i].empty();
      candidate += '/';
      candidate += take                               ? std::string(parts[i])
                   : s.what == segment::kind::literal ? s.text
                                                      : "{" + s.text + "}";
    }
    filled.push_back(std::move(candidate));
  }
  std::string detail = "nothing is at " + config::in_quotes(path);
  const std::string near = config::nearest(path, filled);
  if (near.empty()) return detail + "; GET / lists what there is";
  const auto at = static_cast<std::size_t>(std::find(filled.begin(), filled.end(), near) - filled.begin());
  return detail + "; did you mean " + entries_[at].pattern + "?";
}

}  // namespace penstock::api
