// penstock: the operator's client, made of the same REST calls that anybody can make, and an offline checker
// of definitions. One thread, no state; every command ends with one of the exit codes listed in --help.
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "daemon/cli_commands.hpp"
#include "daemon/cli_test.hpp"
#include "daemon/cli_tokens.hpp"

namespace penstock::cli {
namespace {

constexpr const char* about = "Operates a Penstock daemon, and checks and tests definitions without one.";
constexpr const char* footer =
    "Environment:\n"
    "  PENSTOCK_URL     where the daemon is (default http://127.0.0.1:8420): http://, https:// or unix:/PATH\n"
    "  PENSTOCK_CACERT  authorities that its certificate may be of, in PEM; default: the system's\n"
    "  PENSTOCK_CERT, PENSTOCK_KEY  certificate and key to show a daemon that asks for one\n"
    "  PENSTOCK_TOKEN   the token to send, where one is asked for; --token-file goes first\n"
    "\n"
    "Exit codes:\n"
    "  0  done\n"
    "  1  done, and the answer is no: the run did not succeed, the file is not valid, a test failed\n"
    "  2  wrong usage, or a file cannot be read (or tested, because it is not valid)\n"
    "  3  the daemon cannot be reached\n"
    "  4  the daemon refused; it says why\n";

// Everything that can stand on the command line; what the chosen command needs is taken from here.
struct arguments {
  bool json = false;
  std::string url;
  certificates tls;
  std::vector<std::string> files;
  bool dry_run = false;
  test_options test;
  trigger_options trigger;
  runs_options runs;
  backfill_options backfill;
  std::string run, task;
  bool from_start = false, wait = false;
  bool follow = false;
  std::string topic, file = "-";
  std::string pipeline;
  int limit = 20;
  std::vector<std::string> ids;
  bool all = false;
  token_options token;
  audit_options audit;
  std::string token_file;
  std::function<int(const surroundings&)> chosen;
};

// A command that needs the daemon: remembered, and run once the whole line is parsed.
void runs_as(CLI::App* command, arguments& given, std::function<int(const surroundings&)> action) {
  command->callback([&given, action = std::move(action)] { given.chosen = action; });
}

void add_definition_commands(CLI::App& app, arguments& given) {
  CLI::App* validate_command = app.add_subcommand("validate", "Check definition files, offline");
  validate_command->add_option("FILE", given.files, "YAML or JSON; - is stdin")->required();
  runs_as(validate_command, given,
          [&given](const surroundings& with) { return validate(given.files, with.out, with.err, with.json); });

  CLI::App* test_command = app.add_subcommand("test", "Run the tests of definition files, offline");
  test_command->add_option("FILE", given.test.files, "YAML or JSON, or a folder of such; - is stdin")->required();
  test_command->add_option("-k,--name", given.test.names, "Only tests whose name holds this; repeatable")
      ->allow_extra_args(false)
      ->take_all();
  runs_as(test_command, given, [&given](const surroundings& with) {
    given.test.json = with.json;
    return test(given.test, with.out);
  });

  CLI::App* apply_command = app.add_subcommand("apply", "Register or replace the pipelines of these files");
  apply_command->add_option("FILE", given.files, "YAML or JSON")->required();
  apply_command->add_flag("--dry-run", given.dry_run, "Say what would change; store nothing");
  runs_as(apply_command, given,
          [&given](const surroundings& with) { return apply(with, given.files, given.dry_run); });
}

void add_run_commands(CLI::App& app, arguments& given) {
  CLI::App* trigger_command = app.add_subcommand("trigger", "Start a run of a job");
  trigger_command->add_option("PIPELINE", given.trigger.pipeline)->required();
  trigger_command->add_option("JOB", given.trigger.job)->required();
  trigger_command
      ->add_option("-p,--param", given.trigger.params,
                   "NAME=VALUE, repeatable; a VALUE that is JSON is sent as JSON")
      ->take_all();
  trigger_command->add_option("--events", given.trigger.events, "NDJSON or a JSON array; - is stdin");
  trigger_command->add_option("--idempotency-key", given.trigger.idempotency_key, "Same key, same run");
  trigger_command->add_flag("-w,--wait", given.trigger.wait,
                            "Wait for its end; exit code 1 unless it succeeded");
  runs_as(trigger_command, given,
          [&given](const surroundings& with) { return trigger(with, given.trigger); });

  CLI::App* runs_command = app.add_subcommand("runs", "List runs, newest first");
  runs_command->add_option("--pipeline", given.runs.pipeline);
  runs_command->add_option("--job", given.runs.job);
  runs_command->add_option("--state", given.runs.state,
                           "queued running retrying succeeded failed cancelled timed_out skipped");
  runs_command->add_option("--limit", given.runs.limit)->capture_default_str()->check(CLI::Range(1, 1000));
  CLI::App* show_command = runs_command->add_subcommand("show", "One run with its tasks");
  show_command->add_option("RUN", given.run)->required();
  runs_as(runs_command, given, [&given, show_command](const surroundings& with) {
    return show_command->parsed() ? show_one_run(with, given.run) : runs(with, given.runs);
  });

  CLI::App* cancel_command = app.add_subcommand("cancel", "End a run: TERM, its grace, KILL");
  cancel_command->add_option("RUN", given.run)->required();
  runs_as(cancel_command, given, [&given](const surroundings& with) { return cancel(with, given.run); });

  CLI::App* retry_command = app.add_subcommand("retry", "A new run with the same input; what succeeded is kept");
  retry_command->add_option("RUN", given.run)->required();
  retry_command->add_flag("--from-start", given.from_start, "Do everything again");
  retry_command->add_flag("-w,--wait", given.wait, "Wait for its end; exit code 1 unless it succeeded");
  runs_as(retry_command, given,
          [&given](const surroundings& with) { return retry(with, given.run, given.from_start, given.wait); });

  CLI::App* backfill_command = app.add_subcommand("backfill", "One run for each scheduled time that has none");
  backfill_command->add_option("PIPELINE", given.backfill.pipeline)->required();
  backfill_command->add_option("JOB", given.backfill.job)->required();
  backfill_command->add_option("--from", given.backfill.from, "First time, RFC 3339")->required();
  backfill_command->add_option("--to", given.backfill.to, "Before this time")->required();
  backfill_command->add_option("-p,--param", given.backfill.params, "NAME=VALUE, repeatable")->take_all();
  backfill_command->add_flag("--again", given.backfill.again, "Also times that have a run already");
  backfill_command->add_flag("--dry-run", given.backfill.dry_run, "Only say how many");
  runs_as(backfill_command, given, [&given](const surroundings& with) { return backfill(with, given.backfill); });

  CLI::App* logs_command = app.add_subcommand("logs", "What the tasks of a run printed");
  logs_command->add_option("RUN", given.run)->required();
  logs_command->add_option("--task", given.task, "Only this task");
  logs_command->add_flag("-f,--follow", given.follow, "Go on until the run ends");
  runs_as(logs_command, given,
          [&given](const surroundings& with) { return logs(with, given.run, given.task, given.follow); });
}

void add_event_commands(CLI::App& app, arguments& given) {
  CLI::App* topics_command =
      app.add_subcommand("topics", "Depth, consumers and lag of all topics, or of one");
  topics_command->add_option("NAME", given.topic);
  runs_as(topics_command, given, [&given](const surroundings& with) { return topics(with, given.topic); });

  CLI::App* publish_command = app.add_subcommand("publish", "Post events to a topic; done means durable");
  publish_command->add_option("TOPIC", given.topic)->required();
  publish_command->add_option("FILE", given.file, "NDJSON or a JSON array; - is stdin")
      ->capture_default_str();
  runs_as(publish_command, given,
          [&given](const surroundings& with) { return publish(with, given.topic, given.file); });
}

void add_settle_command(CLI::App* parent, arguments& given, settle how, const char* name, const char* doc) {
  CLI::App* command = parent->add_subcommand(name, doc);
  CLI::Option* ids = command->add_option("ID", given.ids, "Which");
  CLI::Option* all = command->add_flag("--all", given.all, "All of them")->excludes(ids);
  command->add_option("--pipeline", given.pipeline, "With --all: only this pipeline's")->needs(all);
  runs_as(command, given, [&given, how](const surroundings& with) {
    if (given.ids.empty() && !given.all) throw usage_error("name the dead letters, or say --all");
    return settle_dead_letters(with, how, given.ids, given.pipeline);
  });
}

void add_dead_letter_commands(CLI::App& app, arguments& given) {
  CLI::App* command = app.add_subcommand("dead-letters", "What could not be processed, and why");
  command->require_subcommand(1);
  CLI::App* list_command = command->add_subcommand("list", "Oldest first");
  list_command->add_option("--pipeline", given.pipeline);
  list_command->add_option("--limit", given.limit)->capture_default_str()->check(CLI::Range(1, 1000));
  runs_as(list_command, given,
          [&given](const surroundings& with) { return dead_letters(with, given.pipeline, given.limit); });
  add_settle_command(command, given, settle::replay, "replay", "Process them again");
  add_settle_command(command, given, settle::discard, "discard", "Drop them");
}

void add_token_commands(CLI::App& app, arguments& given) {
  CLI::App* command = app.add_subcommand("token", "Who may use the daemon: tokens with roles");
  command->require_subcommand(1);
  const auto without_daemon = [&given](CLI::App* to) {
    to->add_option("--data", given.token.data, "Work in this data folder, without a daemon: for the first token");
  };
  CLI::App* create_command = command->add_subcommand("create", "Make a token and print it, once");
  create_command->add_option("--name", given.token.name, "Who or what it is for")->required();
  create_command->add_option("--role", given.token.roles, "read, ingest, operate or admin; repeatable")->required()->allow_extra_args(false)->take_all();
  create_command->add_option("--pipeline", given.token.pipelines, "Only this pipeline; repeatable")->allow_extra_args(false)->take_all();
  create_command->add_option("--expires-in", given.token.expires_in, "For so long, e.g. 90d");
  create_command->add_option("--rate", given.token.rate, "Requests per second")->check(CLI::Range(0.001, 1e6));
  create_command->add_option("--burst", given.token.burst, "Requests at once, with --rate")->check(CLI::Range(1, 1'000'000));
  without_daemon(create_command);
  runs_as(create_command, given, [&given](const surroundings& with) { return create_token(with, given.token); });

  CLI::App* list_command = command->add_subcommand("list", "All tokens, without their secrets");
  without_daemon(list_command);
  runs_as(list_command, given, [&given](const surroundings& with) { return list_tokens(with, given.token); });

  CLI::App* revoke_command = command->add_subcommand("revoke", "End a token, at once");
  revoke_command->add_option("TOKEN", given.token.id, "Its id: what stands between pst_ and the next _")->required();
  without_daemon(revoke_command);
  runs_as(revoke_command, given, [&given](const surroundings& with) { return revoke_token(with, given.token); });

  CLI::App* show_command = command->add_subcommand("show", "Who you are to the daemon");
  runs_as(show_command, given, [](const surroundings& with) { return show_caller(with); });

  CLI::App* audit_command = app.add_subcommand("audit", "Who changed what, and who was refused, newest first");
  audit_command->add_option("--token", given.audit.token, "Only of this token's id");
  audit_command->add_option("--pipeline", given.audit.pipeline);
  audit_command->add_option("--outcome", given.audit.outcome, "done, failed or refused");
  audit_command->add_option("--since", given.audit.since, "RFC 3339 time");
  audit_command->add_option("--limit", given.audit.limit)->capture_default_str()->check(CLI::Range(1, 1000));
  runs_as(audit_command, given, [&given](const surroundings& with) { return audit(with, given.audit); });
}

int run(int argc, char** argv) {
  arguments given;
  const char* url = std::getenv("PENSTOCK_URL");  // NOLINT(concurrency-mt-unsafe): one thread
  given.url = url != nullptr && *url != '\0' ? url : "http://127.0.0.1:8420";

  CLI::App app(about, "penstock");
  app.footer(footer);
  app.set_version_flag("--version", "penstock " PENSTOCK_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // --json and --url may follow the command
  app.add_flag("--json", given.json, "Print the REST documents as they are");
  app.add_option("--url", given.url, "Where the daemon is")->capture_default_str();
  app.add_option("--cacert", given.tls.authorities, "Authorities of the daemon's certificate")->envname("PENSTOCK_CACERT");
  app.add_option("--cert", given.tls.own, "Certificate to show the daemon")->envname("PENSTOCK_CERT");
  app.add_option("--key", given.tls.own_key, "Its key")->envname("PENSTOCK_KEY");
  add_definition_commands(app, given);
  add_run_commands(app, given);
  add_event_commands(app, given);
  app.add_option("--token-file", given.token_file, "File with the token to send; - is stdin");
  add_dead_letter_commands(app, given);
  add_token_commands(app, given);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong) == 0 ? exit_ok : exit_usage;
  }

  client daemon(given.url, given.tls);
  try {
    daemon.send_token(token_from(given.token_file));
    return given.chosen({daemon, std::cout, std::cerr, given.json});
  } catch (const usage_error& wrong) {
    std::cerr << "penstock: " << wrong.what() << '\n';
    return exit_usage;
  } catch (const unreachable& wrong) {
    std::cerr << "penstock: " << wrong.what() << '\n';
    return exit_unreachable;
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
