// What the operator decides about the daemon itself: flags and the optional --config file. Flags win over the file.
// Plain values, made once in main before any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "api/listen_address.hpp"
#include "api/tls.hpp"
#include "config/error.hpp"
#include "config/field.hpp"
#include "daemon/service_manager.hpp"

namespace penstock::daemon {

struct settings {
  std::filesystem::path data = "/var/lib/penstock";
  std::vector<std::string> listen{"127.0.0.1:8420"};  // see api/listen_address.hpp; port 0 lets the system choose (DATA/listen)
  std::vector<inherited_socket> inherited{};  // from systemd; when there are any, they are used instead of `listen`
  api::tls_files tls{};                       // no certificate: nothing speaks TLS
  api::socket_permissions unix_socket{};
  std::filesystem::path pipelines{};        // folder of definitions; empty: none
  std::filesystem::path secrets{};          // folder of ${secret:NAME}; empty: DATA/secrets
  bool insecure = false;                    // listen beyond loopback without tokens
  std::string auth = "auto";                // who is asked for a token: "auto", "tokens" or "none"
  std::int64_t keep_audit = 0;              // entries
  std::string log_level = "info";
  std::string log_format = "text";          // or "json"
  std::chrono::nanoseconds drain_timeout{};
  std::int64_t max_active_runs = 0;
  std::chrono::nanoseconds priority_ageing{};
  std::int64_t max_log_bytes = 0;           // of one task
  std::int64_t keep_runs = 0;
  std::chrono::nanoseconds keep_runs_for{};
  std::int64_t flow_threads = 0;
  std::int64_t batch_threads = 0;
  bool realtime = false;
  std::int64_t max_connections = 0;
  std::int64_t max_waiting_requests = 0;
  std::int64_t max_body_bytes = 0;          // of events and hooks
};

// The record of the --config file; the reference documentation is made from it.
const config::field& settings_fields();

// The settings that the file's text says, defaults for the rest. invalid / malformed with positions.
result<settings> parse_settings(std::string_view text);

// Checks what only the whole can tell: an address beyond loopback, where nobody is ever asked for a token, needs `insecure`;
// TLS needs a certificate.
result<void> check(const settings& s);

// Where it listens: the addresses of the settings, or of the sockets that systemd has made. Those that are wrong are an error.
result<std::vector<api::listen_address>> listen_addresses(const settings& s);

// Once the tokens are known: beyond loopback it takes one of an admin of everything, or `insecure`. For each address that is
// listened on.
result<void> check_listening(const settings& s, const api::listen_address& where, bool has_admin_token);

}  // namespace penstock::daemon
