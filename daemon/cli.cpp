// penstock: the operator's client, made of the same REST calls that anybody can make, and an offline checker
// of definitions. One thread, no state; every command ends with one of the exit codes listed in --help.
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/in_quotes.hpp"
#include "config/time.hpp"
#include "daemon/cli_app.hpp"
#include "daemon/cli_ask.hpp"

namespace penstock::cli {
namespace {

// A word that stands where a command belongs and is none; empty: there is no such word.
std::string unknown_command(const CLI::App& app, int argc, char** argv) {
  const CLI::App* at = &app;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.starts_with('-')) return {};  // what follows may be its value
    std::vector<std::string> known;
    const CLI::App* next = nullptr;
    for (const CLI::App* command : at->get_subcommands([](const CLI::App*) { return true; })) {
      known.push_back(command->get_name());
      if (command->get_name() == word) next = command;
    }
    if (known.empty()) return {};
    if (next == nullptr) return "there is no command " + config::in_quotes(word) + "; " + config::suggestion(word, known);
    at = next;
  }
  return {};
}

std::chrono::milliseconds patience_from(const std::string& text) {
  const auto length = parse_duration(text);
  if (!length || *length < std::chrono::milliseconds(1) || *length > std::chrono::hours(24)) {
    throw usage_error("--timeout " + text + ": expected a duration from 1ms to 24h, such as 90s");
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(*length);
}

int run(int argc, char** argv) {
  // What shells ask; it stands in no help.
  if (argc > 1 && std::string_view(argv[1]) == "__complete") {
    complete({argv + 2, argv + argc}, std::cout);
    return exit_ok;
  }
  arguments given;
  CLI::App app;
  build_app(app, given);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& wrong) {
    const std::string unknown = unknown_command(app, argc, argv);
    if (unknown.empty()) return app.exit(wrong) == 0 ? exit_ok : exit_usage;
    std::cerr << "penstock: " << unknown << '\n';
    return exit_usage;
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong) == 0 ? exit_ok : exit_usage;
  }

  client::catch_interrupts();
  try {
    client daemon(given.url, given.tls);
    const auto warn = [](const std::string& what) { std::cerr << "penstock: " << what << '\n'; };
    daemon.send_token(token_from(given.token_file, warn));
    if (!given.timeout.empty()) {
      const auto patience = patience_from(given.timeout);
      daemon.set_patience(patience, patience);
    }
    bool told = false;
    daemon.on_wait([&](std::chrono::seconds pause, const answer& why) {
      if (std::exchange(told, true)) return;
      std::cerr << "penstock: waiting " << pause.count() << " s, as the daemon asks: " << reason_of(why) << '\n';
    });
    return given.chosen({daemon, std::cout, std::cerr, given.json});
  } catch (const usage_error& wrong) {
    std::cerr << "penstock: " << wrong.what() << '\n';
    return exit_usage;
  } catch (const unreachable& wrong) {
    std::cerr << "penstock: " << wrong.what() << '\n';
    return exit_unreachable;
  } catch (const interruption&) {
    std::cout.flush();
    return exit_interrupted;
  }
}

}  // namespace
}  // namespace penstock::cli

int main(int argc, char** argv) {
  try {
    std::ios::sync_with_stdio(false);
    const int code = penstock::cli::run(argc, argv);
    if (std::cout.flush()) return code;
    std::cerr << "penstock: its output cannot be written" << (errno ? std::string(": ") + std::strerror(errno) : "") << '\n';
    return penstock::cli::exit_usage;
  } catch (const nlohmann::json::type_error&) {
    std::cerr << "penstock: what is given is not UTF-8\n";
    return penstock::cli::exit_usage;
  } catch (const std::filesystem::filesystem_error& broken) {
    std::cerr << "penstock: " << broken.path1().string() << ": " << broken.code().message() << '\n';
    return penstock::cli::exit_usage;
  } catch (const std::exception& broken) {
    std::cerr << "penstock: " << broken.what() << '\n';
    return penstock::cli::exit_refused;
  }
}
