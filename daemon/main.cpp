// penstockd: reads flags and settings, then runs the application until it is told to stop.
#include <signal.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>

#include "config/definition.hpp"
#include "daemon/application.hpp"
#include "daemon/logging.hpp"
#include "daemon/reference.hpp"
#include "daemon/man_page.hpp"
#include "daemon/settings.hpp"
#include "runtime/process.hpp"
#include "runtime/registry.hpp"

namespace {

using namespace penstock;

struct flags {
  std::string config, data, pipelines;
  std::vector<std::string> listen;
};

// The settings file with the flags on top; prints what is wrong and returns nothing.
std::optional<daemon::settings> read_settings(const flags& given) {
  std::string text;
  if (!given.config.empty()) {
    std::error_code unknown;
    const bool folder = std::filesystem::is_directory(given.config, unknown);
    std::ifstream in(given.config, std::ios::binary);
    if (folder || !in) {
      std::cerr << "penstockd: the settings file " << given.config << (folder ? " is a folder" : " cannot be read") << '\n';
      return std::nullopt;
    }
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  auto settings = daemon::parse_settings(text);
  if (!settings) {
    const error e = settings.error();
    if (e.problems.empty()) std::cerr << "penstockd: " << e.detail << "\n";
    for (const auto& p : e.problems) std::cerr << config::describe(p, given.config) << "\n";
    return std::nullopt;
  }
  if (!given.data.empty()) settings->data = given.data;
  if (!given.listen.empty()) settings->listen = given.listen;
  if (!given.pipelines.empty()) settings->pipelines = given.pipelines;
  settings->inherited = daemon::take_inherited_sockets();
  if (!settings->inherited.empty()) settings->listen.clear();
  if (const auto ok = daemon::check(*settings); !ok) {
    std::cerr << "penstockd: " << ok.error().detail << "\n";
    return std::nullopt;
  }
  return *settings;
}

std::string manual(const CLI::App& app) {
  man_section settings{"SETTINGS", "The file that --config names is YAML; all of its keys may be left out."};
  for (const config::field& f : daemon::settings_fields().children) {
    settings.entries.emplace_back(f.name, f.doc + (f.fallback.empty() ? "" : " Default: " + f.fallback + "."));
  }
  const man_section signals{"SIGNALS", "",
                            {{"SIGTERM, SIGINT", "Stop: flows drain, runs get their time. A second one ends the process at once."},
                             {"SIGHUP", "Load the folder of definitions and the files of the TLS certificate again. Settings are read at a start only."}}};
  return man_page(app, {.section = 8,
                        .tagline = "run pipelines: live flows, batch jobs, REST",
                        .more = {std::move(settings), signals},
                        .see_also = {"penstock(1)", "systemd.service(5)"}});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Penstock: keeps real-time flows live, starts batch jobs when their input arrives, shows it all over REST."};
  app.name("penstockd");
  app.set_version_flag("--version", "penstockd " PENSTOCK_VERSION);
  flags given;
  app.add_option("--config", given.config, "Settings file (YAML)");
  app.add_option("--data", given.data, "Data folder (default /var/lib/penstock)");
  app.add_option("--listen", given.listen,
                 "HOST:PORT, https://HOST:PORT or unix:/PATH of the REST interface (default 127.0.0.1:8420); repeatable")
      ->allow_extra_args(false);
  app.add_option("--pipelines", given.pipelines, "Folder of pipeline definitions: loaded at start, as they are saved, and on SIGHUP");
  bool reference = false;
  app.add_flag("--reference", reference, "Print the reference of definitions, components and settings (Markdown), and end");
  app.footer("Exit codes:\n"
             "  0  stopped as asked\n"
             "  1  could not start, or broke\n"
             "  2  wrong usage\n");
  bool man = false;
  app.add_flag("--man", man, "Print the manual page, for man -l");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  }
  if (reference) {
    std::cout << daemon::reference_text(runtime::make_registry().catalog());
    return 0;
  }
  if (man) {
    std::cout << manual(app);
    return 0;
  }
  std::optional<daemon::settings> settings;
  try {
    settings = read_settings(given);
  } catch (const std::exception& e) {
    std::cerr << "penstockd: " << e.what() << "\n";
  }
  if (!settings) return 2;

  daemon::set_up_logging(settings->log_level, settings->log_format);
  ::signal(SIGPIPE, SIG_IGN);
  runtime::adopt_orphans();  // what a task's programs leave behind comes to us, not to init
  try {
    daemon::application application(*settings);
    return application.run();
  } catch (const std::exception& e) {
    spdlog::critical("{}", e.what());
    return 1;
  }
}
