#include "api/tls.hpp"

#include <cerrno>
#include <stdexcept>
#include <string>
#include <string_view>

#include <boost/asio/ssl/context.hpp>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

namespace penstock::api {

namespace {

namespace fs = std::filesystem;
namespace ssl = boost::asio::ssl;

constexpr const char* ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20";  // of TLS 1.2; all of TLS 1.3 are good
constexpr unsigned char session_context[] = "penstock";
constexpr int soon = 14;  // days before the end of a certificate

[[noreturn]] void fail(const fs::path& file, const char* what) {
  const unsigned long code = ::ERR_peek_last_error();
  if (const char* reason = code != 0 ? ::ERR_reason_error_string(code) : nullptr) spdlog::debug("TLS: {}: {}", file.string(), reason);
  ::ERR_clear_error();
  throw std::runtime_error("TLS: " + file.string() + " " + what);
}

void must_be_readable(const fs::path& file) {
  if (::access(file.c_str(), R_OK) != 0)
    throw std::runtime_error("TLS: " + file.string() + " cannot be read: " + std::generic_category().message(errno));
}

// A key with a password fails instead of asking for it on the terminal.
int no_password(char*, int, int, void*) { return -1; }

// HTTP/1.1 is all that is spoken here; a client that offers others only is served it all the same.
int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* size, const unsigned char* offered,
                    unsigned int offered_size, void*) {
  static constexpr std::string_view ours = "http/1.1";
  const std::string_view all(reinterpret_cast<const char*>(offered), offered_size);
  for (std::size_t at = 0; at < all.size(); at += 1 + offered[at]) {
    if (all.substr(at + 1, offered[at]) != ours) continue;
    *chosen = offered + at + 1;
    *size = offered[at];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_NOACK;
}

void warn_of(const tls_files& files, SSL_CTX* made) {
  struct stat about {};
  if (::stat(files.key.c_str(), &about) == 0 && (about.st_mode & S_IROTH) != 0)
    spdlog::warn("TLS: everybody on this machine can read the key {}: chmod o-r it", files.key.string());
  int days = 0, seconds = 0;
  if (::ASN1_TIME_diff(&days, &seconds, nullptr, ::X509_get0_notAfter(::SSL_CTX_get0_certificate(made))) != 1) return;
  if (days < 0 || seconds < 0) {
    spdlog::warn("TLS: the certificate {} has expired", files.certificate.string());
  } else if (days < soon) {
    spdlog::warn("TLS: the certificate {} expires in {} days", files.certificate.string(), days);
  }
}

}  // namespace

std::shared_ptr<ssl::context> make_tls_context(const tls_files& files) {
  must_be_readable(files.certificate);
  must_be_readable(files.key);
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX* const made = context->native_handle();
  ::ERR_clear_error();
  ::SSL_CTX_set_min_proto_version(made, TLS1_2_VERSION);
  ::SSL_CTX_set_options(made, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  ::SSL_CTX_set_cipher_list(made, ciphers);
  ::SSL_CTX_set_default_passwd_cb(made, &no_password);
  ::SSL_CTX_set_alpn_select_cb(made, &choose_protocol, nullptr);
  ::SSL_CTX_set_session_id_context(made, session_context, sizeof session_context);
  if (::SSL_CTX_use_certificate_chain_file(made, files.certificate.c_str()) != 1)
    fail(files.certificate, "is not a certificate in PEM: it must begin with the daemon's own, the chain behind it");
  if (::SSL_CTX_use_PrivateKey_file(made, files.key.c_str(), SSL_FILETYPE_PEM) != 1 || ::SSL_CTX_check_private_key(made) != 1)
    fail(files.key, ("is not the key of " + files.certificate.string() + " in PEM, without a password").c_str());
  if (!files.client_ca.empty()) {
    must_be_readable(files.client_ca);
    STACK_OF(X509_NAME)* const names = ::SSL_load_client_CA_file(files.client_ca.c_str());
    if (names == nullptr || ::SSL_CTX_load_verify_locations(made, files.client_ca.c_str(), nullptr) != 1)
      fail(files.client_ca, "holds no certificates in PEM");
    ::SSL_CTX_set_client_CA_list(made, names);
    ::SSL_CTX_set_verify(made, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  warn_of(files, made);
  return context;
}

}  // namespace penstock::api
