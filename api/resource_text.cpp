#include "api/resource_text.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <sstream>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "api/text_table.hpp"
#include "config/time.hpp"

namespace penstock::api {

namespace {

// One column: its heading and how to read its cell from a row.
struct column {
  std::string heading;
  std::function<std::string(const shown_json& row)> cell;
};

const shown_json& member_of(const shown_json& object, const char* name) {
  static const shown_json none;
  if (!object.is_object()) return none;
  const auto found = object.find(name);
  return found != object.end() ? *found : none;
}

std::string word(const shown_json& object, const char* member) {
  const shown_json& value = member_of(object, member);
  if (value.is_null()) return "-";
  std::string text = value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, shown_json::error_handler_t::replace);
  return text.empty() ? "-" : text;
}

// 2018-02-07T00:00:00.123456Z as 2018-02-07T00:00:00Z: enough for a table.
std::string to_the_second(std::string time) {
  const std::size_t dot = time.find('.');
  if (dot != std::string::npos && time.ends_with('Z')) time.replace(dot, std::string::npos, "Z");
  return time;
}

std::string or_nothing(std::string text) { return text == "-" ? std::string() : text; }

column plain(std::string heading, const char* member) {
  return {std::move(heading), [member](const shown_json& row) { return word(row, member); }};
}

column at_second(std::string heading, const char* member) {
  return {std::move(heading), [member](const shown_json& row) { return to_the_second(word(row, member)); }};
}

// A list of words, with commas.
std::string words(const shown_json& object, const char* member, const char* none) {
  std::string text;
  for (const shown_json& one : member_of(object, member)) text += (text.empty() ? "" : ", ") + one.get<std::string>();
  return text.empty() ? none : text;
}

// The last column: what is absent leaves no -.
column remark(std::string heading, const char* member) {
  return {std::move(heading), [member](const shown_json& row) { return or_nothing(word(row, member)); }};
}

column count_of(std::string heading, const char* member) {
  return {std::move(heading), [member](const shown_json& row) { return std::to_string(member_of(row, member).size()); }};
}

void add_table(std::ostream& out, const shown_json& rows, const std::vector<column>& columns) {
  std::vector<std::string> headings;
  for (const column& one : columns) headings.push_back(one.heading);
  text_table table(std::move(headings));
  for (const shown_json& row : rows) {
    std::vector<std::string> cells;
    for (const column& one : columns) cells.push_back(one.cell(row));
    table.add(std::move(cells));
  }
  table.print(out);
}

std::string list_text(const shown_json& list, const std::vector<column>& columns, const char* none, asked_by whom = asked_by::query) {
  std::ostringstream out;
  const shown_json& items = member_of(list, "items");
  if (items.empty()) {
    out << none << '\n';
  } else {
    add_table(out, items, columns);
  }
  if (const std::string next = word(list, "next_cursor"); next != "-") {
    out << "(there are more: " << (whom == asked_by::query ? "limit=N, or cursor=" : "--limit N, or --cursor ") << next << ")\n";
  }
  return out.str();
}

// A table below what was said before; nothing when there are no rows.
void add_part(std::ostream& out, const shown_json& rows, const std::vector<column>& columns) {
  if (rows.empty()) return;
  out << '\n';
  add_table(out, rows, columns);
}

void line(std::ostream& out, std::string label, const std::string& text) {
  if (text.empty() || text == "-") return;
  label.resize(14, ' ');
  std::string one_line = text;
  std::replace_if(one_line.begin(), one_line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
  one_line.erase(one_line.find_last_not_of(' ') + 1);
  out << label << one_line << '\n';
}

std::string joined(const shown_json& texts) {
  std::string all;
  for (const shown_json& text : texts) {
    if (!all.empty()) all += ", ";
    all += text.is_string() ? text.get<std::string>() : text.dump();
  }
  return all;
}

std::string lasted(const shown_json& run) {
  const shown_json& milliseconds = member_of(run, "duration_ms");
  if (!milliseconds.is_number()) return "-";
  return format_duration(std::chrono::milliseconds{milliseconds.get<std::int64_t>()});
}

std::string why(const shown_json& run) {
  const std::string reason = word(run, "reason");
  return reason != "-" ? reason : or_nothing(word(run, "waiting_reason"));
}

std::string input_in_words(const shown_json& input) {
  const std::string topic = word(input, "topic");
  if (topic != "-") {
    return "topic " + topic + ", offsets " + word(input, "first_offset") + " to " + word(input, "last_offset") + ", " +
           word(input, "events") + " events";
  }
  const std::string events = word(input, "events");
  return events == "-" || events == "0" ? "" : events + " events";
}

std::string greatest_lag(const shown_json& topic) {
  std::int64_t most = 0;
  for (const shown_json& consumer : member_of(topic, "consumers")) {
    const shown_json& lag = member_of(consumer, "lag");
    if (lag.is_number()) most = std::max(most, lag.get<std::int64_t>());
  }
  return std::to_string(most);
}

std::string kept_runs(const shown_json& job) {
  std::string all;
  for (const auto& [state, count] : member_of(job, "runs").items()) {
    if (!all.empty()) all += ", ";
    all += count.dump() + " " + state;
  }
  return all.empty() ? "-" : all;
}

std::vector<column> flow_columns() {
  return {plain("FLOW", "name"),     plain("STATE", "state"), plain("RECEIVED", "received"), plain("EMITTED", "emitted"),
          plain("FILTERED", "filtered"), plain("DEAD", "dead"),   plain("RESTARTS", "restarts"), remark("REASON", "reason")};
}

}  // namespace

std::string flow_states(const shown_json& flows) {
  std::vector<std::pair<std::string, int>> counts;
  for (const shown_json& flow : flows) {
    const std::string state = word(flow, "state");
    const auto known = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == state; });
    known == counts.end() ? void(counts.emplace_back(state, 1)) : void(++known->second);
  }
  std::string text;
  for (const auto& [state, count] : counts) text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + state;
  return text;
}

