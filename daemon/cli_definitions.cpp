// The verbs about definition files: validate, schema, plan, apply.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/definition.hpp"
#include "config/json_schema.hpp"
#include "config/node.hpp"
#include "daemon/cli_ask.hpp"
#include "runtime/registry.hpp"

namespace penstock::cli {
namespace {

namespace fs = std::filesystem;

bool is_definition(const fs::path& file) {
  const std::string ending = file.extension().string();
  return ending == ".yaml" || ending == ".yml" || ending == ".json";
}

bool is_hidden(const fs::path& entry) { return entry.filename().string().starts_with('.'); }

std::vector<std::string> definitions_below(const std::string& folder) {
  std::vector<std::string> found;
  const auto options = fs::directory_options::skip_permission_denied;
  for (auto at = fs::recursive_directory_iterator(folder, options); at != fs::recursive_directory_iterator(); ++at) {
    if (is_hidden(at->path())) {
      if (at->is_directory()) at.disable_recursion_pending();
    } else if (at->is_regular_file() && is_definition(at->path())) {
      found.push_back(at->path().string());
    }
  }
  if (found.empty()) throw usage_error("there is no *.yaml, *.yml or *.json in " + folder);
  std::sort(found.begin(), found.end());
  return found;
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

struct named_definition {
  std::string file, text, name;
};

// What the files hold; nothing when one has no name or two have the same, which is said. Each is read once ("-" cannot be twice).
std::optional<std::vector<named_definition>> read_definitions(const surroundings& with, const std::vector<std::string>& files) {
  std::vector<named_definition> found;
  std::map<std::string, std::string> file_of;
  bool good = true;
  for (const std::string& file : files) {
    std::string text = read_file(file);
    const result<std::string> name = name_in(text);
    if (!name) {
      for (const problem& one : name.error().problems) with.err << config::describe(one, file) << '\n';
      good = false;
    } else if (const auto [known, is_new] = file_of.emplace(*name, file); !is_new) {
      with.err << file << ": the pipeline " << *name << " is also in " << known->second << '\n';
      good = false;
    } else {
      found.push_back({file, std::move(text), *name});
    }
  }
  if (!good) return std::nullopt;
  return found;
}

answer put(const surroundings& with, const named_definition& definition, bool dry_run) {
  const bool is_json = definition.file.ends_with(".json");
  return with.daemon.send({.method = "PUT",
                           .path = pipeline_path(definition.name) + (dry_run ? "?dry_run=true" : ""),
                           .body = definition.text,
                           .headers = {is_json ? "Content-Type: application/json" : "Content-Type: application/yaml"}});
}

// Until no flow of the pipeline starts or drains any more. exit_no: one of them is not up.
int wait_for_flows(const surroundings& with, const std::string& pipeline) {
  constexpr std::chrono::milliseconds between{100};
  constexpr int looks = 600;
  std::string waiting;
  for (int look = 0; look < looks; ++look) {
    waiting.clear();
    std::string down;
    const document now = ask(with, {.path = pipeline_path(pipeline)});
    for (const document& flow : member_of(now, "flows")) {
      const std::string state = word(flow, "state");
      if (state == "starting" || state == "draining") waiting += " " + word(flow, "name");
      if (state == "failed" || state == "backing_off") down += "flow " + word(flow, "name") + ": " + state + ": " + word(flow, "reason") + "\n";
    }
    if (!down.empty()) {
      with.err << down;
      return exit_no;
    }
    if (waiting.empty()) return exit_ok;
    if (!pause_for(between)) throw interruption();
  }
  with.err << "not up within a minute:" << waiting << '\n';
  return exit_no;
}

int apply_one(const surroundings& with, const named_definition& definition, const apply_options& options) {
  const answer said = put(with, definition, options.dry_run);
  if (!said.ok()) return refused(with, said, definition.file);
  const document applied = parse_answer(said);
  if (with.json) {
    with.out << said.body << '\n';
  } else {
    show_applied(with.out, applied, said.status == 201, options.dry_run);
  }
  if (!options.wait || options.dry_run) return exit_ok;
  return guarded(with, [&] { return wait_for_flows(with, word(applied, "name")); });
}

// What would be refused is said.
int refused_of(const surroundings& with, const std::vector<named_definition>& definitions) {
  int worst = exit_ok;
  for (const named_definition& one : definitions) {
    const answer said = put(with, one, true);
    if (!said.ok()) worst = std::max(worst, refused(with, said, one.file));
  }
  return worst;
}

int plan_one(const surroundings& with, const named_definition& definition, int firings) {
  const answer said = put(with, definition, true);
  if (!said.ok()) return refused(with, said, definition.file);
  const document plan = parse_answer(said);
  if (with.json) {
    with.out << said.body << '\n';
  } else {
    show_plan(with.out, plan, firings);
  }
  return plan.value("unchanged", false) ? exit_ok : exit_no;
}

}  // namespace

std::vector<std::string> definition_files(const std::vector<std::string>& given) {
  std::vector<std::string> files;
  for (const std::string& one : given) {
    std::error_code unreadable;  // told by whoever reads it
    if (one == "-" || !fs::is_directory(one, unreadable)) {
      files.push_back(one);
    } else {
      const auto below = definitions_below(one);
      files.insert(files.end(), below.begin(), below.end());
    }
  }
  return files;
}

int validate(const std::vector<std::string>& files, std::ostream& out, std::ostream& err, bool json) {
  const runtime::registry components = runtime::make_registry();
  document list = document::array();
  bool all_valid = true;
  for (const std::string& file : definition_files(files)) {
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

int schema(std::ostream& out) {
  const runtime::registry components = runtime::make_registry();
  print_json(out, config::pipeline_json_schema(components.catalog()));
  return exit_ok;
}

int apply(const surroundings& with, const apply_options& options) {
  const auto definitions = read_definitions(with, definition_files(options.files));
  if (!definitions) return exit_refused;
  if (definitions->size() > 1 && !options.dry_run) {
    if (const int code = refused_of(with, *definitions); code != exit_ok) {
      with.err << "nothing was applied\n";
      return code;
    }
  }
  int worst = exit_ok;
  for (const named_definition& one : *definitions) worst = std::max(worst, apply_one(with, one, options));
  return worst;
}

int plan(const surroundings& with, const std::vector<std::string>& files, int firings) {
  const auto definitions = read_definitions(with, definition_files(files));
  if (!definitions) return exit_refused;  // exit_no says that something would change
  int worst = exit_ok;
  for (const named_definition& one : *definitions) worst = std::max(worst, plan_one(with, one, firings));
  return worst;
}

}  // namespace penstock::cli
