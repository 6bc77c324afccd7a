// Pipelines, flows, plans and the status screen, as text for people.
#include <algorithm>
#include <cstdint>

#include <nlohmann/json.hpp>

#include "api/resource_text.hpp"
#include "api/text_table.hpp"
#include "daemon/cli_output.hpp"

namespace penstock::cli {

using table = api::text_table;
namespace {

std::string or_empty(std::string text) { return text == "-" ? "" : text; }

std::int64_t number(const document& object, const char* member) {
  const document& value = member_of(object, member);
  return value.is_number_integer() ? value.get<std::int64_t>() : 0;
}

void add_flow(table& rows, const std::string& pipeline, const document& flow) {
  rows.add({pipeline, word(flow, "name"), word(flow, "state"), to_the_second(word(flow, "since")), word(flow, "received"),
            word(flow, "emitted"), word(flow, "dead"), word(flow, "restarts"), or_empty(word(flow, "reason"))});
}

table flow_table() { return table({"PIPELINE", "FLOW", "STATE", "SINCE", "RECEIVED", "EMITTED", "DEAD", "RESTARTS", "REASON"}); }

void print_section(std::ostream& out, const table& rows) {
  if (rows.empty()) return;
  out << '\n';
  rows.print(out);
}

// ---- plans ----

std::string shown_value(const document& field, const char* side) {
  const auto found = field.find(side);
  if (found == field.end()) return "(nothing)";
  std::string text = found->dump(-1, ' ', false, document::error_handler_t::replace);
  constexpr std::size_t longest = 120;
  if (text.size() > longest) text = text.substr(0, text.find_last_of(' ', longest) == text.npos ? longest : text.find_last_of(' ', longest)) + " ...";
  return text;
}

void show_fields(std::ostream& out, const document& fields) {
  for (const document& f : fields) {
    out << "      " << word(f, "path") << ": " << shown_value(f, "before") << " -> " << shown_value(f, "after") << '\n';
  }
}

void show_parts(std::ostream& out, const document& parts, const char* kind) {
  for (const document& part : parts) {
    const std::string change = word(part, "change");
    out << "  " << (change == "added" ? '+' : change == "removed" ? '-' : '~') << ' ' << kind << ' ' << word(part, "name") << ": "
        << word(part, "effect") << '\n';
    show_fields(out, member_of(part, "fields"));
    for (const document& loss : member_of(part, "losses")) out << "      loses: " << loss.get<std::string>() << '\n';
  }
}

void show_firings(std::ostream& out, const document& schedules, int most) {
  if (most <= 0 || schedules.empty()) return;
  out << "\nnext firings:\n";
  for (const document& schedule : schedules) {
    out << "  " << word(schedule, "job") << ", " << word(schedule, "trigger") << '\n';
    if (const std::string note = word(schedule, "note"); note != "-") out << "    " << note << '\n';
    int shown = 0;
    for (const document& firing : member_of(schedule, "next")) {
      if (shown++ >= most) break;
      const std::string clock = word(firing, "clock");
      out << "    " << word(firing, "at")
          << (clock == "skipped" ? "  (the clock skips its time: the first instant after the gap)"
              : clock == "repeated" ? "  (the clock shows this time twice: the first of the two)" : "")
          << '\n';
    }
  }
}

}  // namespace

void show_flows(std::ostream& out, const document& pipelines) {
  table rows = flow_table();
  for (const document& p : items_of(pipelines)) {
    for (const document& flow : member_of(p, "flows")) add_flow(rows, word(p, "name"), flow);
  }
  if (rows.empty()) {
    out << "no flows\n";
  } else {
    rows.print(out);
  }
}

void show_change(std::ostream& out, const document& change) {
  const std::string kind = word(change, "kind");
  std::string what = kind + " " + word(change, "pipeline");
  for (const char* member : {"job", "flow"}) {
    if (const std::string name = word(change, member); name != "-") what += "/" + name;
  }
  if (const std::string run = word(change, "run"); run != "-") what += " " + run;
  const std::string reason = word(change, "reason");
  out << word(change, "at") << "  " << what << "  " << word(change, "state") << (reason == "-" ? "" : "  " + reason) << '\n';
}

void show_plan(std::ostream& out, const document& said, int firings) {
  const document& plan = member_of(said, "plan");
  const bool unchanged = member_of(said, "unchanged") == true;
  out << word(said, "name") << ": "
      << (unchanged ? "nothing would change" : member_of(said, "created") == true ? "would be created" : "would change")
      << "; nothing was stored\n";
  if (const std::string effect = word(plan, "effect"); effect != "-" && !unchanged) out << "  " << effect << '\n';
  show_parts(out, member_of(plan, "topics"), "topic");
  show_parts(out, member_of(plan, "flows"), "flow");
  show_parts(out, member_of(plan, "jobs"), "job");
  if (member_of(said, "created") != true && !member_of(plan, "settings").empty()) {
    out << "  ~ settings\n";
    show_fields(out, member_of(plan, "settings"));
  }
  const document& same = member_of(plan, "untouched");
  if (!unchanged && number(same, "topics") + number(same, "flows") + number(same, "jobs") > 0) {
    out << "  untouched: " << word(same, "topics") << " topics, " << word(same, "flows") << " flows, " << word(same, "jobs") << " jobs\n";
  }
  for (const document& warning : member_of(said, "warnings")) out << "  warning: " << word(warning, "detail") << '\n';
  if (const std::string diff = word(said, "diff"); diff != "-" && member_of(said, "created") != true) out << '\n' << diff;
  show_firings(out, member_of(said, "schedules"), firings);
}

void show_status(std::ostream& out, const document& all) {
  out << word(all, "url") << ": " << (member_of(all, "ready") == true ? "ready" : "not ready: " + word(all, "reason")) << '\n';
  for (const document& file : member_of(all, "broken_files")) {
    for (const document& one : member_of(file, "errors")) out << "broken: " << word(file, "file") << ": " << word(one, "detail") << '\n';
  }
  for (const document& trouble : member_of(all, "troubles")) out << "look after: " << trouble.get<std::string>() << '\n';
  const document& dead = member_of(member_of(all, "dead_letters"), "by_pipeline");
  table pipelines({"PIPELINE", "REVISION", "STATE", "FLOWS", "QUEUED", "RUNNING", "DEAD LETTERS"});
  table troubled = flow_table();
  for (const document& p : member_of(all, "pipelines")) {
    std::int64_t queued = 0, running = 0;
    for (const document& job : member_of(p, "jobs")) {
      queued += number(job, "queued");
      running += number(job, "running");
    }
    const std::string name = word(p, "name");
    pipelines.add({name, word(p, "revision"), member_of(p, "paused") == true ? "paused" : "active", api::flow_states(member_of(p, "flows")),
                   std::to_string(queued), std::to_string(running), std::to_string(number(dead, name.c_str()))});
    for (const document& flow : member_of(p, "flows")) {
      const std::string state = word(flow, "state");
      if (state != "running" && state != "paused" && state != "stopped") add_flow(troubled, name, flow);
    }
  }
  if (pipelines.empty()) out << "no pipelines\n";
  print_section(out, pipelines);
  print_section(out, troubled);
  table runs({"RUN", "PIPELINE", "JOB", "STATE", "SINCE", "WAITS FOR"});
  for (const document& run : member_of(all, "runs")) {
    const std::string started = word(run, "started_at");
    runs.add({word(run, "id"), word(run, "pipeline"), word(run, "job"), word(run, "state"),
              to_the_second(started == "-" ? word(run, "created_at") : started), or_empty(word(run, "waiting_reason"))});
  }
  print_section(out, runs);
  table topics({"TOPIC", "EVENTS", "BYTES", "CONSUMER", "LAG"});
  for (const document& topic : member_of(all, "topics")) {
    const document& consumers = member_of(topic, "consumers");
    const auto behind = std::max_element(consumers.begin(), consumers.end(),
                                         [](const document& a, const document& b) { return number(a, "lag") < number(b, "lag"); });
    const bool any = behind != consumers.end();
    topics.add({word(topic, "name"), word(topic, "events"), word(topic, "bytes"), any ? word(*behind, "consumer") : "",
                any ? word(*behind, "lag") : "0"});
  }
  print_section(out, topics);
}

}  // namespace penstock::cli
