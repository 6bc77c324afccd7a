#include "daemon/cli_commands.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>

#include "config/definition.hpp"
#include "config/node.hpp"
#include "daemon/cli_output.hpp"
#include "runtime/registry.hpp"

namespace penstock::cli {
namespace {

// Thrown by ask(): what the daemon refused, to be shown by refused().
struct refusal {
  answer said;
};

document parse_answer(const answer& said) {
  document body = document::parse(said.body, nullptr, false);
  if (body.is_discarded())
    throw std::runtime_error("the daemon's answer is not JSON: " + said.body.substr(0, 200));
  return body;
}

document ask(const surroundings& with, const request& what) {
  answer said = with.daemon.send(what);
  if (!said.ok()) throw refusal{std::move(said)};
  return said.body.empty() ? document::object() : parse_answer(said);
}

int refused(const surroundings& with, const answer& said, const std::string& file = {}) {
  if (with.json) {
    with.out << said.body << '\n';
  } else {
    show_problem(with.err, said, file);
  }
  return exit_refused;
}

// Runs a command's body; a refusal in it becomes its text and exit code.
template <class Body>
int guarded(const surroundings& with, Body body) {
  try {
    return body();
  } catch (const refusal& no) {
    return refused(with, no.said);
  }
}

void print_json(std::ostream& out, const document& body) { out << body.dump(2) << '\n'; }

std::string run_path(const std::string& id) { return "/v1/runs/" + encode(id); }

// "n=5" is a number, "n=five" a text: what is JSON is sent as JSON.
document parse_params(const std::vector<std::string>& pairs) {
  document params = document::object();
  for (const std::string& pair : pairs) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      throw usage_error("--param " + pair + ": expected NAME=VALUE");
    const std::string text = pair.substr(equals + 1);
    document value = document::parse(text, nullptr, false);
    params[pair.substr(0, equals)] = value.is_discarded() ? document(text) : std::move(value);
  }
  return params;
}

// A JSON array, or NDJSON.
document parse_events(const std::string& file) {
  const std::string text = read_file(file);
  document whole = document::parse(text, nullptr, false);
  if (whole.is_array()) return whole;
  document events = document::array();
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    document event = document::parse(line, nullptr, false);
    if (event.is_discarded()) throw usage_error(file + ":" + std::to_string(number) + ": not JSON");
    events.push_back(std::move(event));
  }
  return events;
}

bool is_final(const document& run) {
  const std::string state = word(run, "state");
  return state != "queued" && state != "running" && state != "retrying";
}

document wait_for_end(const surroundings& with, document run) {
  const std::string id = word(run, "id");
  while (!is_final(run)) run = ask(with, {.path = run_path(id) + "?wait=30s"});
  return run;
}

bool looks_like_array(const std::string& file, const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  return file.ends_with(".json") || (first != std::string::npos && text[first] == '[');
}

struct checked_file {
  std::string file;
  result<config::pipeline> outcome;
};

void print_checked(std::ostream& out, std::ostream& err, const checked_file& checked) {
  if (checked.outcome) {
    const config::pipeline& made = *checked.outcome;
    for (problem one : made.warnings) {
      one.detail = "warning: " + one.detail;
      err << config::describe(one, checked.file) << '\n';
    }
    out << checked.file << ": valid: pipeline " << made.name << " with " << made.topics.size() << " topics, "
        << made.flows.size() << " flows, " << made.jobs.size() << " jobs\n";
    return;
  }
  show_error(out, checked.outcome.error(), checked.file);
}

document checked_as_json(const checked_file& checked) {
  document entry = {{"file", checked.file}, {"valid", checked.outcome.has_value()}, {"errors", document::array()},
                    {"warnings", document::array()}};
  if (checked.outcome) {
    entry["warnings"] = as_json(checked.outcome->warnings);
    return entry;
  }
  entry["errors"] = as_json(checked.outcome.error());
  return entry;
}

// The pipeline's name as the file has it, for the URL; the daemon checks everything else. Without a name
// there is no URL to ask at, and the daemon's answer would be this one.
result<std::string> name_in(const std::string& text) {
  const result<config::document> read = config::read_document(text);
  if (!read) return read.error();
  const config::node* name = read->root.find("name");
  if (name == nullptr || name->text.empty()) {
    const problem missing{"", read->root.at.line, read->root.at.column, "the key 'name' is missing"};
    return error{.code = errc::invalid, .detail = missing.detail, .problems = {missing}};
  }
  return name->text;
}

