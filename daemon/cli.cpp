// penstock: the operator's client, made of the same REST calls that anybody can make, and an offline checker
// of definitions. One thread, no state; every command ends with one of the exit codes listed in --help.
#include <exception>
#include <iostream>
#include <string>
#include <string_view>

#include "daemon/cli_app.hpp"

namespace penstock::cli {
namespace {

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
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong) == 0 ? exit_ok : exit_usage;
  }

  client daemon(given.url, given.tls);
  client::catch_interrupts();
  try {
    daemon.send_token(token_from(given.token_file));
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
    return penstock::cli::run(argc, argv);
  } catch (const std::exception& broken) {
    std::cerr << "penstock: " << broken.what() << '\n';
    return penstock::cli::exit_refused;
  }
}
