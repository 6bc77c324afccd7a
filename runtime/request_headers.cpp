#include "runtime/request_headers.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string_view>
#include <strings.h>

#include "config/characters.hpp"
#include "config/in_quotes.hpp"

namespace penstock::runtime {

namespace {

bool is_header_name(std::string_view name) {
  const auto plain = [marks = std::string_view("!#$%&'*+-.^_`|~")](char c) {  // RFC 9110, section 5.6.2
    return is_letter(c) || is_digit(c) || marks.find(c) != marks.npos;
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), plain);
}

bool frames_message(const std::string& name) {
  return ::strcasecmp(name.c_str(), "content-length") == 0 || ::strcasecmp(name.c_str(), "transfer-encoding") == 0;
}

void require_header(const std::string& name, std::string_view value) {
  const std::string header = "header " + config::in_quotes(name);
  if (!is_header_name(name)) throw std::runtime_error(header + ": this is no name of a header");
  if (frames_message(name)) throw std::runtime_error(header + " is set with each message, and cannot be given");
  const auto control = [](char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 0x7f; };
  if (std::any_of(value.begin(), value.end(), control))
    throw std::runtime_error(header + ": its value holds a line break or another control character");
}

std::map<std::string, std::string> headers_in(const config::value& settings) {
  return settings.value("headers", std::map<std::string, std::string>{});
}

}  // namespace

void check_request_headers(const config::value& settings) {
  for (const auto& [name, written] : headers_in(settings)) require_header(name, written);
}

std::vector<std::pair<std::string, std::string>> read_request_headers(const config::value& settings,
                                                                      const component_context& context) {
  std::vector<std::pair<std::string, std::string>> headers;
  for (const auto& [name, written] : headers_in(settings)) {
    headers.emplace_back(name, context.reveal(written));
    require_header(name, headers.back().second);
  }
  return headers;
}

std::vector<std::string> read_header_lines(const config::value& settings, const component_context& context) {
  std::vector<std::string> lines;
  for (const auto& [name, value] : read_request_headers(settings, context)) {
    const bool blank = value.find_first_not_of(" \t") == value.npos;  // else libcurl would leave it out
    lines.push_back(blank ? name + ";" : name + ": " + value);
  }
  return lines;
}

}  // namespace penstock::runtime
