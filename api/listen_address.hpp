// Where the server listens, as an operator writes it. Plain values; pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "config/error.hpp"

namespace penstock::api {

struct listen_address {
  std::string host{};      // an IP address; empty for a Unix socket
  std::uint16_t port = 0;  // 0: a free one
  bool tls = false;
  std::string path{};      // of a Unix socket's file; "@name" has no file (Linux's abstract names)

  bool is_unix() const { return !path.empty(); }
  // Only processes of this machine can connect.
  bool stays_here() const;
  // "http://127.0.0.1:8420", "https://[::1]:8443", "unix:/run/penstock/penstock.sock".
  std::string shown() const;
  // "127.0.0.1:8420", "[::1]:8443"; empty for a Unix socket.
  std::string host_and_port() const;
};

// Who may connect to a Unix socket's file.
struct socket_permissions {
  std::uint32_t mode = 0660;
  std::string group{};  // empty: the daemon's own
};

// "127.0.0.1:8420", "[::1]:8420", either with http:// or https:// before it, or "unix:/PATH". `localhost` is 127.0.0.1. invalid:
// anything else.
result<listen_address> parse_listen_address(std::string_view text);

}  // namespace penstock::api
