#include "daemon/cli_commands.hpp"

// The verbs about runs and topics.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>

#include "daemon/cli_ask.hpp"

namespace penstock::cli {
namespace {

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

// The run once it has ended, or after a while. Throws unreachable also when the daemon stops.
document ask_for_end(const surroundings& with, const std::string& id) {
  constexpr std::chrono::seconds while_at_once{30};
  try {
    return ask(with, {.path = run_path(id) + "?wait=30s", .waits = while_at_once});
  } catch (const refusal& no) {
    if (no.said.status != 503) throw;
    throw unreachable("the daemon stops");
  }
}

document wait_for_end(const surroundings& with, document run) {
  const std::string id = word(run, "id");
  try {
    while (!is_final(run)) run = ask_for_end(with, id);
  } catch (const interruption&) {
    with.err << "\npenstock: run " << id << " goes on; penstock runs show " << id << " says how it ends, penstock cancel " << id
             << " ends it\n";
    throw;
  } catch (const unreachable& gone) {
    throw unreachable(std::string(gone.what()) + "; run " + id + " has not ended as far as is known: penstock runs show " + id +
                      " says more once the daemon answers");
  }
  return run;
}

bool has_job(const document& pipeline, const std::string& name) {
  const document& jobs = member_of(pipeline, "jobs");
  return std::any_of(jobs.begin(), jobs.end(), [&](const document& job) { return word(job, "name") == name; });
}

// A filter that matches nothing may name what is not there: then the refusal says so.
void check_names(const surroundings& with, const runs_options& options) {
  if (!options.pipeline.empty()) {
    const document pipeline = ask(with, {.path = pipeline_path(options.pipeline)});
    if (options.job.empty() || has_job(pipeline, options.job)) return;
    throw not_found("pipeline '" + options.pipeline + "' has no job '" + options.job + "', and no runs of one are kept");
  }
  if (options.job.empty()) return;
  const document all = ask_all(with, "/v1/pipelines");
  const document& pipelines = items_of(all);
  if (std::any_of(pipelines.begin(), pipelines.end(), [&](const document& one) { return has_job(one, options.job); })) return;
  throw not_found("no pipeline has a job '" + options.job + "', and no runs of one are kept");
}

// Of a backfill: until all have ended. How many did not succeed.
std::size_t wait_for_all(const surroundings& with, const document& runs) {
  progress_bar bar(with, "running");
  std::size_t ended = 0, failed = 0;
  try {
    for (const document& id : runs) {
      bar.show(static_cast<std::int64_t>(ended), static_cast<std::int64_t>(runs.size()),
               std::to_string(ended) + " of " + std::to_string(runs.size()) + (failed > 0 ? ", " + std::to_string(failed) + " did not succeed" : ""));
      document run = ask_for_end(with, id.get<std::string>());
      while (!is_final(run)) run = ask_for_end(with, id.get<std::string>());
      ++ended;
      if (word(run, "state") != "succeeded") ++failed;
    }
  } catch (const interruption&) {
    with.err << "\npenstock: the runs go on; " << ended << " of " << runs.size() << " have ended\n";
    throw;
  } catch (const unreachable& gone) {
    throw unreachable(std::string(gone.what()) + "; of the " + std::to_string(runs.size()) + " runs " + std::to_string(ended) +
                      " have ended as far as is known: penstock runs says more once the daemon answers");
  }
  return failed;
}

// The text ends with the run, and also when the daemon stops.
int tell_why_logs_end(const surroundings& with, const std::string& id) {
  std::string why = "the daemon stops";
  try {
    if (is_final(ask(with, {.path = run_path(id)}))) return exit_ok;
  } catch (const unreachable& gone) {
    why = gone.what();
  } catch (const refusal& no) {
    if (no.said.status != 503) throw;
  }
  throw unreachable("the log has ended before run " + id + ": " + why);
}

bool looks_like_array(const std::string& file, const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  return file.ends_with(".json") || (first != std::string::npos && text[first] == '[');
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

int trigger(const surroundings& with, const trigger_options& options) {
  document body = {{"params", parse_params(options.params)}};
  if (!options.events.empty()) body["events"] = parse_events(options.events);
  std::vector<std::string> headers = {"Content-Type: application/json"};
  if (!options.idempotency_key.empty()) headers.push_back("Idempotency-Key: " + options.idempotency_key);
  return guarded(with, [&] {
    document run = ask(with, {.method = "POST",
                              .path = pipeline_path(options.pipeline) + "/jobs/" + encode(options.job) + "/runs",
                              .body = body.dump(),
                              .headers = headers,
                              .again_when_told = false});  // a queue that is full is for whoever asks to know
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
                                                                 {"since", options.since},
                                                                 {"until", options.until},
                                                                 {"cursor", options.cursor},
                                                                 {"limit", std::to_string(options.limit)}})});
    if (list["items"].empty()) check_names(with, options);
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
    document run = ask(with, {.method = "POST", .path = run_path(id) + "/retry" + query({{"from", from_start ? "start" : ""}}), .again_when_told = false});
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
    if (!options.wait || options.dry_run) return exit_ok;
    const document& runs = member_of(said, "runs");
    const std::size_t failed = wait_for_all(with, runs);
    if (!with.json) with.out << runs.size() - failed << " succeeded, " << failed << " did not\n";
    return failed == 0 ? exit_ok : exit_no;
  });
}

int logs(const surroundings& with, const std::string& id, const std::string& task, bool follow) {
  const std::string path = run_path(id) + "/logs" + query({{"task", task}, {"follow", follow ? "true" : ""}});
  const answer said = with.daemon.stream(
      {.path = path},
      [&](std::string_view piece) {
        with.out << piece;
        with.out.flush();
      },
      [&] { with.daemon.look_for_life(); });  // a task need not print anything
  if (!said.ok()) return refused(with, said);
  return follow ? guarded(with, [&] { return tell_why_logs_end(with, id); }) : exit_ok;
}

int topics(const surroundings& with, const std::string& name) {
  return guarded(with, [&] {
    const document body = name.empty() ? ask_all(with, "/v1/topics") : ask(with, {.path = "/v1/topics/" + encode(name)});
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
                                     .headers = {type},
                                     .again_when_told = false});  // a topic that is full is for whoever sends to know
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
  }, file == "-" ? "stdin" : file);
}

}  // namespace penstock::cli
