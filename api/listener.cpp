#include "api/listener.hpp"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace penstock::api {

namespace {

using tcp = asio::ip::tcp;
using local = asio::local::stream_protocol;

constexpr int backlog = 4096;

std::string text_of(int error_number) { return std::generic_category().message(error_number); }

// Refuses to take the place of a daemon that lives, or of a file that is no socket.
void make_way(const std::string& path) {
  struct stat about {};
  if (::lstat(path.c_str(), &about) != 0) return;
  if (!S_ISSOCK(about.st_mode)) throw std::runtime_error("a file that is no socket is there; remove it");
  asio::io_context nowhere;
  local::socket probe(nowhere);
  boost::system::error_code failure;
  probe.open(local(), failure);
  probe.non_blocking(true, failure);
  probe.connect(local::endpoint(path), failure);
  if (!failure || failure == asio::error::try_again) throw std::runtime_error("another process listens there");
  if (failure != asio::error::connection_refused) throw std::runtime_error(failure.message());
}

gid_t group_id(const std::string& name) {
  const struct group* const found = ::getgrnam(name.c_str());  // NOLINT(concurrency-mt-unsafe): control thread, at the start
  if (found == nullptr) throw std::runtime_error("there is no group '" + name + "'");
  return found->gr_gid;
}

}  // namespace

listener::listener(asio::any_io_executor control, const listen_address& where, const socket_permissions& permissions)
    : acceptor_(control), address_(where), inherited_(false) {
  std::string why;
  try {
    if (where.is_unix()) {
      bind_unix(permissions);
    } else {
      bind_tcp();
    }
    return;
  } catch (const boost::system::system_error& e) {
    why = e.code().message();
  } catch (const std::runtime_error& e) {
    why = e.what();
  }
  throw std::runtime_error("cannot listen on " + (where.is_unix() ? where.shown() : where.host_and_port()) + ": " + why);
}

listener::listener(asio::any_io_executor control, int inherited, bool tls) : acceptor_(control), inherited_(true) {
  auto found = address_of(inherited, tls);
  if (!found) {
    throw std::runtime_error("the inherited file descriptor " + std::to_string(inherited) +
                             " is no listening stream socket of TCP or Unix kind");
  }
  address_ = std::move(*found);
  int family = 0;
  socklen_t size = sizeof family;
  ::getsockopt(inherited, SOL_SOCKET, SO_DOMAIN, &family, &size);
  acceptor_.assign(asio::generic::stream_protocol(family, 0), inherited);
}

listener::~listener() { close(); }

void listener::bind_tcp() {
  tcp::resolver resolver(acceptor_.get_executor());
  const auto found = resolver.resolve(address_.host, std::to_string(address_.port), tcp::resolver::passive);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor_.open(endpoint.protocol());
  acceptor_.set_option(asio::socket_base::reuse_address(true));
  acceptor_.bind(endpoint);
  acceptor_.listen(backlog);
  address_.port = address_of(acceptor_.native_handle(), address_.tls)->port;
}

// The file gets its name when all else is done: no client finds it too open, or with nobody there.
void listener::bind_unix(const socket_permissions& permissions) {
  const std::filesystem::path folder = std::filesystem::path(address_.path).parent_path();
  std::error_code unknown;
  if (!folder.empty() && !std::filesystem::exists(folder, unknown) && !unknown) {
    throw std::runtime_error("its folder " + folder.string() + " is not there: make it first (under systemd with RuntimeDirectory=)");
  }
  make_way(address_.path);
  const std::string draft = address_.path + ".new";
  ::unlink(draft.c_str());
  const local::endpoint endpoint(draft);
  acceptor_.open(endpoint.protocol());
  acceptor_.bind(endpoint);
  try {
    give_permissions(draft, permissions);
    acceptor_.listen(backlog);
    struct stat about {};
    if (::stat(draft.c_str(), &about) != 0 || ::rename(draft.c_str(), address_.path.c_str()) != 0)
      throw std::runtime_error(text_of(errno));
    file_.emplace(about.st_dev, about.st_ino);
  } catch (...) {
    ::unlink(draft.c_str());
    throw;
  }
}

void listener::give_permissions(const std::string& file, const socket_permissions& permissions) const {
  if (!permissions.group.empty() && ::chown(file.c_str(), static_cast<uid_t>(-1), group_id(permissions.group)) != 0)
    throw std::runtime_error("it cannot be given to the group '" + permissions.group + "': " + text_of(errno));
  if (::chmod(file.c_str(), permissions.mode) != 0) throw std::runtime_error(text_of(errno));
}

void listener::close() {
  boost::system::error_code ignored;
  struct stat about {};
  if (file_ && ::lstat(address_.path.c_str(), &about) == 0 && *file_ == std::pair(about.st_dev, about.st_ino))
    ::unlink(address_.path.c_str());
  file_.reset();
  acceptor_.close(ignored);
}

std::optional<listen_address> address_of(int listening, bool tls) {
  int kind = 0, accepts = 0;
  socklen_t size = sizeof kind;
  if (::getsockopt(listening, SOL_SOCKET, SO_TYPE, &kind, &size) != 0 || kind != SOCK_STREAM) return std::nullopt;
  if (::getsockopt(listening, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) != 0 || accepts == 0) return std::nullopt;
  sockaddr_storage raw{};
  size = sizeof raw;
  if (::getsockname(listening, reinterpret_cast<sockaddr*>(&raw), &size) != 0) return std::nullopt;
  listen_address found;
  if (raw.ss_family == AF_UNIX) {
    sockaddr_un name{};
    std::memcpy(&name, &raw, sizeof name);
    const std::size_t length = size > offsetof(sockaddr_un, sun_path) ? size - offsetof(sockaddr_un, sun_path) : 0;
    found.path.assign(name.sun_path, name.sun_path[0] == '\0' ? length : ::strnlen(name.sun_path, length));
    if (found.path.starts_with('\0')) found.path[0] = '@';
    if (found.path.empty()) found.path = "@";
    return found;
  }
  if (raw.ss_family != AF_INET && raw.ss_family != AF_INET6) return std::nullopt;
  tcp::endpoint endpoint;
  endpoint.resize(size);
  std::memcpy(endpoint.data(), &raw, size);
  found.host = endpoint.address().to_string();
  found.port = endpoint.port();
  found.tls = tls;
  return found;
}

}  // namespace penstock::api
