#include "api/listen_address.hpp"

#include <charconv>

#include <boost/asio/ip/address.hpp>
#include <sys/un.h>

namespace penstock::api {

namespace {

constexpr std::size_t longest_path = sizeof(sockaddr_un::sun_path) - 6;  // room for the name that it has until it is ready

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

error wrong_address(std::string_view text, const std::string& why) {
  return error{errc::invalid, "cannot listen on '" + std::string(text) + "': " + why};
}

}  // namespace

bool listen_address::stays_here() const {
  if (is_unix()) return true;
  boost::system::error_code not_an_address;
  const auto address = boost::asio::ip::make_address(host, not_an_address);
  return !not_an_address && address.is_loopback();
}

std::string listen_address::host_and_port() const {
  if (is_unix()) return {};
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string listen_address::shown() const {
  return is_unix() ? "unix:" + path : (tls ? "https://" : "http://") + host_and_port();
}

result<listen_address> parse_listen_address(std::string_view text) {
  listen_address found;
  std::string_view rest = text;
  if (take(rest, "unix:")) {
    if (!rest.starts_with('/') || rest.ends_with('/')) return wrong_address(text, "a Unix socket is written unix:/PATH, from the root");
    if (rest.size() > longest_path)
      return wrong_address(text, "the path of a Unix socket has at most " + std::to_string(longest_path) + " bytes");
    found.path = rest;
    return found;
  }
  found.tls = take(rest, "https://");
  if (!found.tls) take(rest, "http://");
  const auto bad = [&] { return wrong_address(text, "it is not HOST:PORT, https://HOST:PORT or unix:/PATH, with an IP address as HOST"); };
  const auto colon = rest.rfind(':');
  if (colon == std::string_view::npos) return bad();
  std::string_view host = rest.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  found.host = host == "localhost" ? "127.0.0.1" : std::string(host);
  boost::system::error_code not_an_address;
  boost::asio::ip::make_address(found.host, not_an_address);
  const auto port = rest.substr(colon + 1);
  const auto read = std::from_chars(port.data(), port.data() + port.size(), found.port);
  if (not_an_address || read.ec != std::errc() || read.ptr != port.data() + port.size()) return bad();
  return found;
}

}  // namespace penstock::api
