// Where lines come from or go to: "HOST:PORT", "[HOST]:PORT" or "udp:HOST:PORT", or "unix:PATH" for a local socket.
// And the few calls that open such sockets, none of which blocks but resolve().
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

struct socket_address {
  enum class kind { tcp, udp, local };
  kind is = kind::tcp;
  std::string host{}, port{};     // tcp, udp
  std::filesystem::path path{};   // local
  std::string text{};             // as it was written

  // Throws std::runtime_error that says what is wrong. Pure.
  static socket_address of(const std::string& text);
};

struct resolved_address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  bool reaches_beyond() const;  // an IP address that is not of this machine alone
  std::string text() const;     // "127.0.0.1:7000"; empty: none that says anything
};

// In the order to be tried. A relative path is seen from `folder`. May ask a name server: blocks. Throws.
std::vector<resolved_address> resolve(const socket_address& address, const std::filesystem::path& folder);

// The same without asking anybody, where the host is a number. Nothing: it is a name, or a path.
std::optional<resolved_address> resolve_number(const socket_address& address);

// Bound, and listening where the kind listens; does not block. Of a local socket the path is taken over when it is a socket
// on which nobody listens any more. Throws std::runtime_error: in use, forbidden.
unique_fd listen_at(const resolved_address& at, const socket_address& address);

// Connected. Throws std::runtime_error when that fails or takes until `latest`.
asio::awaitable<std::shared_ptr<asio::posix::stream_descriptor>> connect_to(asio::any_io_executor strand, resolved_address to,
                                                                            std::chrono::steady_clock::time_point latest);

// False: it was not by `latest`, or the socket was closed. The socket is used for nothing else meanwhile.
asio::awaitable<bool> wait_ready(std::shared_ptr<asio::posix::stream_descriptor> socket,
                                 asio::posix::stream_descriptor::wait_type what,
                                 std::chrono::steady_clock::time_point latest);

}  // namespace penstock::runtime
