// What the server shows and demands in TLS: certificate, key, and perhaps whose certificates clients must have.
//
// Control thread. A context is made whole from its files or not at all, and never changes: to take new files is to make
// another one. Connections keep working with the one that they began with.
#pragma once

#include <filesystem>
#include <memory>

namespace boost::asio::ssl {
class context;
}

namespace penstock::api {

struct tls_files {
  std::filesystem::path certificate{};  // PEM: the server's own first, then those that lead to its authority
  std::filesystem::path key{};          // PEM, without a password
  std::filesystem::path client_ca{};    // PEM; empty: clients need no certificate
};

// TLS 1.2 and 1.3 with forward secrecy only. Warns on the log of a key that others can read and of a certificate that has
// ended or soon will. Throws std::runtime_error that names the file and what is wrong with it.
std::shared_ptr<boost::asio::ssl::context> make_tls_context(const tls_files& files);

}  // namespace penstock::api
