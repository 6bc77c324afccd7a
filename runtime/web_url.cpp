#include "runtime/web_url.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include <arpa/inet.h>
#include <net/if.h>
#include <strings.h>

#include "config/characters.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t longest_dns_name = 253;
constexpr std::size_t longest_dns_label = 63;

std::runtime_error url_failure(const std::string& shown, const std::string& why) {
  return std::runtime_error("url '" + shown + "': " + why);
}

// How many bytes "SCHEME://" or "SCHEMEs://" has at its beginning. Throws when it begins otherwise.
std::size_t size_of_scheme(std::string_view url, std::string_view scheme, const std::string& shown) {
  const std::string plain = std::string(scheme) + "://", secure = std::string(scheme) + "s://";
  for (const std::string& one : {plain, secure}) {
    if (url.size() >= one.size() && ::strncasecmp(url.data(), one.data(), one.size()) == 0) return one.size();
  }
  throw url_failure(shown, "must begin with " + plain + " or " + secure);
}

// "fe80::1%25eth0", or with a bare %, which libcurl takes too: its zone moves to `zone`. False: it has an impossible one.
bool cut_zone(std::string& address, std::string& zone) {
  const std::size_t percent = address.find('%');
  if (percent == address.npos) return true;
  zone = address.substr(percent + 1);
  address.resize(percent);
  if (zone.starts_with("25") && zone.size() > 2) zone.erase(0, 2);
  return !zone.empty() && zone.size() < IF_NAMESIZE;
}

bool is_ipv6_address(const std::string& text) {
  in6_addr address{};
  return ::inet_pton(AF_INET6, text.c_str(), &address) == 1;
}

bool is_host_name(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.size() > longest_dns_name) return false;
  const auto plain = [](char c) { return is_word(c) || c == '-' || c == '~'; };
  while (true) {
    const std::size_t dot = name.find('.');
    const std::string_view label = name.substr(0, dot);
    if (label.empty() || label.size() > longest_dns_label || !std::all_of(label.begin(), label.end(), plain)) return false;
    if (dot == name.npos) return true;
    name.remove_prefix(dot + 1);
  }
}

// Nothing: it is a host.
std::string why_no_host(std::string_view host) {
  if (host.empty()) return "names no host";
  if (is_host_name(host)) return {};
  if (host.find('@') != host.npos) return "the host holds an @; in a user or password it is written %40";
  const auto beyond_ascii = [](char c) { return static_cast<unsigned char>(c) >= 0x80; };
  if (std::any_of(host.begin(), host.end(), beyond_ascii)) return "the host has letters beyond ASCII; write it in its xn-- form";
  return "the host is neither a name nor an address";
}

// `text`: nothing, or a colon and perhaps a number. 0: it is something else.
unsigned port_number(std::string_view text, unsigned fallback) {
  if (text.size() < 2) return fallback;
  unsigned number = 0;
  const char* const end = text.data() + text.size();
  const auto [read_to, failed] = std::from_chars(text.data() + 1, end, number);
  return failed == std::errc{} && read_to == end && number <= 65'535 ? number : 0;
}

}  // namespace

std::string web_url::host_header() const {
  const std::string name = host.find(':') == host.npos ? host : "[" + host + "]";
  return port == (tls ? "443" : "80") ? name : name + ":" + port;
}

web_url parse_web_url(std::string_view url, std::string_view scheme, const std::string& shown) {
  const auto wrong = [&shown](const std::string& why) { return url_failure(shown, why); };
  const std::size_t begin = size_of_scheme(url, scheme, shown);
  web_url out;
  out.tls = begin > scheme.size() + std::string_view("://").size();
  url.remove_prefix(begin);
  const auto unseen = [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; };
  if (std::any_of(url.begin(), url.end(), unseen)) throw wrong("holds a blank or a control character");
  url = url.substr(0, url.find('#'));
  const std::size_t path = std::min(url.find_first_of("/?"), url.size());
  std::string_view place = url.substr(0, path);
  out.target = url.substr(path);
  if (!out.target.starts_with('/')) out.target.insert(0, 1, '/');
  if (const std::size_t at = place.find('@'); at != place.npos) {
    out.user = true;
    if (place.substr(0, at).find("%00") != place.npos) throw wrong("the user or password holds a %00");
    place.remove_prefix(at + 1);
  }
  const bool in_brackets = place.starts_with('[');
  const std::size_t bracket = place.find(']');
  if (in_brackets && bracket == place.npos) throw wrong("has a [ without its ]");
  const std::size_t host_end = in_brackets ? bracket + 1 : std::min(place.find(':'), place.size());
  const std::string_view port = place.substr(host_end);
  if (!port.empty() && port.front() != ':') throw wrong("has something other than a port behind the ]");
  const unsigned number = port_number(port, out.tls ? 443 : 80);
  if (number == 0) throw wrong("the port is no number from 1 to 65535 (an IPv6 address stands in [])");
  out.port = std::to_string(number);
  out.host = in_brackets ? place.substr(1, bracket - 1) : place.substr(0, host_end);
  if (in_brackets) {
    if (!cut_zone(out.host, out.zone) || !is_ipv6_address(out.host)) throw wrong("what stands in [] is no IPv6 address");
  } else if (const std::string why = why_no_host(out.host); !why.empty()) {
    throw wrong(why);
  }
  return out;
}

void check_written_url(const std::string& written, std::string_view scheme) {
  if (written.find("${") == written.npos) {
    parse_web_url(written, scheme, written);
  } else if (!written.starts_with("${")) {
    size_of_scheme(written, scheme, written);
  }
}

}  // namespace penstock::runtime
