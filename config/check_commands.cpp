#include "config/check_commands.hpp"

#include <algorithm>
#include <charconv>

#include "config/characters.hpp"
#include "config/fill_in.hpp"
#include "config/in_quotes.hpp"
#include "config/time.hpp"
#include "config/walk.hpp"

namespace penstock::config {
namespace {

bool is_space(char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; }

void check_program(const place& run, problem_list& problems) {
  if (run.what().type != node::kind::sequence || run.what().items.empty()) return;
  const place program = run.item(0);
  if (program.what().type != node::kind::scalar || !program.what().text.empty()) return;
  problems.wrong_value(program, "the program's name is empty");
}

void check_variable(const std::string& name, const place& where, problem_list& problems) {
  if (name.empty() || is_digit(name.front()) || !std::all_of(name.begin(), name.end(), is_word)) {
    problems.wrong_key(where, in_quotes(name) +
                                  " cannot name an environment variable: letters, digits and '_', no digit first");
  } else if (name.starts_with("PENSTOCK_")) {
    problems.wrong_key(where, in_quotes(name) + ": the daemon itself sets what begins with PENSTOCK_");
  }
}

// What no account of any system can be called, so that a slip shows here and not when the command starts.
bool may_name_an_account(std::string_view text) {
  if (text.empty() || text.front() == '-') return false;
  if (text.ends_with('$')) text.remove_suffix(1);  // machine accounts of Samba
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return is_space(c) || c == ':' || c == '/' || c == ',' || c == '$'; });
}

bool has_fill_in(std::string_view text) {
  const auto parts = split_fill_ins(text);
  return std::any_of(parts.begin(), parts.end(),
                     [](const text_part& part) { return part.type != text_part::kind::text; });
}

void check_folder(const place& folder, problem_list& problems) {
  const std::string& text = folder.what().text;
  if (text.empty()) {
    problems.wrong_value(folder, "the folder's name is empty");
  } else if (has_fill_in(text)) {
    problems.wrong_value(folder, "expressions are filled in in 'run' and 'environment' only");
  }
}

void check_process(const place& p, problem_list& problems) {
  for (const auto* key : {"user", "group"}) {
    look_at_text(p, key, [&](const place& account) {
      if (may_name_an_account(account.what().text)) return;
      problems.wrong_value(account, in_quotes(account.what().text) + " is not the name or number of a " + key);
    });
  }
  look_at_text(p, "workdir", [&](const place& folder) { check_folder(folder, problems); });
  look_at_text(p, "umask", [&](const place& mask) {
    if (parse_umask(mask.what().text)) return;
    problems.wrong_value(mask, in_quotes(mask.what().text) + " is not three octal digits, such as \"027\"");
  });
  look_at(p, "limits", [&](const place& limits) {
    look_at_text(limits, "cpu_time", [&](const place& time) {
      const auto parsed = parse_duration(time.what().text);
      if (!parsed || *parsed % std::chrono::seconds(1) == nanoseconds{0}) return;
      problems.wrong_value(time, "processor time is limited in whole seconds, not " + in_quotes(time.what().text));
    });
  });
}

// RFC 3986, section 3: what curl or a person would call a web address.
bool is_web_address(std::string_view text) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!text.starts_with(scheme)) continue;
    const std::string_view rest = text.substr(scheme.size());
    const bool host = !rest.empty() && rest.front() != '/' && rest.front() != ':' && rest.front() != '?';
    return host && std::none_of(rest.begin(), rest.end(), is_space);
  }
  return false;
}

// HOST:PORT, [::1]:PORT.
bool is_host_and_port(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == text.npos || colon == 0) return false;
  const std::string_view host = text.substr(0, colon), port = text.substr(colon + 1);
  int number = 0;
  const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (failed != std::errc{} || end != port.data() + port.size() || number < 1 || number > 65'535) return false;
  const bool in_brackets = host.starts_with('[') && host.ends_with(']') && host.size() > 2;
  if (!in_brackets && host.find(':') != host.npos) return false;
  return std::none_of(host.begin(), host.end(), [](char c) { return is_space(c) || c == '/'; });
}

}  // namespace

std::optional<int> parse_umask(std::string_view text) {
  int mask = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), mask, 8);
  const bool all = failed == std::errc{} && end == text.data() + text.size();
  if (!all || text.size() > 4 || !is_digit(text.front()) || mask > 0777) return std::nullopt;
  return mask;
}

void check_command(const place& p, problem_list& problems) {
  look_at(p, "run", [&](const place& run) { check_program(run, problems); });
  look_at(p, "environment", [&](const place& environment) {
    for_each_entry(environment, [&](const std::string& name, const place& variable) {
      check_variable(name, variable, problems);
    });
  });
  check_process(p, problems);
}

void check_readiness(const place& ready, problem_list& problems) {
  look_at_text(ready, "http", [&](const place& address) {
    if (is_web_address(address.what().text)) return;
    problems.wrong_value(address, in_quotes(address.what().text) +
                                      " is not an address such as http://127.0.0.1:9000/healthz");
  });
  look_at_text(ready, "tcp", [&](const place& address) {
    if (is_host_and_port(address.what().text)) return;
    problems.wrong_value(address,
                         in_quotes(address.what().text) + " is not HOST:PORT, such as 127.0.0.1:9000");
  });
  look_at(ready, "run", [&](const place& run) { check_program(run, problems); });
}

}  // namespace penstock::config