int apply_one(const surroundings& with, const std::string& file, bool dry_run) {
  const std::string text = read_file(file);
  const result<std::string> name = name_in(text);
  if (!name) {
    for (const problem& one : name.error().problems) with.err << config::describe(one, file) << '\n';
    return exit_no;
  }
  const bool is_json = file.ends_with(".json");
  const answer said = with.daemon.send(
      {.method = "PUT",
       .path = "/v1/pipelines/" + encode(*name) + (dry_run ? "?dry_run=true" : ""),
       .body = text,
       .headers = {is_json ? "Content-Type: application/json" : "Content-Type: application/yaml"}});
  if (!said.ok()) return refused(with, said, file);
  if (with.json) {
    with.out << said.body << '\n';
  } else {
    show_applied(with.out, parse_answer(said), said.status == 201, dry_run);
  }
  return exit_ok;
}

// The body of a replay or discard: these, all of a pipeline, or all.
document selection(const std::vector<std::string>& ids, const std::string& pipeline) {
  if (!ids.empty()) return {{"ids", ids}};
  if (!pipeline.empty()) return {{"pipeline", pipeline}};
  return {{"all", true}};
}

}  // namespace

std::string read_file(const std::string& file) {
  if (file == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::error_code unknown;
  if (std::filesystem::is_directory(file, unknown)) throw usage_error("cannot read " + file + ": it is a folder; name its files");
  std::ifstream in(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in || in.bad()) throw usage_error("cannot read " + file);
  return text;
}

int validate(const std::vector<std::string>& files, std::ostream& out, std::ostream& err, bool json) {
  const runtime::registry components = runtime::make_registry();
  document list = document::array();
  bool all_valid = true;
  for (const std::string& file : files) {
    const std::string shown = file == "-" ? "stdin" : file;
    const checked_file checked{shown,
                               config::parse_pipeline(read_file(file), components.catalog(), {.file = shown})};
    all_valid = all_valid && checked.outcome.has_value();
    if (json) {
      list.push_back(checked_as_json(checked));
    } else {
      print_checked(out, err, checked);
    }
  }
  if (json) print_json(out, list);
  return all_valid ? exit_ok : exit_no;
}

int apply(const surroundings& with, const std::vector<std::string>& files, bool dry_run) {
  int worst = exit_ok;
  for (const std::string& file : files) worst = std::max(worst, apply_one(with, file, dry_run));
  return worst;
}

int trigger(const surroundings& with, const trigger_options& options) {
  document body = {{"params", parse_params(options.params)}};
  if (!options.events.empty()) body["events"] = parse_events(options.events);
  std::vector<std::string> headers = {"Content-Type: application/json"};
  if (!options.idempotency_key.empty()) headers.push_back("Idempotency-Key: " + options.idempotency_key);
  return guarded(with, [&] {
    document run = ask(with, {.method = "POST",
                              .path = "/v1/pipelines/" + encode(options.pipeline) + "/jobs/" +
                                      encode(options.job) + "/runs" + (options.wait ? "?wait=30s" : ""),
                              .body = body.dump(),
                              .headers = headers});
    if (options.wait) run = wait_for_end(with, std::move(run));
    if (with.json) {
      print_json(with.out, run);
    } else if (options.wait) {
      show_run(with.out, run);
    } else {
      with.out << word(run, "id") << '\n';
    }
    return options.wait && word(run, "state") != "succeeded" ? exit_no : exit_ok;
  });
}

int runs(const surroundings& with, const runs_options& options) {
  return guarded(with, [&] {
    const document list = ask(with, {.path = "/v1/runs" + query({{"pipeline", options.pipeline},
                                                                 {"job", options.job},
                                                                 {"state", options.state},
                                                                 {"limit", std::to_string(options.limit)}})});
    with.json ? print_json(with.out, list) : show_runs(with.out, list);
    return exit_ok;
  });
}

int show_one_run(const surroundings& with, const std::string& id) {
  return guarded(with, [&] {
    const document run = ask(with, {.path = run_path(id)});
    with.json ? print_json(with.out, run) : show_run(with.out, run);
    return exit_ok;
  });
}

int cancel(const surroundings& with, const std::string& id) {
  return guarded(with, [&] {
    const document run = ask(with, {.method = "POST", .path = run_path(id) + "/cancel"});
    if (with.json) {
      print_json(with.out, run);
    } else {
      with.out << "cancelling " << id << '\n';
    }
    return exit_ok;
  });
}

int retry(const surroundings& with, const std::string& id, bool from_start, bool wait) {
  return guarded(with, [&] {
    document run = ask(with, {.method = "POST", .path = run_path(id) + "/retry" + query({{"from", from_start ? "start" : ""}})});
    if (wait) run = wait_for_end(with, std::move(run));
    if (with.json) {
      print_json(with.out, run);
    } else if (wait) {
      show_run(with.out, run);
    } else {
      with.out << word(run, "id") << '\n';
    }
    return wait && word(run, "state") != "succeeded" ? exit_no : exit_ok;
  });
}

int backfill(const surroundings& with, const backfill_options& options) {
  document body = {{"from", options.from}, {"to", options.to}, {"again", options.again}};
  if (!options.params.empty()) body["params"] = parse_params(options.params);
  return guarded(with, [&] {
    const document said = ask(with, {.method = "POST",
                                     .path = "/v1/pipelines/" + encode(options.pipeline) + "/jobs/" + encode(options.job) +
                                             "/backfill" + (options.dry_run ? "?dry_run=true" : ""),
                                     .body = body.dump(),
                                     .headers = {"Content-Type: application/json"}});
    if (with.json) {
      print_json(with.out, said);
    } else {
      with.out << word(said, "made") << (options.dry_run ? " runs would be made, " : " runs made, ") << word(said, "existing")
               << " times have one already\n";
    }
    return exit_ok;
  });
}

int logs(const surroundings& with, const std::string& id, const std::string& task, bool follow) {
  const std::string path = run_path(id) + "/logs" + query({{"task", task}, {"follow", follow ? "true" : ""}});
  const answer said = with.daemon.stream({.path = path}, [&](std::string_view piece) {
    with.out << piece;
    with.out.flush();
  });
  return said.ok() ? static_cast<int>(exit_ok) : refused(with, said);
}

int topics(const surroundings& with, const std::string& name) {
  return guarded(with, [&] {
    const document body = ask(with, {.path = name.empty() ? "/v1/topics" : "/v1/topics/" + encode(name)});
    if (with.json) {
      print_json(with.out, body);
    } else if (name.empty()) {
      show_topics(with.out, body);
    } else {
      show_topic(with.out, body);
    }
    return exit_ok;
  });
}

int publish(const surroundings& with, const std::string& topic, const std::string& file) {
  const std::string text = read_file(file);
  const char* type =
      looks_like_array(file, text) ? "Content-Type: application/json" : "Content-Type: application/x-ndjson";
  return guarded(with, [&] {
    const document body = ask(with, {.method = "POST",
                                     .path = "/v1/topics/" + encode(topic) + "/events",
                                     .body = text,
                                     .headers = {type}});
    if (with.json) {
      print_json(with.out, body);
      return exit_ok;
    }
    with.out << topic << ": " << word(body, "accepted") << " accepted, " << word(body, "duplicates")
             << " duplicates";
    if (word(body, "accepted") != "0") {
      with.out << ", offsets " << word(body, "first_offset") << " to " << word(body, "last_offset");
    }
    with.out << '\n';
    return exit_ok;
  });
}

int dead_letters(const surroundings& with, const std::string& pipeline, int limit) {
  return guarded(with, [&] {
    const document list =
        ask(with,
            {.path = "/v1/dead-letters" + query({{"pipeline", pipeline}, {"limit", std::to_string(limit)}})});
    with.json ? print_json(with.out, list) : show_dead_letters(with.out, list);
    return exit_ok;
  });
}

int settle_dead_letters(const surroundings& with, settle how, const std::vector<std::string>& ids,
                        const std::string& pipeline) {
  const bool replay = how == settle::replay;
  return guarded(with, [&] {
    const document body = ask(with, {.method = "POST",
                                     .path = replay ? "/v1/dead-letters/replay" : "/v1/dead-letters/discard",
                                     .body = selection(ids, pipeline).dump(),
                                     .headers = {"Content-Type: application/json"}});
    const auto failed = body.find("failed");
    const bool all_done = failed == body.end() || !failed->is_array() || failed->empty();
    if (with.json) {
      print_json(with.out, body);
    } else {
      with.out << word(body, "done") << (replay ? " replayed" : " discarded") << '\n';
      if (!all_done) {
        for (const document& reason : *failed) {
          with.err << (reason.is_string() ? reason.get<std::string>() : reason.dump()) << '\n';
        }
      }
    }
    return all_done ? exit_ok : exit_no;
  });
}

}  // namespace penstock::cli
