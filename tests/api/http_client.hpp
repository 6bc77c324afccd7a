// A client that sends exact bytes and reads what comes back: one blocking socket, on the test's thread.
#pragma once

#include <cerrno>
#include <chrono>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

namespace penstock::testing {

struct reply {
  int status = 0;
  std::string head, body;
  bool has(const std::string& text) const { return head.find(text) != std::string::npos; }
};

class client {
 public:
  explicit client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval limit{.tv_sec = 20, .tv_usec = 0};  // so that a failing test ends
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      ::close(fd_);
      throw std::runtime_error("cannot connect");
    }
  }
  // Over a Unix socket's file.
  explicit client(const std::string& file) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    file.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      ::close(fd_);
      throw std::runtime_error("cannot connect to " + file);
    }
  }
  client(client&& other) noexcept : fd_(std::exchange(other.fd_, -1)), unread_(std::move(other.unread_)) {}
  ~client() { leave(); }

  void leave() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void half_close() { ::shutdown(fd_, SHUT_WR); }

  // False when the server has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  // Reads more; false at the end.
  bool fill() {
    char bytes[65536];
    ssize_t n;
    do {
      n = ::recv(fd_, bytes, sizeof bytes, 0);
    } while (n < 0 && errno == EINTR);  // a child of this process has ended
    if (n <= 0) return false;
    unread_.append(bytes, static_cast<std::size_t>(n));
    return true;
  }
  std::string read_until(const std::string& mark) {
    std::size_t at;
    while ((at = unread_.find(mark)) == std::string::npos) {
      if (!fill()) return std::exchange(unread_, {});
    }
    std::string out = unread_.substr(0, at + mark.size());
    unread_.erase(0, out.size());
    return out;
  }
  std::string read_bytes(std::size_t size) {
    while (unread_.size() < size && fill()) {
    }
    std::string out = unread_.substr(0, size);
    unread_.erase(0, out.size());
    return out;
  }
  std::string read_all() {
    while (fill()) {
    }
    return std::exchange(unread_, {});
  }
  reply read_reply(bool head_only = false) {
    reply r;
    r.head = read_until("\r\n\r\n");
    if (r.head.size() > 12) r.status = std::stoi(r.head.substr(9, 3));
    const std::size_t length = r.head.find("Content-Length: ");
    if (!head_only && length != std::string::npos)
      r.body = read_bytes(std::stoul(r.head.substr(length + 16)));
    return r;
  }
  reply call(std::string_view bytes) {
    send(bytes);
    return read_reply();
  }
  // True when the server closes without another byte.
  bool closed() { return !fill() && unread_.empty(); }

 private:
  int fd_;
  std::string unread_;
};

}  // namespace penstock::testing
