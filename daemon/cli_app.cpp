// The tree of commands. A positional is named for what it is (PIPELINE, JOB, FLOW, RUN, TOPIC, FILE ...): shells complete
// it by that name.
#include "daemon/cli_app.hpp"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <utility>

#include "config/in_quotes.hpp"
#include "daemon/man_page.hpp"

namespace penstock::cli {

const std::vector<std::string> run_states{"queued", "running", "retrying", "succeeded", "failed", "cancelled", "timed_out", "skipped"};
const std::vector<std::string> roles{"read", "ingest", "operate", "admin"};
const std::vector<std::string> outcomes{"done", "failed", "refused"};

namespace {

constexpr const char* about = "Operates a Penstock daemon, and checks and tests definitions without one.";
constexpr const char* footer =
    "Environment:\n"
    "  PENSTOCK_URL     where the daemon is (default http://127.0.0.1:8420): http://, https:// or unix:/PATH\n"
    "  PENSTOCK_TOKEN   the token to send, where one is asked for; --token-file goes first\n"
    "  PENSTOCK_CACERT  authorities that its certificate may be of, in PEM; default: the system's\n"
    "  PENSTOCK_CERT, PENSTOCK_KEY  certificate and key to show a daemon that asks for one\n"
    "\n"
    "Exit codes:\n"
    "  0    done\n"
    "  1    done, and the answer is no: the run did not succeed, the file is not valid (validate), a test failed, something\n"
    "       would change (plan), something needs looking after (status), what a stream showed has been removed\n"
    "  2    wrong usage (a word, number or address that cannot be), or a file or folder that cannot be used, or a file that\n"
    "       cannot be tested because it is not valid\n"
    "  3    the daemon cannot be reached, does not answer in time, or stopped in the middle\n"
    "  4    refused: no such pipeline, job, run or token, a definition to apply or plan that is not valid, or the daemon will\n"
    "       not; it says why\n"
    "  130  interrupted with Ctrl-C; what the daemon was asked to do goes on, but for a backup, which is cancelled\n";

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

// Words with commas between them, each of the known ones.
CLI::Validator known_words(const std::string& option, const std::vector<std::string>& known) {
  return CLI::Validator(
      [option, known](std::string& text) {
        std::istringstream words(text);
        for (std::string word; std::getline(words, word, ',');) {
          if (std::find(known.begin(), known.end(), word) == known.end()) return config::in_quotes(word) + " is not known; " + config::suggestion(word, known);
        }
        return std::string();
      },
      "");
}

// An empty word is a slip (a shell variable that is not set), never a wish: as a filter it would mean "all".
void refuse_empty_words(CLI::App& app) {
  const CLI::Validator not_empty([](const std::string& text) { return text.empty() ? std::string("it is empty") : std::string(); }, "");
  for (CLI::Option* option : app.get_options())
    if (option->get_items_expected_max() > 0) option->check(not_empty);
  for (CLI::App* command : app.get_subcommands({})) refuse_empty_words(*command);
}

// A command that needs the daemon: remembered, and run once the whole line is parsed.
void runs_as(CLI::App* command, arguments& given, std::function<int(const surroundings&)> action) {
  command->callback([&given, action = std::move(action)] { given.chosen = action; });
}

void add_definition_commands(CLI::App& app, arguments& given) {
  CLI::App* validate_command = app.add_subcommand("validate", "Check definition files, offline");
  validate_command->add_option("FILE", given.files, "YAML or JSON, or a folder of such; - is stdin")->required();
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

  CLI::App* schema_command = app.add_subcommand("schema", "JSON Schema of definitions for editors, offline");
  runs_as(schema_command, given, [](const surroundings& with) { return schema(with.out); });

  CLI::App* plan_command = app.add_subcommand("plan", "Say what applying these files would do: 0 nothing, 1 something");
  plan_command->add_option("FILE", given.files, "YAML or JSON, or a folder of such; - is stdin")->required();
  plan_command->add_option("--firings", given.firings, "How many next firings of each schedule to show")
      ->capture_default_str()
      ->check(CLI::Range(0, 20));
  runs_as(plan_command, given, [&given](const surroundings& with) { return plan(with, given.files, given.firings); });

  CLI::App* apply_command = app.add_subcommand("apply", "Register or replace the pipelines of these files");
  apply_command->add_option("FILE", given.apply.files, "YAML or JSON, or a folder of such; - is stdin")->required();
  apply_command->add_flag("--dry-run", given.apply.dry_run, "Say what would change; store nothing (plan says more)");
  apply_command->add_flag("-w,--wait", given.apply.wait, "Wait until the flows are up; exit code 1 when one is not");
  runs_as(apply_command, given, [&given](const surroundings& with) { return apply(with, given.apply); });
}

void add_get_commands(CLI::App& app, arguments& given) {
  CLI::App* get_command = app.add_subcommand("get", "Show pipelines, revisions or events");
  get_command->require_subcommand(1);
  CLI::App* all_command = get_command->add_subcommand("pipelines", "All pipelines, and broken files of definitions");
  runs_as(all_command, given, [](const surroundings& with) { return get_pipelines(with); });

  CLI::App* one_command = get_command->add_subcommand("pipeline", "One pipeline with its flows and jobs");
  one_command->add_option("PIPELINE", given.pipeline)->required();
  one_command->add_option("-o,--output", given.format, "yaml: the definition as it was written; json: the document")
      ->check(CLI::IsMember({"yaml", "json"}));
  runs_as(one_command, given, [&given](const surroundings& with) { return get_pipeline(with, given.pipeline, given.format); });

  CLI::App* revisions_command = get_command->add_subcommand("revisions", "The revisions of a pipeline, newest first, or the text of one");
  revisions_command->add_option("PIPELINE", given.pipeline)->required();
  revisions_command->add_option("NUMBER", given.number, "Show this revision as it was written")->check(CLI::Range(1, 1'000'000'000));
  runs_as(revisions_command, given, [&given](const surroundings& with) { return get_revisions(with, given.pipeline, given.number); });

  CLI::App* events_command = get_command->add_subcommand("events", "Events of a topic, one JSON object a line; moves no cursor");
  events_command->add_option("TOPIC", given.events.topic)->required();
  events_command->add_option("--after", given.events.after, "Only those behind this offset; default: from the first, with --follow from now on");
  CLI::Option* limit = events_command->add_option("--limit", given.events.limit, "At most so many; default: 100, with --follow no end");
  limit->check(CLI::Range(1, 1'000'000'000));
  events_command->add_flag("-f,--follow", given.events.follow, "Go on as events come");
  runs_as(events_command, given, [&given](const surroundings& with) { return get_events(with, given.events); });
}

void add_pipeline_commands(CLI::App& app, arguments& given) {
  CLI::App* delete_command = app.add_subcommand("delete", "Stop, drain and remove a pipeline; asks before");
  delete_command->add_option("PIPELINE", given.pipeline)->required();
  delete_command->add_flag("-y,--yes", given.yes, "Do not ask");
  runs_as(delete_command, given, [&given](const surroundings& with) { return delete_pipeline(with, given.pipeline, given.yes); });

  CLI::App* pause_command = app.add_subcommand("pause", "Stop the flows and triggers of a pipeline until it is resumed");
  pause_command->add_option("PIPELINE", given.pipeline)->required();
  runs_as(pause_command, given, [&given](const surroundings& with) { return pause_or_resume(with, given.pipeline, true); });
  CLI::App* resume_command = app.add_subcommand("resume", "Let a paused pipeline go on");
  resume_command->add_option("PIPELINE", given.pipeline)->required();
  runs_as(resume_command, given, [&given](const surroundings& with) { return pause_or_resume(with, given.pipeline, false); });

  CLI::App* rollback_command = app.add_subcommand("rollback", "Make an earlier revision the next one");
  rollback_command->add_option("PIPELINE", given.pipeline)->required();
  rollback_command->add_option("--revision", given.number, "Which; default: the one before the current one")->check(CLI::Range(1, 1'000'000'000));
  rollback_command->add_flag("--dry-run", given.dry_run, "Say what would change; store nothing");
  runs_as(rollback_command, given,
          [&given](const surroundings& with) { return rollback(with, given.pipeline, given.number, given.dry_run); });
}

void add_flow_commands(CLI::App& app, arguments& given) {
  CLI::App* flows_command = app.add_subcommand("flows", "All flows, or those of one pipeline");
  flows_command->add_option("PIPELINE", given.pipeline);
  runs_as(flows_command, given, [&given](const surroundings& with) { return flows(with, given.pipeline); });

  CLI::App* flow_command = app.add_subcommand("flow", "Show, start, stop or restart one flow");
  flow_command->require_subcommand(1);
  const auto add = [&](const char* verb, const char* doc) {
    CLI::App* command = flow_command->add_subcommand(verb, doc);
    command->add_option("PIPELINE", given.flow.pipeline)->required();
    command->add_option("FLOW", given.flow.flow)->required();
    runs_as(command, given, [&given, verb](const surroundings& with) {
      given.flow.verb = verb;
      return flow_verb(with, given.flow);
    });
    return command;
  };
  add("show", "The flow and its steps");
  add("start", "Start a flow that was stopped");
  add("stop", "Drain and stop a flow until it is started")
      ->add_flag("--emit", given.flow.emit, "What its steps hold goes on now, instead of being kept");
  add("restart", "Drain, stop and start a flow");

  CLI::App* tap_command = app.add_subcommand("tap", "Samples of the events that pass a point of a flow, one a line");
  tap_command->add_option("PIPELINE", given.tap.pipeline)->required();
  tap_command->add_option("FLOW", given.tap.flow)->required();
  tap_command->add_option("--after", given.tap.after, "Behind which step: its name, or from; default: before the sink");
  tap_command->add_option("--where", given.tap.where, "Only events for which this expression is true");
  tap_command->add_option("--rate", given.tap.rate, "At most so many a second")->check(CLI::Range(1, 10'000));
  tap_command->add_option("--limit", given.tap.limit, "End after so many")->check(CLI::Range(1, 1'000'000'000));
  runs_as(tap_command, given, [&given](const surroundings& with) { return tap(with, given.tap); });
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
  runs_command->add_option("--pipeline", given.runs.pipeline, "Only runs of this pipeline");
  runs_command->add_option("--job", given.runs.job, "Only runs of this job");
  runs_command->add_option("--state", given.runs.state, "One or more, with commas: " + joined(run_states, " "))->check(known_words("--state", run_states));
  runs_command->add_option("--since", given.runs.since, "Made at this time or later, RFC 3339");
  runs_command->add_option("--until", given.runs.until, "Made before this time");
  runs_command->add_option("--limit", given.runs.limit, "At most so many")->capture_default_str()->check(CLI::Range(1, 1000));
  runs_command->add_option("--cursor", given.runs.cursor, "Go on where a list has ended, as it says itself");
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

  CLI::App* logs_command = app.add_subcommand("logs", "What the tasks of a run printed");
  logs_command->add_option("RUN", given.run)->required();
  logs_command->add_option("--task", given.task, "Only this task");
  logs_command->add_flag("-f,--follow", given.follow, "Go on until the run ends");
  runs_as(logs_command, given,
          [&given](const surroundings& with) { return logs(with, given.run, given.task, given.follow); });
}

void add_backfill_command(CLI::App& app, arguments& given) {
  CLI::App* backfill_command = app.add_subcommand("backfill", "One run for each scheduled time that has none");
  backfill_command->add_option("PIPELINE", given.backfill.pipeline)->required();
  backfill_command->add_option("JOB", given.backfill.job)->required();
  backfill_command->add_option("--from", given.backfill.from, "First time, RFC 3339")->required();
  backfill_command->add_option("--to", given.backfill.to, "Before this time")->required();
  backfill_command->add_option("-p,--param", given.backfill.params, "NAME=VALUE, repeatable")->take_all();
  backfill_command->add_flag("--again", given.backfill.again, "Also times that have a run already");
  backfill_command->add_flag("--dry-run", given.backfill.dry_run, "Only say how many");
  backfill_command->add_flag("-w,--wait", given.backfill.wait, "Wait until all have ended; exit code 1 unless all succeeded");
  runs_as(backfill_command, given, [&given](const surroundings& with) { return backfill(with, given.backfill); });
}

void add_event_commands(CLI::App& app, arguments& given) {
  CLI::App* topics_command =
      app.add_subcommand("topics", "Depth, consumers and lag of all topics, or of one");
  topics_command->add_option("TOPIC", given.topic);
  runs_as(topics_command, given, [&given](const surroundings& with) { return topics(with, given.topic); });

  CLI::App* publish_command = app.add_subcommand("publish", "Post events to a topic; done means durable");
  publish_command->add_option("TOPIC", given.topic)->required();
  publish_command->add_option("FILE", given.file, "NDJSON or a JSON array; - is stdin")
      ->capture_default_str();
  runs_as(publish_command, given,
          [&given](const surroundings& with) { return publish(with, given.topic, given.file); });

  CLI::App* changes_command = app.add_subcommand("changes", "Each change of state of runs, flows and pipelines, as it happens");
  changes_command->add_option("--pipeline", given.changes.pipeline, "Only of this pipeline");
  changes_command->add_option("--kind", given.changes.kind, "Only of runs, flows or pipelines")->check(CLI::IsMember({"run", "flow", "pipeline"}));
  changes_command->add_option("--after", given.changes.after, "Begin behind the change of this id");
  changes_command->add_option("--limit", given.changes.limit, "End after so many")->check(CLI::Range(1, 1'000'000'000));
  runs_as(changes_command, given, [&given](const surroundings& with) { return changes(with, given.changes); });
}

void add_settle_command(CLI::App* parent, arguments& given, settle how, const char* name, const char* doc) {
  CLI::App* command = parent->add_subcommand(name, doc);
  CLI::Option* ids = command->add_option("ID", given.settle.ids, "Which");
  command->add_flag("--all", given.settle.all, "All of them")->excludes(ids);
  command->add_option("--pipeline", given.settle.pipeline, "All of this pipeline")->excludes(ids);
  runs_as(command, given, [&given, how](const surroundings& with) {
    if (given.settle.ids.empty() && !given.settle.all && given.settle.pipeline.empty()) {
      throw usage_error("name the dead letters, or say --pipeline PIPELINE or --all");
    }
    return settle_dead_letters(with, how, given.settle);
  });
}

void add_dead_letter_commands(CLI::App& app, arguments& given) {
  CLI::App* command = app.add_subcommand("dead-letters", "What could not be processed, and why");
  command->require_subcommand(1);
  CLI::App* list_command = command->add_subcommand("list", "Oldest first");
  list_command->add_option("--pipeline", given.pipeline, "Only of this pipeline");
  list_command->add_option("--limit", given.limit, "At most so many")->capture_default_str()->check(CLI::Range(1, 1000));
  list_command->add_option("--cursor", given.cursor, "Go on where a list has ended, as it says itself");
  runs_as(list_command, given,
          [&given](const surroundings& with) { return dead_letters(with, given.pipeline, given.limit, given.cursor); });
  add_settle_command(command, given, settle::replay, "replay", "Process them again");
  add_settle_command(command, given, settle::discard, "discard", "Drop them");
}

void add_operation_commands(CLI::App& app, arguments& given) {
  CLI::App* status_command = app.add_subcommand("status", "All that matters on one screen; exit code 1 when something needs looking after");
  status_command->add_flag("--watch", given.status.watch, "Look again and again, until Ctrl-C");
  status_command->add_option("--every", given.status.every, "Seconds between two looks")->capture_default_str()->check(CLI::Range(0.1, 3600.0));
  runs_as(status_command, given, [&given](const surroundings& with) { return status(with, given.status); });

  CLI::App* backup_command = app.add_subcommand("backup", "Copy the daemon's data folder while it works, as it is at one instant");
  backup_command->add_option("FOLDER", given.backup.to, "A new folder, on the daemon's machine")->required();
  backup_command->add_flag("--logs", given.backup.logs, "What tasks have printed, too");
  backup_command->add_flag("--no-wait", given.backup.no_wait, "Only begin it");
  runs_as(backup_command, given, [&given](const surroundings& with) { return backup(with, given.backup); });
}

void add_shell_commands(CLI::App& app, arguments& given) {
  CLI::App* completion_command = app.add_subcommand("completion", "A script that makes a shell complete commands and names");
  completion_command->add_option("SHELL", given.shell)->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  runs_as(completion_command, given, [&given](const surroundings& with) {
    with.out << completion_script(given.shell);
    return exit_ok;
  });
  CLI::App* man_command = app.add_subcommand("man", "The manual page, for man -l");
  runs_as(man_command, given, [&app](const surroundings& with) {
    with.out << man_page(app, {.section = 1,
                               .tagline = "operate a Penstock daemon",
                               .see_also = {"penstockd(8)", "curl(1)", "jq(1)"}});
    return exit_ok;
  });
}

void add_token_commands(CLI::App& app, arguments& given) {
  CLI::App* command = app.add_subcommand("token", "Who may use the daemon: tokens with roles");
  command->require_subcommand(1);
  const auto without_daemon = [&given](CLI::App* to) {
    to->add_option("--data", given.token.data, "Work in this data folder, without a daemon: for the first token");
  };
  CLI::App* create_command = command->add_subcommand("create", "Make a token and print it, once");
  create_command->add_option("--name", given.token.name, "Who or what it is for")->required();
  create_command->add_option("--role", given.token.roles, "read, ingest, operate or admin; repeatable")
      ->required()
      ->allow_extra_args(false)
      ->take_all()
      ->check(known_words("--role", roles));
  create_command->add_option("--pipeline", given.token.pipelines, "Only this pipeline; repeatable")->allow_extra_args(false)->take_all();
  create_command->add_option("--expires-in", given.token.expires_in, "For so long, e.g. 90d");
  CLI::Option* rate = create_command->add_option("--rate", given.token.rate, "Requests per second")->check(CLI::Range(0.001, 1e6));
  create_command->add_option("--burst", given.token.burst, "Requests at once, with --rate")->check(CLI::Range(1, 1'000'000))->needs(rate);
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
}

void add_audit_command(CLI::App& app, arguments& given) {
  CLI::App* audit_command = app.add_subcommand("audit", "Who changed what, and who was refused, newest first");
  audit_command->add_option("--token", given.audit.token, "Only of the token with this id");
  audit_command->add_option("--pipeline", given.audit.pipeline, "Only of this pipeline");
  audit_command->add_option("--outcome", given.audit.outcome, "done, failed or refused")->check(known_words("--outcome", outcomes));
  audit_command->add_option("--since", given.audit.since, "At this time or later, RFC 3339");
  audit_command->add_option("--until", given.audit.until, "Before this time");
  audit_command->add_option("--limit", given.audit.limit, "At most so many")->capture_default_str()->check(CLI::Range(1, 1000));
  audit_command->add_option("--cursor", given.audit.cursor, "Go on where a list has ended, as it says itself");
  runs_as(audit_command, given, [&given](const surroundings& with) { return audit(with, given.audit); });
}

}  // namespace

void build_app(CLI::App& app, arguments& given) {
  const char* url = std::getenv("PENSTOCK_URL");  // NOLINT(concurrency-mt-unsafe): one thread
  given.url = url != nullptr && *url != '\0' ? url : "http://127.0.0.1:8420";
  app.name("penstock");
  app.description(about);
  app.footer(footer);
  app.set_version_flag("--version", "penstock " PENSTOCK_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // --json and --url may follow the command
  app.add_flag("--json", given.json, "Print the REST documents as they are");
  app.add_option("--url", given.url, "Where the daemon is")->capture_default_str();
  app.add_option("--timeout", given.timeout, "How long nothing may come from the daemon, e.g. 10s; default: 1m for an answer, 45s for a stream that is followed");
  app.add_option("--token-file", given.token_file, "File with the token to send; - is stdin");
  app.add_option("--cacert", given.tls.authorities, "Authorities of the daemon's certificate")->envname("PENSTOCK_CACERT");
  app.add_option("--cert", given.tls.own, "Certificate to show the daemon")->envname("PENSTOCK_CERT");
  app.add_option("--key", given.tls.own_key, "Its key")->envname("PENSTOCK_KEY");
  add_definition_commands(app, given);
  add_get_commands(app, given);
  add_pipeline_commands(app, given);
  add_flow_commands(app, given);
  add_run_commands(app, given);
  add_backfill_command(app, given);
  add_event_commands(app, given);
  add_dead_letter_commands(app, given);
  add_operation_commands(app, given);
  add_token_commands(app, given);
  add_audit_command(app, given);
  add_shell_commands(app, given);
  refuse_empty_words(app);
}

}  // namespace penstock::cli
