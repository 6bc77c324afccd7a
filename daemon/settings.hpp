// What the operator decides about the daemon itself: flags and the optional --config file. Flags win over the file.
// Plain values, made once in main before any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/error.hpp"
#include "config/field.hpp"

namespace penstock::daemon {

struct settings {
  std::filesystem::path data = "/var/lib/penstock";
  std::string listen = "127.0.0.1:8420";    // HOST:PORT; port 0 lets the system choose (see DATA/listen)
  std::filesystem::path pipelines{};        // folder of definitions; empty: none
  std::filesystem::path secrets{};          // folder of ${secret:NAME}; empty: DATA/secrets
  bool insecure = false;                    // listen beyond loopback without tokens
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
  std::int64_t max_connections = 0;
  std::int64_t max_body_bytes = 0;          // of events and hooks
};

// The record of the --config file; the reference documentation is made from it.
const config::field& settings_fields();

// The settings that the file's text says, defaults for the rest. invalid / malformed with positions.
result<settings> parse_settings(std::string_view text);

// Checks what only the whole can tell: an address beyond loopback needs `insecure`.
result<void> check(const settings& s);

struct endpoint {
  std::string host;
  std::uint16_t port = 0;
};
// "127.0.0.1:8420", "[::1]:8420".
result<endpoint> parse_endpoint(std::string_view text);

}  // namespace penstock::daemon