std::string pipelines_text(const shown_json& list) {
  std::string text = list_text(list,
                               {plain("PIPELINE", "name"), plain("REVISION", "revision"),
                                {"STATE", [](const shown_json& p) { return std::string(word(p, "paused") == "true" ? "paused" : "active"); }},
                                count_of("FLOWS", "flows"), count_of("JOBS", "jobs"), count_of("TOPICS", "topics"),
                                {"FLOW STATES", [](const shown_json& p) { return flow_states(member_of(p, "flows")); }},
                                at_second("UPDATED", "updated_at"), plain("FROM", "origin"), remark("DESCRIPTION", "description")},
                               "no pipelines");
  for (const shown_json& file : member_of(list, "broken_files")) {
    text += "broken file " + word(file, "file");
    for (const shown_json& fault : member_of(file, "errors")) {
      text += "\n  line " + word(fault, "line") + ", column " + word(fault, "column") + ": " + word(fault, "detail");
    }
    text += '\n';
  }
  return text;
}

std::string pipeline_text(const shown_json& pipeline) {
  std::ostringstream out;
  line(out, "pipeline", word(pipeline, "name"));
  line(out, "description", word(pipeline, "description"));
  line(out, "revision", word(pipeline, "revision") + ", from " + word(pipeline, "origin"));
  line(out, "etag", word(pipeline, "etag"));
  line(out, "state", word(pipeline, "paused") == "true" ? "paused" : "active");
  line(out, "created", word(pipeline, "created_at"));
  line(out, "updated", word(pipeline, "updated_at"));
  line(out, "topics", joined(member_of(pipeline, "topics")));
  add_part(out, member_of(pipeline, "flows"), flow_columns());
  add_part(out, member_of(pipeline, "jobs"),
           {plain("JOB", "name"), plain("QUEUED", "queued"), plain("RUNNING", "running"), at_second("NEXT", "next_firing"), {"RUNS", kept_runs},
            {"TRIGGERS", [](const shown_json& job) { return joined(member_of(job, "triggers")); }}});
  for (const shown_json& job : member_of(pipeline, "jobs")) {
    for (const shown_json& trouble : member_of(job, "troubles")) {
      out << "a trigger of job " << word(job, "name") << " does not work: " << trouble.get<std::string>() << '\n';
    }
  }
  return out.str();
}

std::string revisions_text(const shown_json& list) {
  return list_text(list,
                   {plain("REVISION", "revision"), plain("ETAG", "etag"), at_second("UPDATED", "updated_at"), plain("FROM", "origin"),
                    {"", [](const shown_json& one) { return std::string(word(one, "current") == "true" ? "current" : ""); }}},
                   "no revisions");
}

std::string flow_text(const shown_json& flow) {
  std::ostringstream out;
  line(out, "flow", word(flow, "name") + " (" + word(flow, "kind") + ")");
  line(out, "state", word(flow, "state"));
  line(out, "reason", word(flow, "reason"));
  line(out, "since", word(flow, "since"));
  line(out, "next start", word(flow, "next_start"));
  line(out, "restarts", word(flow, "restarts"));
  line(out, "last event", word(flow, "last_event_at"));
  line(out, "pid", word(flow, "pid"));
  for (const char* count : {"received", "emitted", "filtered", "dead", "duplicates", "late", "redelivered"}) {
    line(out, count, word(flow, count));
  }
  add_part(out, member_of(flow, "steps"),
           {plain("STEP", "name"), plain("RECEIVED", "received"), plain("EMITTED", "emitted"), plain("FILTERED", "filtered"),
            plain("DEAD", "dead"), plain("DUPLICATES", "duplicates"), plain("LATE", "late")});
  return out.str();
}

