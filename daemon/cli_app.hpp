// The command line of the client as a tree: what is parsed, what --help and the manual page show and what shells complete.
// Main thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "daemon/cli_commands.hpp"
#include "daemon/cli_test.hpp"
#include "daemon/cli_tokens.hpp"

namespace penstock::cli {

// Everything that can stand on the command line; what the chosen command needs is taken from here.
struct arguments {
  bool json = false;
  std::string url, timeout;
  certificates tls;
  std::string token_file;
  std::vector<std::string> files;
  apply_options apply;
  bool dry_run = false;
  int firings = 3;
  test_options test;
  trigger_options trigger;
  runs_options runs;
  backfill_options backfill;
  std::string run, task;
  bool from_start = false, wait = false;
  bool follow = false;
  std::string topic, file = "-";
  std::string pipeline, format;
  int number = 0;
  int limit = 20;
  std::string cursor;
  bool yes = false;
  settle_options settle;
  flow_options flow;
  tap_options tap;
  changes_options changes;
  events_options events;
  status_options status;
  backup_options backup;
  token_options token;
  audit_options audit;
  std::string shell;
  std::function<int(const surroundings&)> chosen;
};

// What options take that are none of CLI11's choices: shells complete them.
extern const std::vector<std::string> run_states, roles, outcomes;

// Fills in the app, whose commands set `given` and its `chosen`. Both outlive its use.
void build_app(CLI::App& app, arguments& given);

// For each shell a script that asks `penstock __complete` what could come next. Throws usage_error for another one.
std::string completion_script(const std::string& shell);

// What could stand in the place of the last word, one a line, with a description behind a tab; ":files" and ":folders" ask
// the shell for names of its own. `words` are those behind the program's name. Says nothing when the daemon does not answer
// within a second.
void complete(const std::vector<std::string>& words, std::ostream& out);

}  // namespace penstock::cli
