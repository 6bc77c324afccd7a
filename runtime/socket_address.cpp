#include "runtime/socket_address.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <netdb.h>
#include <netinet/in.h>
#include <stdexcept>
#include <string_view>
#include <sys/stat.h>
#include <sys/un.h>
#include <system_error>
#include <tuple>
#include <unistd.h>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "runtime/text.hpp"

namespace penstock::runtime {

namespace {

constexpr int most_waiting = 128;  // connections that nobody has accepted yet

[[noreturn]] void wrong(const std::string& text, const std::string& why) {
  throw std::runtime_error("'" + text + "' is no address: " + why + " (127.0.0.1:7000, [::1]:7000, unix:/path/socket)");
}

resolved_address local_address(const std::filesystem::path& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  const std::string& text = path.native();
  if (text.size() >= sizeof name.sun_path) {
    throw std::runtime_error("the path of a socket has at most " + std::to_string(sizeof name.sun_path - 1) + " bytes: " + text);
  }
  std::memcpy(name.sun_path, text.c_str(), text.size() + 1);
  resolved_address found;
  std::memcpy(&found.storage, &name, sizeof name);
  found.size = sizeof name;
  return found;
}

unique_fd new_socket(int family, int type) {
  unique_fd made(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (made.get() < 0) throw std::runtime_error("cannot make a socket: " + error_words(errno));
  return made;
}

// What an earlier life has left behind must not be in the way; nothing else is removed.
void remove_left_behind(const resolved_address& at, const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (!S_ISSOCK(info.st_mode)) throw std::runtime_error("cannot listen at " + path + ": it is there and no socket");
  const unique_fd probe = new_socket(AF_UNIX, SOCK_STREAM);
  if (::connect(probe.get(), at.get(), at.size) != 0 && errno == ECONNREFUSED) {
    ::unlink(path.c_str());
    return;
  }
  throw std::runtime_error("cannot listen at " + path + ": another program does");
}

// getaddrinfo(3)'s result; 0: `all` has at least one.
int look_up(const socket_address& address, int flags, std::vector<resolved_address>& all) {
  addrinfo asked{};
  asked.ai_flags = flags;
  asked.ai_socktype = address.is == socket_address::kind::udp ? SOCK_DGRAM : SOCK_STREAM;
  addrinfo* first = nullptr;
  const int failed = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &asked, &first);
  if (failed != 0) return failed;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(first, &::freeaddrinfo);
  for (const addrinfo* one = first; one; one = one->ai_next) {
    if (one->ai_addrlen > sizeof(sockaddr_storage)) continue;
    resolved_address& found = all.emplace_back();
    std::memcpy(&found.storage, one->ai_addr, one->ai_addrlen);
    found.size = one->ai_addrlen;
  }
  return all.empty() ? EAI_NONAME : 0;
}

}  // namespace

socket_address socket_address::of(const std::string& text) {
  socket_address a;
  a.text = text;
  std::string_view rest = text;
  if (rest.starts_with("unix:")) {
    a.is = kind::local;
    a.path = rest.substr(5);
    if (a.path.empty() || text.find('\0') != text.npos) wrong(text, "there is no path");
    return a;
  }
  if (rest.starts_with("udp:")) a.is = kind::udp;
  if (rest.starts_with("udp:") || rest.starts_with("tcp:")) rest.remove_prefix(4);
  const std::size_t colon = rest.rfind(':');
  if (colon == rest.npos) wrong(text, "it has no port");
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != host.npos) {
    wrong(text, "an IPv6 address stands in brackets");
  }
  if (host.empty()) wrong(text, "it has no host");
  std::uint16_t number = 0;
  const auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (failure != std::errc() || end != port.data() + port.size()) wrong(text, "the port is a number up to 65535");
  a.host = host;
  a.port = port;
  return a;
}

bool resolved_address::reaches_beyond() const {
  if (storage.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &storage, sizeof in);
    return (ntohl(in.sin_addr.s_addr) >> 24) != 127;
  }
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &storage, sizeof in);
    return !IN6_IS_ADDR_LOOPBACK(&in.sin6_addr);
  }
  return false;
}

