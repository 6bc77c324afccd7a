#include "daemon/cli_output.hpp"

#include <vector>

#include <nlohmann/json.hpp>

#include "api/resource_text.hpp"
#include "config/definition.hpp"

namespace penstock::cli {
namespace {

void add_changes(std::vector<std::string>& lines, const document& changes, const char* kind) {
  const document& of_kind = member_of(changes, kind);
  for (const char* how : {"added", "changed", "removed"}) {
    for (const document& name : member_of(of_kind, how)) {
      if (name.is_string()) lines.push_back(std::string(how) + " " + kind + " " + name.get<std::string>());
    }
  }
}

}  // namespace

const document& items_of(const document& list) {
  static const document none = document::array();
  const auto found = list.find("items");
  return found != list.end() && found->is_array() ? *found : none;
}

const document& member_of(const document& object, const char* name) {
  static const document none;
  if (!object.is_object()) return none;
  const auto found = object.find(name);
  return found != object.end() ? *found : none;
}

std::string to_the_second(std::string time) {
  const std::size_t dot = time.find('.');
  if (dot != std::string::npos && time.ends_with('Z')) time.replace(dot, std::string::npos, "Z");
  return time;
}

std::string word(const document& object, const char* member) {
  const document& value = member_of(object, member);
  if (value.is_null()) return "-";
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  return text.empty() ? "-" : text;
}

// What the daemon itself makes of a document for a terminal.
void show_runs(std::ostream& out, const document& list) { out << api::runs_text(list, api::asked_by::option); }

void show_pipelines(std::ostream& out, const document& list) { out << api::pipelines_text(list); }

void show_pipeline(std::ostream& out, const document& pipeline) { out << api::pipeline_text(pipeline); }

void show_revisions(std::ostream& out, const document& list) { out << api::revisions_text(list); }

void show_flow(std::ostream& out, const document& flow) { out << api::flow_text(flow); }

void show_run(std::ostream& out, const document& run) { out << api::run_text(run); }

void show_topics(std::ostream& out, const document& list) { out << api::topics_text(list); }

void show_topic(std::ostream& out, const document& topic) { out << api::topic_text(topic); }

void show_dead_letters(std::ostream& out, const document& list) { out << api::dead_letters_text(list, api::asked_by::option); }

void show_applied(std::ostream& out, const document& applied, bool created, bool dry_run) {
  std::vector<std::string> lines;
  const document& changes = member_of(applied, "changes");
  for (const char* kind : {"topics", "flows", "jobs"}) add_changes(lines, changes, kind);
  out << word(applied, "name") << ": ";
  if (dry_run) {
    out << "valid, nothing was stored; " << (lines.empty() ? "nothing would change" : "would change:")
        << '\n';
  } else {
    const document& unchanged = member_of(applied, "unchanged");
    const bool same = unchanged.is_boolean() && unchanged.get<bool>();
    out << (created ? "created" : same ? "unchanged" : "applied") << ", revision " << word(applied, "revision") << '\n';
  }
  for (const std::string& change : lines) out << "  " << change << '\n';
  for (const document& warning : member_of(applied, "warnings")) out << "  warning: " << word(warning, "detail") << '\n';
}

void show_problem(std::ostream& out, const answer& refusal, const std::string& file) {
  const document body = document::parse(refusal.body, nullptr, false);
  if (!body.is_object() || (!body.contains("detail") && !body.contains("title"))) {
    out << "penstock: HTTP status " << refusal.status << ": " << refusal.body.substr(0, 500) << '\n';
    return;
  }
  const document& errors = member_of(body, "errors");
  const std::string detail = word(body, "detail");
  // Where there are errors, the detail ends with the first of them, which is shown below.
  if (!errors.empty() && detail.ends_with(word(errors.front(), "detail"))) {
    if (const auto first = detail.find("; the first: "); first != detail.npos) {
      out << "penstock: " << detail.substr(0, first) << '\n';
    }
  } else {
    out << "penstock: " << (detail == "-" ? word(body, "title") : detail) << '\n';
  }
  for (const document& one : errors) {
    problem found;
    found.pointer = word(one, "pointer") == "-" ? "" : word(one, "pointer");
    found.line = one.value("line", 0);
    found.column = one.value("column", 0);
    found.detail = word(one, "detail");
    out << config::describe(found, file.empty() ? "penstock" : file) << '\n';
  }
}

void show_error(std::ostream& out, const error& wrong, const std::string& file) {
  if (wrong.problems.empty()) out << file << ": " << wrong.detail << '\n';
  for (const problem& one : wrong.problems) out << config::describe(one, file) << '\n';
}

document as_json(const std::vector<problem>& problems) {
  document list = document::array();
  for (const problem& one : problems) {
    list.push_back({{"pointer", one.pointer}, {"line", one.line}, {"column", one.column}, {"detail", one.detail}});
  }
  return list;
}

document as_json(const error& wrong) {
  document list = as_json(wrong.problems);
  if (wrong.problems.empty()) list.push_back({{"pointer", ""}, {"detail", wrong.detail}});
  return list;
}

}  // namespace penstock::cli
