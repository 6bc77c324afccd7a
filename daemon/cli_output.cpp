#include "daemon/cli_output.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/definition.hpp"
#include "config/time.hpp"
#include "daemon/cli_table.hpp"

namespace penstock::cli {
namespace {

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

// 2018-02-07T00:00:00.123456Z as 2018-02-07T00:00:00Z: enough for a table.
std::string to_the_second(std::string time) {
  const std::size_t dot = time.find('.');
  if (dot != std::string::npos && time.ends_with('Z')) time.replace(dot, std::string::npos, "Z");
  return time;
}

std::string lasted(const document& run) {
  const document& milliseconds = member_of(run, "duration_ms");
  if (!milliseconds.is_number()) return "-";
  return format_duration(std::chrono::milliseconds{milliseconds.get<std::int64_t>()});
}

std::string why(const document& run) {
  const std::string reason = word(run, "reason");
  if (reason != "-") return reason;
  const std::string waiting = word(run, "waiting_reason");
  return waiting == "-" ? "" : waiting;
}

void line(std::ostream& out, const char* label, const std::string& text) {
  if (text.empty() || text == "-") return;
  std::string padded = label;
  padded.resize(14, ' ');
  out << padded << text << '\n';
}

std::string input_in_words(const document& input) {
  const std::string topic = word(input, "topic");
  if (topic != "-") {
    return "topic " + topic + ", offsets " + word(input, "first_offset") + " to " +
           word(input, "last_offset") + ", " + word(input, "events") + " events";
  }
  const std::string events = word(input, "events");
  return events == "-" || events == "0" ? "" : events + " events";
}

void add_changes(std::vector<std::string>& lines, const document& changes, const char* kind) {
  const document& of_kind = member_of(changes, kind);
  for (const char* how : {"added", "changed", "removed"}) {
    for (const document& name : member_of(of_kind, how)) {
      if (name.is_string()) lines.push_back(std::string(how) + " " + kind + " " + name.get<std::string>());
    }
  }
}

}  // namespace

std::string word(const document& object, const char* member) {
  const document& value = member_of(object, member);
  if (value.is_null()) return "-";
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  return text.empty() ? "-" : text;
}

void show_runs(std::ostream& out, const document& list) {
  table rows({"RUN", "PIPELINE", "JOB", "STATE", "TRIGGER", "EVENTS", "CREATED", "LASTED", "REASON"});
  for (const document& run : items_of(list)) {
    rows.add({word(run, "id"), word(run, "pipeline"), word(run, "job"), word(run, "state"),
              word(run, "trigger"), word(member_of(run, "input"), "events"),
              to_the_second(word(run, "created_at")), lasted(run), why(run)});
  }
  if (rows.empty()) {
    out << "no runs\n";
    return;
  }
  rows.print(out);
  if (word(list, "next_cursor") != "-") out << "(there are more: --limit)\n";
}

void show_run(std::ostream& out, const document& run) {
  line(out, "run", word(run, "id"));
  line(out, "job",
       word(run, "pipeline") + "/" + word(run, "job") + " (revision " + word(run, "revision") + ")");
  line(out, "state", word(run, "state"));
  line(out, "reason", why(run));
  line(out, "trigger", word(run, "trigger"));
  line(out, "scheduled for", word(run, "scheduled_for"));
  line(out, "deadline", word(run, "deadline_at"));
  line(out, "after run", word(run, "upstream_run"));
  line(out, "repeats run", word(run, "retry_of"));
  line(out, "priority", word(run, "priority"));
  line(out, "overlap key", word(run, "overlap_key"));
  line(out, "input", input_in_words(member_of(run, "input")));
  const document& params = member_of(run, "params");
  if (params.is_object() && !params.empty()) line(out, "params", params.dump());
  line(out, "attempts", word(run, "attempt"));
  if (word(run, "interruptions") != "0") line(out, "interruptions", word(run, "interruptions"));
  line(out, "created", word(run, "created_at"));
  line(out, "started", word(run, "started_at"));
  line(out, "ended", word(run, "ended_at"));
  line(out, "next attempt", word(run, "retry_at"));
  line(out, "lasted", lasted(run));

  table tasks({"TASK", "STATE", "ATTEMPTS", "EXIT CODE", "REASON"});
  for (const document& task : member_of(run, "tasks")) {
    const std::string reason = word(task, "reason");
    tasks.add({word(task, "name"), word(task, "state"), word(task, "attempt"), word(task, "exit_code"),
               reason == "-" ? "" : reason});
  }
  if (!tasks.empty()) {
    out << '\n';
    tasks.print(out);
  }
  table timeline({"AT", "WHAT", "DETAIL"});
  for (const document& entry : member_of(run, "timeline")) {
    const std::string detail = word(entry, "detail");
    timeline.add({word(entry, "at"), word(entry, "what"), detail == "-" ? "" : detail});
  }
  if (timeline.empty()) return;
  out << '\n';
  timeline.print(out);
}

void show_topics(std::ostream& out, const document& list) {
  table rows({"TOPIC", "EVENTS", "FIRST", "LAST", "BYTES", "DUPLICATES", "CONSUMERS", "LAG"});
  for (const document& topic : items_of(list)) {
    std::int64_t most = 0;
    const document& consumers = member_of(topic, "consumers");
    for (const document& consumer : consumers) {
      const document& lag = member_of(consumer, "lag");
      if (lag.is_number()) most = std::max(most, lag.get<std::int64_t>());
    }
    rows.add({word(topic, "name"), word(topic, "events"), word(topic, "first_offset"),
              word(topic, "last_offset"), word(topic, "bytes"), word(topic, "duplicates"),
              std::to_string(consumers.size()), std::to_string(most)});
  }
  if (rows.empty()) {
    out << "no topics\n";
  } else {
    rows.print(out);
  }
}

void show_topic(std::ostream& out, const document& topic) {
  line(out, "topic", word(topic, "name"));
  line(out, "events", word(topic, "events"));
  line(out, "offsets", word(topic, "first_offset") + " to " + word(topic, "last_offset"));
  line(out, "bytes", word(topic, "bytes"));
  line(out, "duplicates", word(topic, "duplicates"));
  table consumers({"CONSUMER", "CURSOR", "LAG"});
  for (const document& consumer : member_of(topic, "consumers")) {
    consumers.add({word(consumer, "consumer"), word(consumer, "cursor"), word(consumer, "lag")});
  }
  if (consumers.empty()) return;
  out << '\n';
  consumers.print(out);
}

void show_dead_letters(std::ostream& out, const document& list) {
  table rows({"ID", "KIND", "CONSUMER", "STEP", "ATTEMPTS", "AT", "REASON"});
  for (const document& letter : items_of(list)) {
    rows.add({word(letter, "id"), word(letter, "kind"), word(letter, "consumer"), word(letter, "step"),
              word(letter, "attempts"), to_the_second(word(letter, "at")), word(letter, "reason")});
  }
  if (rows.empty()) {
    out << "no dead letters\n";
    return;
  }
  rows.print(out);
  if (word(list, "next_cursor") != "-") out << "(there are more: --limit)\n";
}

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