std::string resolved_address::text() const {
  char host[64], port[16];
  if (storage.ss_family != AF_INET && storage.ss_family != AF_INET6) return {};
  if (::getnameinfo(get(), size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) return {};
  const std::string shown = storage.ss_family == AF_INET6 ? "[" + std::string(host) + "]" : host;
  return shown + ":" + port;
}

std::vector<resolved_address> resolve(const socket_address& address, const std::filesystem::path& folder) {
  if (address.is == socket_address::kind::local) return {local_address(folder / address.path)};
  std::vector<resolved_address> all;
  const int failed = look_up(address, AI_NUMERICSERV, all);
  if (failed != 0) throw std::runtime_error("cannot find " + address.text + ": " + ::gai_strerror(failed));
  // "localhost" is 127.0.0.1 to most who write it.
  const auto is_four = [](const resolved_address& a) { return a.storage.ss_family == AF_INET; };
  std::stable_partition(all.begin(), all.end(), is_four);
  return all;
}

std::optional<resolved_address> resolve_number(const socket_address& address) {
  std::vector<resolved_address> all;
  if (address.is == socket_address::kind::local) return std::nullopt;
  if (look_up(address, AI_NUMERICSERV | AI_NUMERICHOST, all) != 0) return std::nullopt;
  return all.front();
}

unique_fd listen_at(const resolved_address& at, const socket_address& address) {
  const bool local = at.storage.ss_family == AF_UNIX;
  const bool datagrams = address.is == socket_address::kind::udp;
  if (local) {
    sockaddr_un name{};
    std::memcpy(&name, &at.storage, sizeof name);
    remove_left_behind(at, name.sun_path);
  }
  unique_fd made = new_socket(at.storage.ss_family, datagrams ? SOCK_DGRAM : SOCK_STREAM);
  const int on = 1;
  if (!local && !datagrams) ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(made.get(), at.get(), at.size) != 0 || (!datagrams && ::listen(made.get(), most_waiting) != 0)) {
    throw std::runtime_error("cannot listen at " + address.text + ": " + error_words(errno));
  }
  return made;
}

asio::awaitable<bool> wait_ready(std::shared_ptr<asio::posix::stream_descriptor> socket,
                                 asio::posix::stream_descriptor::wait_type what,
                                 std::chrono::steady_clock::time_point latest) {
  asio::steady_timer timer(socket->get_executor(), latest);
  const auto late = std::make_shared<bool>(false);
  const auto done = std::make_shared<bool>(false);  // the handler may be queued by then, and must not end the next wait
  auto at_latest = [socket, late, done](boost::system::error_code cancelled) {
    if (cancelled || *done) return;
    *late = true;
    boost::system::error_code ignored;
    socket->cancel(ignored);
  };
  timer.async_wait(std::move(at_latest));
  const auto waited = co_await socket->async_wait(what, asio::as_tuple(asio::use_awaitable));
  *done = true;
  timer.cancel();
  co_return !std::get<0>(waited) && !*late;
}

asio::awaitable<std::shared_ptr<asio::posix::stream_descriptor>> connect_to(asio::any_io_executor strand, resolved_address to,
                                                                            std::chrono::steady_clock::time_point latest) {
  unique_fd made = new_socket(to.storage.ss_family, SOCK_STREAM);
  auto socket = std::make_shared<asio::posix::stream_descriptor>(strand);
  socket->assign(made.get());
  const int fd = made.release();
  int failed = ::connect(fd, to.get(), to.size) == 0 ? 0 : errno;
  if (failed == EINPROGRESS) {
    const bool ready = co_await wait_ready(socket, asio::posix::stream_descriptor::wait_write, latest);
    socklen_t size = sizeof failed;
    if (!ready) {
      failed = ETIMEDOUT;
    } else if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0) {
      failed = errno;
    }
  }
  if (failed != 0) throw std::runtime_error("cannot connect: " + error_words(failed));
  co_return socket;
}

}  // namespace penstock::runtime
