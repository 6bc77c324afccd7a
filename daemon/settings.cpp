#include "daemon/settings.hpp"

#include <boost/asio/ip/address.hpp>
#include <charconv>
#include <nlohmann/json.hpp>

#include "config/node.hpp"
#include "config/place.hpp"
#include "config/validate.hpp"

namespace penstock::daemon {

namespace {

using config::field;
using config::field_type;

field make_settings_fields() {
  field root{.name = "settings", .type = field_type::object, .doc = "Settings of penstockd (--config FILE)."};
  root.children = {
      {.name = "data", .type = field_type::string, .doc = "The data folder: everything Penstock keeps.",
       .fallback = "/var/lib/penstock"},
      {.name = "listen", .type = field_type::string, .doc = "HOST:PORT of the REST interface; port 0 chooses a free one.",
       .fallback = "'127.0.0.1:8420'", .example = "'[::1]:8420'"},
      {.name = "pipelines", .type = field_type::string,
       .doc = "Folder whose *.yaml, *.yml and *.json definitions are loaded at start, when they are saved, and all of them on "
              "SIGHUP."},
      {.name = "secrets", .type = field_type::string,
       .doc = "Folder of ${secret:NAME}: one file each. systemd credentials are found as well. Default: DATA/secrets."},
      {.name = "insecure", .type = field_type::boolean,
       .doc = "Allow listening beyond loopback although nothing asks for a token.", .fallback = "false"},
      {.name = "log_level", .type = field_type::choice, .doc = "The least severe message that is logged.",
       .fallback = "info", .choices = {"debug", "info", "warn", "error"}},
      {.name = "log_format", .type = field_type::choice, .doc = "text for people, json for collectors: one object a line.",
       .fallback = "text", .choices = {"text", "json"}},
      {.name = "drain_timeout", .type = field_type::duration,
       .doc = "How long a stop waits for flows and runs before it cuts them off.", .fallback = "30s", .minimum = 0},
      {.name = "max_active_runs", .type = field_type::integer, .doc = "Runs executed at once; more of them wait.",
       .fallback = "64", .minimum = 1, .maximum = 100000},
      {.name = "priority_ageing", .type = field_type::duration,
       .doc = "A run that has waited so long goes before all priorities.", .fallback = "10m", .minimum = 0},
      {.name = "max_log_bytes", .type = field_type::size, .doc = "Log of one task; what it prints beyond is counted.",
       .fallback = "16MiB", .minimum = 1024},
      {.name = "keep_runs", .type = field_type::integer, .doc = "Ended runs kept of each job.", .fallback = "10000",
       .minimum = 1},
      {.name = "keep_runs_for", .type = field_type::duration, .doc = "How long ended runs and their logs are kept.",
       .fallback = "30d", .minimum = 1},
      {.name = "flow_threads", .type = field_type::integer, .doc = "Threads of the live flows.", .fallback = "2",
       .minimum = 1, .maximum = 256},
      {.name = "batch_threads", .type = field_type::integer, .doc = "Threads of the batch side, at low priority.",
       .fallback = "2", .minimum = 1, .maximum = 256},
      {.name = "max_connections", .type = field_type::integer, .doc = "Open HTTP connections; more are answered 503.",
       .fallback = "1024", .minimum = 1, .maximum = 100000},
      {.name = "max_body_bytes", .type = field_type::size, .doc = "Largest body of an intake request.",
       .fallback = "16MiB", .minimum = 1024},
  };
  return root;
}

}  // namespace

const field& settings_fields() {
  static const field fields = make_settings_fields();
  return fields;
}

result<settings> parse_settings(std::string_view text) {
  auto document = config::parse_document(text);
  if (!document) return document.error();
  if (document->type == config::node::kind::null) document->type = config::node::kind::mapping;
  config::problem_list problems;
  const config::catalog none;
  const auto checked = config::validate(config::place(*document), settings_fields(), none, problems);
  if (!problems.empty()) return error{errc::invalid, "the settings have problems", problems.take_sorted()};

  settings s;
  const auto text_of = [&](const char* key, std::string fallback = {}) { return checked.value(key, std::move(fallback)); };
  const auto number = [&](const char* key) { return checked.at(key).get<std::int64_t>(); };
  s.data = text_of("data");
  s.listen = text_of("listen");
  s.pipelines = text_of("pipelines");
  s.secrets = text_of("secrets");
  s.insecure = checked.at("insecure").get<bool>();
  s.log_level = text_of("log_level");
  s.log_format = text_of("log_format");
  s.drain_timeout = std::chrono::nanoseconds(number("drain_timeout"));
  s.max_active_runs = number("max_active_runs");
  s.priority_ageing = std::chrono::nanoseconds(number("priority_ageing"));
  s.max_log_bytes = number("max_log_bytes");
  s.keep_runs = number("keep_runs");
  s.keep_runs_for = std::chrono::nanoseconds(number("keep_runs_for"));
  s.flow_threads = number("flow_threads");
  s.batch_threads = number("batch_threads");
  s.max_connections = number("max_connections");
  s.max_body_bytes = number("max_body_bytes");
  return s;
}

result<endpoint> parse_endpoint(std::string_view text) {
  const auto bad = [&] { return error{errc::invalid, "'" + std::string(text) + "' is not HOST:PORT"}; };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad();
  endpoint e;
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  e.host = host == "localhost" ? "127.0.0.1" : std::string(host);
  boost::system::error_code not_an_address;
  boost::asio::ip::make_address(e.host, not_an_address);
  const auto port = text.substr(colon + 1);
  const auto read = std::from_chars(port.data(), port.data() + port.size(), e.port);
  if (not_an_address || read.ec != std::errc() || read.ptr != port.data() + port.size()) return bad();
  return e;
}

result<void> check(const settings& s) {
  const auto where = parse_endpoint(s.listen);
  if (!where) return where.error();
  if (!s.insecure && !boost::asio::ip::make_address(where->host).is_loopback()) {
    return error{errc::invalid, "listening on " + s.listen +
                                    " would open every pipeline to the network: keep to 127.0.0.1 or [::1] (with a proxy in "
                                    "front), or set 'insecure: true' if the network itself is trusted"};
  }
  return {};
}

}  // namespace penstock::daemon
