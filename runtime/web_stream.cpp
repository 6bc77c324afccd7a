#include "runtime/web_stream.hpp"

#include <cstring>
#include <mutex>
#include <stdexcept>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "runtime/socket_address.hpp"

namespace penstock::runtime {

namespace {

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

// What certificates are checked against; reading them takes some milliseconds.
asio::ssl::context system_certificates() {
  asio::ssl::context made(asio::ssl::context::tls_client);
  made.set_default_verify_paths();
  made.set_verify_mode(asio::ssl::verify_peer);
  return made;
}

// Shared with the blocking thread that looks a name up. That may last longer than anybody waits for it, and longer than what
// `asker` belongs to.
struct lookup {
  std::mutex mutex;
  std::shared_ptr<wakeup> asker{};  // null: nobody waits any more
  bool done = false;
  std::vector<resolved_address> found{};
  std::string failure{};

  bool is_done() {
    const std::lock_guard lock(mutex);
    return done;
  }
};

// While one is alive, somebody waits.
struct asking {
  const std::shared_ptr<lookup> of;
  ~asking() {
    const std::lock_guard lock(of->mutex);
    of->asker.reset();
  }
};

void look_up(lookup& of, const socket_address& server) {
  std::vector<resolved_address> found;
  std::string failure;
  try {
    found = resolve(server, {});
  } catch (const std::exception& e) {
    failure = e.what();
  }
  const std::lock_guard lock(of.mutex);
  of.found = std::move(found);
  of.failure = std::move(failure);
  of.done = true;
  if (of.asker) of.asker->notify();
}

asio::ip::tcp::endpoint endpoint_of(const resolved_address& a) {
  asio::ip::tcp::endpoint e;
  e.resize(a.size);
  std::memcpy(e.data(), a.get(), a.size);
  return e;
}

}  // namespace

void web_stream::require_open(boost::system::error_code failure) const {
  if (closed_) throw std::runtime_error("closed");
  if (failure) throw std::runtime_error(failure.message());
}

void web_stream::limit_time(std::chrono::nanoseconds limit) {
  if (limit.count() > 0) {
    tcp_.expires_after(limit);
  } else {
    tcp_.expires_never();
  }
}

asio::awaitable<void> web_stream::connect(const web_url& to, std::chrono::nanoseconds timeout) {
  const time_point latest = std::chrono::steady_clock::now() + timeout;
  const std::vector<asio::ip::tcp::endpoint> found = co_await find(to, latest);
  tcp_.expires_at(latest);
  const auto [refused, peer] = co_await tcp_.async_connect(found, as_result);
  require_open(refused);
  boost::system::error_code ignored;
  tcp_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  tcp_.socket().set_option(asio::socket_base::keep_alive(true), ignored);
  if (to.tls) co_await secure(to.host);
  limit_time({});
}

// Errors do not name the server: the name may hold a secret.
asio::awaitable<std::vector<asio::ip::tcp::endpoint>> web_stream::find(const web_url& server, time_point latest) {
  const auto asked = std::make_shared<lookup>();
  asked->asker = woken_;
  const asking here{asked};
  const std::string with_zone = server.zone.empty() ? server.host : server.host + '%' + server.zone;  // getaddrinfo(3)
  const socket_address name{.host = with_zone, .port = server.port, .text = "the server"};
  pool_.submit([asked, name] { look_up(*asked, name); });
  bool in_time = true;
  while (in_time && !closed_ && !asked->is_done()) in_time = co_await woken_->wait_until(latest);
  require_open({});
  if (!asked->is_done()) throw std::runtime_error("the server's name could not be looked up in time");
  if (!asked->failure.empty()) throw std::runtime_error(asked->failure);
  std::vector<asio::ip::tcp::endpoint> all;
  for (const resolved_address& one : asked->found) all.push_back(endpoint_of(one));
  co_return all;
}

asio::awaitable<void> web_stream::secure(const std::string& host) {
  certificates_.emplace(system_certificates());
  tls_.emplace(tcp_, *certificates_);
  expect_certificate_of(host);
  const auto [failure] = co_await tls_->async_handshake(asio::ssl::stream_base::client, as_result);
  if (failure && !closed_) throw std::runtime_error(why_insecure(failure));
  require_open(failure);
}

// OpenSSL checks it, so it can say what is wrong.
void web_stream::expect_certificate_of(const std::string& host) {
  SSL* const ssl = tls_->native_handle();
  boost::system::error_code is_a_name;
  asio::ip::make_address(host, is_a_name);
  if (!is_a_name) {
    const int set = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
    if (set != 1) throw std::runtime_error("TLS cannot check the address of the server");
    return;
  }
  // Servers with several certificates choose by the name (RFC 6066, section 3: no addresses).
  const long chosen = SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(host.c_str()));
  if (chosen != 1 || SSL_set1_host(ssl, host.c_str()) != 1) throw std::runtime_error("TLS cannot check the name of the server");
}

std::string web_stream::why_insecure(boost::system::error_code failure) {
  const long verdict = SSL_get_verify_result(tls_->native_handle());
  const bool refused = failure.category() == asio::error::get_ssl_category() && verdict != X509_V_OK;
  return refused ? std::string("the server's certificate is refused: ") + X509_verify_cert_error_string(verdict) : failure.message();
}

void web_stream::close() {
  closed_ = true;
  woken_->notify();
  tcp_.close();
}

}  // namespace penstock::runtime
