// A TLS server for tests of live feeds, with a certificate of its own making that is its own authority.
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace penstock::testing {

struct certificate {
  std::string text, key;  // PEM
};

// `names`: as OpenSSL writes subjectAltName, e.g. "DNS:localhost,IP:127.0.0.1".
inline certificate make_certificate(const std::string& names) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> made(X509_new(), X509_free);
  X509_set_version(made.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), 86400);
  X509_set_pubkey(made.get(), key.get());
  X509_NAME* const name = X509_get_subject_name(made.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(names.c_str()), -1, -1, 0);
  X509_set_issuer_name(made.get(), name);
  const auto add = [&made](int what, const std::string& text) {
    X509_EXTENSION* const one = X509V3_EXT_conf_nid(nullptr, nullptr, what, text.c_str());
    if (one == nullptr) throw std::runtime_error("no extension " + text);
    X509_add_ext(made.get(), one, -1);
    X509_EXTENSION_free(one);
  };
  add(NID_basic_constraints, "critical,CA:TRUE");
  add(NID_subject_alt_name, names);
  if (X509_sign(made.get(), key.get(), EVP_sha256()) == 0) throw std::runtime_error("no certificate");
  const auto text_of = [](auto&& write) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
    write(out.get());
    char* bytes = nullptr;
    const long size = BIO_get_mem_data(out.get(), &bytes);
    return std::string(bytes, static_cast<std::size_t>(size));
  };
  return {text_of([&](BIO* to) { PEM_write_bio_X509(to, made.get()); }),
          text_of([&](BIO* to) { PEM_write_bio_PrivateKey(to, key.get(), nullptr, nullptr, 0, nullptr, nullptr); })};
}

// Serves one connection after another: an event `1`, or a message `2` where a WebSocket is wanted; then it waits for the end.
class tls_server {
 public:
  explicit tls_server(const certificate& shown) : acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}) {
    tls_.use_certificate(boost::asio::buffer(shown.text), boost::asio::ssl::context::pem);
    tls_.use_private_key(boost::asio::buffer(shown.key), boost::asio::ssl::context::pem);
    port_ = acceptor_.local_endpoint().port();
    thread_ = std::thread([this] { serve(); });
  }
  ~tls_server() {  // the clients have gone
    ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
    thread_.join();
  }
  // `scheme` is "https" or "wss".
  std::string url(const std::string& scheme, const std::string& host) const {
    return scheme + "://" + host + ":" + std::to_string(port_) + "/feed";
  }

 private:
  using stream = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;

  void serve() {
    while (true) {
      stream to(io_, tls_);
      boost::system::error_code failure;
      acceptor_.accept(to.next_layer(), failure);
      if (failure) return;
      try {
        to.handshake(boost::asio::ssl::stream_base::server);
        answer(to);
      } catch (const boost::system::system_error&) {  // the client has gone
      }
    }
  }
  static void answer(stream& to) {
    boost::beast::flat_buffer buffer;
    boost::beast::http::request<boost::beast::http::string_body> asked;
    boost::beast::http::read(to, buffer, asked);
    if (boost::beast::websocket::is_upgrade(asked)) {
      boost::beast::websocket::stream<stream&> socket(to);
      socket.accept(asked);
      socket.write(boost::asio::buffer("2", 1));
      while (true) socket.read(buffer);
    }
    const std::string text = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    boost::asio::write(to, boost::asio::buffer(text));
    char ignored[100];
    while (true) to.read_some(boost::asio::buffer(ignored));
  }

  boost::asio::io_context io_;
  boost::asio::ssl::context tls_{boost::asio::ssl::context::tls_server};
  boost::asio::ip::tcp::acceptor acceptor_;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

// SSL_CERT_FILE while it is there. Made before threads that might read it.
class trusted_file {
 public:
  explicit trusted_file(const std::string& path) { ::setenv("SSL_CERT_FILE", path.c_str(), 1); }
  ~trusted_file() { ::unsetenv("SSL_CERT_FILE"); }
  trusted_file(const trusted_file&) = delete;
  trusted_file& operator=(const trusted_file&) = delete;
};

}  // namespace penstock::testing
