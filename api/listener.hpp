// A socket that connections come in by: bound here, or taken over from whoever started the daemon.
//
// Control thread; owned by the server's core and the coroutine that accepts. What holds: a Unix socket's file appears under its
// name only when it has its permissions and can be connected to, and is removed at the end, unless another has taken its
// place. An inherited socket belongs to who made it: it is let go of, and its file stays.
#pragma once

#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <sys/types.h>

#include "api/listen_address.hpp"

namespace penstock::api {

namespace asio = boost::asio;

class listener {
 public:
  using acceptor_type = asio::basic_socket_acceptor<asio::generic::stream_protocol>;

  // Binds and listens. A socket file that nobody listens at any more is replaced. Throws std::runtime_error that names the
  // address.
  listener(asio::any_io_executor control, const listen_address& where, const socket_permissions& permissions);
  // Takes over a listening stream socket of TCP or Unix kind. Throws std::runtime_error when it is none.
  listener(asio::any_io_executor control, int inherited, bool tls);
  ~listener();
  listener(const listener&) = delete;
  listener& operator=(const listener&) = delete;

  // With the port that the system chose.
  const listen_address& address() const { return address_; }
  bool inherited() const { return inherited_; }
  acceptor_type& acceptor() { return acceptor_; }
  void close();

 private:
  void bind_tcp();
  void bind_unix(const socket_permissions& permissions);
  void give_permissions(const std::string& file, const socket_permissions& permissions) const;

  acceptor_type acceptor_;
  listen_address address_;
  const bool inherited_;
  std::optional<std::pair<dev_t, ino_t>> file_;  // the socket file that is ours to remove
};

// The address of a listening stream socket; nothing when it is no such. `tls` is what the caller knows.
std::optional<listen_address> address_of(int listening, bool tls);

}  // namespace penstock::api