std::string runs_text(const shown_json& list) { return runs_text(list, asked_by::query); }

std::string runs_text(const shown_json& list, asked_by whom) {
  return list_text(list,
                   {plain("RUN", "id"), plain("PIPELINE", "pipeline"), plain("JOB", "job"), plain("STATE", "state"),
                    plain("TRIGGER", "trigger"), {"EVENTS", [](const shown_json& run) { return word(member_of(run, "input"), "events"); }},
                    at_second("CREATED", "created_at"), {"LASTED", lasted}, {"REASON", why}},
                   "no runs", whom);
}

std::string run_text(const shown_json& run) {
  std::ostringstream out;
  line(out, "run", word(run, "id"));
  line(out, "job", word(run, "pipeline") + "/" + word(run, "job") + " (revision " + word(run, "revision") + ")");
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
  if (!member_of(run, "params").empty()) line(out, "params", word(run, "params"));
  line(out, "attempts", word(run, "attempt"));
  if (word(run, "interruptions") != "0") line(out, "interruptions", word(run, "interruptions"));
  line(out, "created", word(run, "created_at"));
  line(out, "started", word(run, "started_at"));
  line(out, "ended", word(run, "ended_at"));
  line(out, "next attempt", word(run, "retry_at"));
  line(out, "lasted", lasted(run));
  add_part(out, member_of(run, "tasks"),
           {plain("TASK", "name"), plain("STATE", "state"), plain("ATTEMPTS", "attempt"), plain("EXIT CODE", "exit_code"), remark("REASON", "reason")});
  add_part(out, member_of(run, "timeline"), {plain("AT", "at"), plain("WHAT", "what"), remark("DETAIL", "detail")});
  return out.str();
}

std::string topics_text(const shown_json& list) {
  return list_text(list,
                   {plain("TOPIC", "name"), plain("EVENTS", "events"), plain("FIRST", "first_offset"), plain("LAST", "last_offset"),
                    plain("BYTES", "bytes"), plain("DUPLICATES", "duplicates"), count_of("CONSUMERS", "consumers"), {"LAG", greatest_lag}},
                   "no topics");
}

std::string topic_text(const shown_json& topic) {
  std::ostringstream out;
  line(out, "topic", word(topic, "name"));
  line(out, "events", word(topic, "events"));
  if (word(topic, "first_offset") != "-") line(out, "offsets", word(topic, "first_offset") + " to " + word(topic, "last_offset"));
  line(out, "bytes", word(topic, "bytes"));
  line(out, "duplicates", word(topic, "duplicates"));
  add_part(out, member_of(topic, "consumers"), {plain("CONSUMER", "consumer"), plain("CURSOR", "cursor"), plain("LAG", "lag")});
  return out.str();
}

std::string streams_text(const shown_json& list) {
  return list_text(list, {plain("STREAM", "name"), plain("SUBSCRIBERS", "subscribers"), plain("EVENTS", "events")}, "no streams");
}

std::string dead_letters_text(const shown_json& list) { return dead_letters_text(list, asked_by::query); }

std::string dead_letters_text(const shown_json& list, asked_by whom) {
  return list_text(list,
                   {plain("ID", "id"), plain("KIND", "kind"), plain("CONSUMER", "consumer"), plain("STEP", "step"),
                    plain("ATTEMPTS", "attempts"), at_second("AT", "at"), plain("REASON", "reason")},
                   "no dead letters", whom);
}

std::string tokens_text(const shown_json& list) {
  const column roles{"ROLES", [](const shown_json& row) { return words(row, "roles", "-"); }};
  const column pipelines{"PIPELINES", [](const shown_json& row) { return words(row, "pipelines", "all"); }};
  return list_text(list,
                   {plain("TOKEN", "id"), plain("NAME", "name"), plain("STATE", "state"), roles, pipelines,
                    at_second("EXPIRES", "expires_at"), at_second("LAST USED", "last_used_at")},
                   "no tokens");
}

std::string audit_text(const shown_json& list) { return audit_text(list, asked_by::query); }

std::string audit_text(const shown_json& list, asked_by whom) {
  const column who{"WHO", [](const shown_json& row) {
                     return member_of(row, "token").is_null() ? word(row, "who") : word(row, "token") + " (" + word(row, "name") + ")";
                   }};
  const column what{"WHAT", [](const shown_json& row) {
                      return member_of(row, "method").is_null() ? word(row, "target") : word(row, "method") + " " + word(row, "target");
                    }};
  return list_text(list, {at_second("AT", "at"), who, plain("FROM", "address"), plain("OUTCOME", "outcome"), plain("STATUS", "status"), what, remark("DETAIL", "detail")},
                   "nothing was written down", whom);
}

}  // namespace penstock::api
