#include "daemon/settings.hpp"

#include <nlohmann/json.hpp>

#include "api/listener.hpp"
#include "config/checked_value.hpp"
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
      {.name = "listen", .type = field_type::list,
       .doc = "Where the REST interface is, one address or several: HOST:PORT (port 0 chooses a free one), https://HOST:PORT, "
              "unix:/PATH. Sockets that systemd hands over are used instead.",
       .fallback = "['127.0.0.1:8420']", .example = "['127.0.0.1:8420', 'unix:/run/penstock/penstock.sock']",
       .children = {{.name = "address", .type = field_type::string}}, .minimum = 1, .single_allowed = true},
      {.name = "tls", .type = field_type::object,
       .doc = "For addresses with https://. The files are in PEM and read again on SIGHUP.",
       .children = {{.name = "certificate", .type = field_type::string,
                     .doc = "The server's certificate, and behind it those that lead to its authority.", .required = true},
                    {.name = "key", .type = field_type::string, .doc = "Its private key, without a password.", .required = true},
                    {.name = "client_ca", .type = field_type::string,
                     .doc = "Only clients with a certificate of these authorities are let in."}}},
      {.name = "socket_mode", .type = field_type::choice,
       .doc = "Permissions of the files of Unix sockets: whoever may write to one is an administrator of this daemon.",
       .fallback = "'0660'", .choices = {"0600", "0660", "0666"}},
      {.name = "socket_group", .type = field_type::string, .doc = "Group of the files of Unix sockets; default: the daemon's."},
      {.name = "pipelines", .type = field_type::string,
       .doc = "Folder whose *.yaml, *.yml and *.json definitions are loaded at start, when they are saved, and all of them on "
              "SIGHUP."},
      {.name = "secrets", .type = field_type::string,
       .doc = "Folder of ${secret:NAME}: one file each. systemd credentials are found as well. Default: DATA/secrets."},
      {.name = "insecure", .type = field_type::boolean,
       .doc = "Allow listening beyond loopback although no admin token exists, or no token is asked for.", .fallback = "false"},
      {.name = "auth", .type = field_type::choice,
       .doc = "Who is asked for a token. auto: everybody, from the first token on that was made in the data folder; tokens: "
              "everybody, always; none: nobody.",
       .fallback = "auto", .choices = {"auto", "tokens", "none"}},
      {.name = "keep_audit", .type = field_type::integer,
       .doc = "Changes kept in the audit log; of refused attempts it keeps a tenth of that.", .fallback = "100000",
       .minimum = 100},
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
      {.name = "realtime", .type = field_type::boolean,
       .doc = "Live flows, requests and writes go before everything else on the machine (SCHED_RR, sched(7)): an event is not kept "
              "waiting for a turn of the processor while batch jobs burn. The unit needs LimitRTPRIO=2 and RestrictRealtime=no.",
       .fallback = "false"},
      {.name = "max_connections", .type = field_type::integer, .doc = "Open HTTP connections; more are answered 503.",
       .fallback = "1024", .minimum = 1, .maximum = 100000},
      {.name = "max_waiting_requests", .type = field_type::integer,
       .doc = "Requests that may wait at once for a topic to store their events, or for the runs of a job to be stored; more are "
              "answered 429. Fewer: what is accepted is early. More: less is refused, above all where the disk is slow.",
       .fallback = "1000", .minimum = 1, .maximum = 100000},
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
  s.listen = checked.at("listen").get<std::vector<std::string>>();
  if (const config::value* tls = config::find(checked, "tls")) {
    s.tls = {config::text_or_empty(*tls, "certificate"), config::text_or_empty(*tls, "key"),
             config::text_or_empty(*tls, "client_ca")};
  }
  s.unix_socket.mode = static_cast<std::uint32_t>(std::stoul(text_of("socket_mode"), nullptr, 8));
  s.unix_socket.group = text_of("socket_group");
  s.pipelines = text_of("pipelines");
  s.secrets = text_of("secrets");
  s.insecure = checked.at("insecure").get<bool>();
  s.auth = text_of("auth");
  s.keep_audit = number("keep_audit");
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
  s.realtime = checked.at("realtime").get<bool>();
  s.max_connections = number("max_connections");
  s.max_waiting_requests = number("max_waiting_requests");
  s.max_body_bytes = number("max_body_bytes");
  return s;
}

namespace {

result<void> check_address(const settings& s, const api::listen_address& where) {
  if (where.tls && s.tls.certificate.empty()) {
    return error{errc::invalid, "listening on " + where.shown() +
                                    " needs a certificate: set 'tls: {certificate: FILE, key: FILE}' in the settings"};
  }
  if (s.auth == "none" && !s.insecure && !where.stays_here()) {
    return error{errc::invalid, "listening on " + where.shown() +
                                    " with 'auth: none' would open every pipeline to the network: keep to 127.0.0.1 or [::1], "
                                    "leave 'auth' out, or set 'insecure: true' if the network itself is trusted"};
  }
  return {};
}

}  // namespace

result<std::vector<api::listen_address>> listen_addresses(const settings& s) {
  std::vector<api::listen_address> all;
  for (const std::string& text : s.listen) {
    const auto where = api::parse_listen_address(text);
    if (!where) return where.error();
    all.push_back(*where);
  }
  for (const inherited_socket& one : s.inherited) {
    const auto where = api::address_of(one.fd, one.tls);
    if (!where) {
      return error{errc::invalid, "systemd hands over socket '" + one.name +
                                      "', which is no listening stream socket: use ListenStream= in the socket unit"};
    }
    all.push_back(*where);
  }
  return all;
}

result<void> check(const settings& s) {
  const auto all = listen_addresses(s);
  if (!all) return all.error();
  for (const api::listen_address& where : *all) {
    if (const auto ok = check_address(s, where); !ok) return ok;
  }
  return {};
}

result<void> check_listening(const settings& s, const api::listen_address& where, bool has_admin_token) {
  if (s.insecure || has_admin_token || where.stays_here()) return {};
  return error{errc::invalid, "listening on " + where.shown() +
                                  " would open every pipeline to the network, because no admin token exists: make one with "
                                  "'penstock token create --data " + s.data.string() +
                                  " --name NAME --role admin' and start again, keep to 127.0.0.1 or [::1], or set 'insecure: "
                                  "true' if the network itself is trusted"};
}

}  // namespace penstock::daemon
