#include "api/http.hpp"

#include <algorithm>
#include <array>

#include <boost/beast/http/rfc7230.hpp>

namespace penstock::api {

namespace {

char lower_letter(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char l = lower_letter(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool unreserved(char c) {
  return (c >= '0' && c <= '9') || (lower_letter(c) >= 'a' && lower_letter(c) <= 'z') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

// A word of a list like that of Connection, whatever its case.
bool lists(std::string_view value, const char* word) {
  return boost::beast::http::token_list{{value.data(), value.size()}}.exists(word);
}

}  // namespace

std::string_view token(http_method m) {
  constexpr std::array<std::string_view, 8> names{"GET",    "HEAD",  "POST",    "PUT",
                                                  "DELETE", "PATCH", "OPTIONS", "?"};
  return names[static_cast<std::size_t>(m)];
}

void interruption::listen(std::function<void()> call) {
  if (raised_) return call();
  const bool first = !call_;
  call_ = std::move(call);
  if (first && watch_) watch_();
}

void interruption::raise() {
  if (std::exchange(raised_, true)) return;
  if (const auto call = std::exchange(call_, {})) call();
}

void interruption::reset() {
  raised_ = false;
  call_ = {};
}

bool same_letters(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return lower_letter(x) == lower_letter(y);
         });
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower_letter);
  return out;
}

std::string_view request::header_value(std::string_view name) const {
  for (const header& h : headers) {
    if (same_letters(h.name, name)) return h.value;
  }
  return {};
}

std::string request::header_list(std::string_view name) const {
  std::string list;
  for (const header& h : headers) {
    if (!same_letters(h.name, name)) continue;
    if (!list.empty()) list += ", ";
    list += h.value;
  }
  return list;
}

const std::string& request::parameter(std::string_view name) const {
  static const std::string none;
  for (const path_parameter& p : parameters) {
    if (p.name == name) return p.value;
  }
  return none;
}

std::optional<std::string_view> request::query_value(std::string_view name) const {
  for (const query_parameter& q : query) {
    if (q.name == name) return q.value;
  }
  return std::nullopt;
}

void request::clear() {
  method = http_method::other;
  version = 11;
  head.clear();
  target = path = query_text = {};
  headers.clear();
  query.clear();
  parameters.clear();
  body.clear();
  id.clear();
  interrupted.reset();
  token.reset();
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

std::string percent_encode(std::string_view text) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (unreserved(c)) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

std::optional<std::vector<query_parameter>> parse_query(std::string_view text) {
  std::vector<query_parameter> out;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    if (pair.empty()) continue;
    const std::size_t equals = pair.find('=');
    auto name = percent_decode(pair.substr(0, equals));
    auto value =
        percent_decode(equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1));
    if (!name || !value) return std::nullopt;
    out.push_back({std::move(*name), std::move(*value)});
  }
  return out;
}

bool asks_for_websocket(const request& r) {
  return r.method == http_method::get && r.version == 11 && lists(r.header_value("connection"), "upgrade") &&
         lists(r.header_value("upgrade"), "websocket");
}

bool from_same_origin(const request& r) {
  const std::string_view origin = r.header_value("origin");
  const std::size_t scheme = origin.find("://");
  return origin.empty() || (scheme != origin.npos && same_letters(origin.substr(scheme + 3), r.header_value("host")));
}

}  // namespace penstock::api
