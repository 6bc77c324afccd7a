#include "api/json.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include <nlohmann/json.hpp>

#include "runtime/json.hpp"

namespace penstock::api {

namespace {

constexpr int deepest = 64;

struct too_deep {};

// An object, member by member. nlohmann makes an array of each pair of an initializer list, and looks for each name among all
// before it: for a run that took longer than all else of its answer. The caller names no member twice.
class members {
 public:
  explicit members(std::size_t count) { all_.reserve(count); }
  void add(const char* name, json value) { all_.emplace_back(name, std::move(value)); }
  json object() && { return json(std::move(all_)); }

 private:
  json::object_t all_;
};

template <class T>
json value_or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json offset_or_null(std::int64_t offset) { return offset > 0 ? json(offset) : json(nullptr); }

json duration_ms(const scheduler::run_record& run) {
  if (!run.started_at || !run.ended_at) return nullptr;
  return std::chrono::duration_cast<std::chrono::milliseconds>(*run.ended_at - *run.started_at).count();
}

json task_json(const scheduler::task_record& task) {
  json output = task.output.empty() ? json(nullptr) : json::parse(task.output, nullptr, false);
  json item = task.item.empty() ? json(nullptr) : json::parse(task.item, nullptr, false);
  members out(9);
  out.add("name", task.name);
  out.add("state", token(task.state));
  out.add("attempt", task.attempt);
  out.add("item", std::move(item));
  out.add("output", std::move(output));
  out.add("exit_code", value_or_null(task.exit_code));
  out.add("reason", text_or_null(task.reason));
  out.add("started_at", time_or_null(task.started_at));
  out.add("ended_at", time_or_null(task.ended_at));
  return std::move(out).object();
}

std::string_view kind_of(scheduler::run_input::kind kind) {
  switch (kind) {
    case scheduler::run_input::kind::none:
      return "none";
    case scheduler::run_input::kind::topic:
      return "topic";
    case scheduler::run_input::kind::inline_events:
      return "inline";
  }
  return "none";
}

json input_json(const scheduler::run_input& input) {
  const bool claim = input.type == scheduler::run_input::kind::topic;
  const bool any = claim && input.until > input.after;
  return {{"kind", kind_of(input.type)},
          {"topic", claim ? json(input.topic) : json(nullptr)},
          {"first_offset", any ? json(input.after + 1) : json(nullptr)},
          {"last_offset", any ? json(input.until) : json(nullptr)},
          {"events", input.events}};
}

json changes_json(const config::changes& changes) {
  return {{"added", changes.added}, {"changed", changes.changed}, {"removed", changes.removed}};
}

template <class T>
json array_of(const std::vector<T>& items) {
  json array = json::array();
  for (const T& item : items) array.push_back(to_json(item));
  return array;
}

struct position {
  int line = 1;
  int column = 1;
};

position position_of(std::string_view text, std::size_t byte) {
  const std::string_view before = text.substr(0, byte);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t start = before.rfind('\n');
  const std::size_t column = start == std::string_view::npos ? before.size() : before.size() - start - 1;
  return {static_cast<int>(lines) + 1, static_cast<int>(column) + 1};
}

// nlohmann's message without its own prefix: "[json.exception.parse_error.101] parse error at line 1, column
// 2: ..."
std::string reason_of(std::string_view what) {
  const std::size_t colon = what.find(": ");
  return std::string(colon == std::string_view::npos ? what : what.substr(colon + 2));
}

error malformed_at(std::string_view text, std::size_t byte, const std::string& reason) {
  const position at = position_of(text, byte);
  return {errc::malformed,
          "the body is not JSON: line " + std::to_string(at.line) + ", column " + std::to_string(at.column) +
              ": " + reason,
          {{"", at.line, at.column, reason}}};
}

}  // namespace

json text_or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

json time_or_null(const std::optional<timestamp>& time) { return time ? json(format_time(*time)) : json(nullptr); }

std::string to_text(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

result<json> parse_json(std::string_view text) {
  const auto shallow = [](int depth, json::parse_event_t, json&) {
    if (depth > deepest) throw too_deep{};
    return true;
  };
  try {
    // In place, because a json converts to nearly everything, an error included.
    return {result<json>::in_place_value, json::parse(text.begin(), text.end(), shallow)};
  } catch (const json::parse_error& wrong) {
    if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
      return error{errc::malformed, "the body is empty; JSON was expected"};
    }
    return malformed_at(text, wrong.byte > 0 ? wrong.byte - 1 : 0, reason_of(wrong.what()));
  } catch (const json::out_of_range&) {
    return error{errc::malformed, "the body holds a number that is out of range"};
  } catch (const too_deep&) {
    return error{errc::malformed, "the body nests deeper than " + std::to_string(deepest) + " levels"};
  }
}

json to_json(const scheduler::run_record& run, bool with_tasks) {
  json params = json::parse(run.params, nullptr, false);
  members out(26);  // one more for what the caller adds
  out.add("id", run.id);
  out.add("pipeline", run.pipeline);
  out.add("job", run.job);
  out.add("revision", run.revision);
  out.add("state", token(run.state));
  out.add("trigger", token(run.trigger));
  out.add("waiting_reason", text_or_null(run.waiting_reason));
  out.add("reason", text_or_null(run.reason));
  out.add("attempt", run.attempt);
  out.add("interruptions", run.interruptions);
  out.add("scheduled_for", time_or_null(run.scheduled_for));
  out.add("deadline_at", time_or_null(run.deadline_at));
  out.add("upstream_run", text_or_null(run.upstream_run));
  out.add("retry_of", text_or_null(run.retry_of));
  out.add("priority", run.priority);
  out.add("overlap_key", text_or_null(run.overlap_key));
  out.add("input", input_json(run.input));
  out.add("trace_id", scheduler::trace_id(run));
  out.add("params", params.is_object() ? std::move(params) : json::object());
  out.add("created_at", format_time(run.created_at));
  out.add("started_at", time_or_null(run.started_at));
  out.add("ended_at", time_or_null(run.ended_at));
  out.add("retry_at", time_or_null(run.retry_at));
  out.add("duration_ms", duration_ms(run));
  if (!with_tasks) return std::move(out).object();
  json::array_t tasks;
  tasks.reserve(run.tasks.size());
  for (const auto& task : run.tasks) tasks.push_back(task_json(task));
  out.add("tasks", std::move(tasks));
  return std::move(out).object();
}

json to_json(const std::vector<scheduler::timeline_entry>& timeline) {
  json entries = json::array();
  for (const auto& entry : timeline) {
    members out(3);
    out.add("at", format_time(entry.at));
    out.add("what", entry.what);
    out.add("detail", text_or_null(entry.detail));
    entries.push_back(std::move(out).object());
  }
  return entries;
}

json to_json(const scheduler::backfill_answer& answer) {
  return {{"made", answer.made}, {"existing", answer.existing}, {"runs", answer.runs}};
}

json to_json(const problem& p) {
  json entry{{"pointer", p.pointer}};
  if (p.line > 0) entry["line"] = p.line;
  if (p.column > 0) entry["column"] = p.column;
  entry["detail"] = p.detail;
  return entry;
}

json to_json(const scheduler::step_view& step) {
  return {{"name", step.name},
          {"received", step.received},
          {"emitted", step.emitted},
          {"filtered", step.filtered},
          {"dead", step.dead},
          {"duplicates", step.duplicates},
          {"late", step.late},
          {"batches", step.batches},
          {"busy_seconds", std::chrono::duration<double>(step.busy).count()}};
}

json to_json(const scheduler::flow_view& flow) {
  return {{"name", flow.name},
          {"kind", flow.kind},
          {"state", token(flow.state)},
          {"reason", text_or_null(flow.reason)},
          {"since", time_or_null(flow.since)},
          {"next_start", time_or_null(flow.next_start)},
          {"restarts", flow.restarts},
          {"received", flow.received},
          {"emitted", flow.emitted},
          {"filtered", flow.filtered},
          {"dead", flow.dead},
          {"duplicates", flow.duplicates},
          {"late", flow.late},
          {"redelivered", flow.redelivered},
          {"steps", array_of(flow.steps)},
          {"last_event_at", time_or_null(flow.last_event_at)},
          {"pid", value_or_null(flow.pid)}};
}

json to_json(const scheduler::job_view& job) {
  return {{"name", job.name},
          {"triggers", job.triggers},
          {"queued", job.queued},
          {"running", job.running},
          {"next_firing", time_or_null(job.next_firing)},
          {"expression_failures", job.expression_failures},
          {"troubles", job.troubles},
          {"runs", job.runs}};
}

json to_json(const scheduler::pipeline_view& pipeline, bool with_definition) {
  json topics = json::array();
  if (pipeline.definition) {
    for (const auto& [name, _] : pipeline.definition->topics) topics.push_back(name);
  }
  json out{{"name", pipeline.record.name},
           {"description", pipeline.definition ? json(pipeline.definition->description) : json(nullptr)},
           {"revision", pipeline.record.revision},
           {"etag", pipeline.record.etag},
           {"paused", pipeline.paused},
           {"origin", pipeline.record.origin},
           {"created_at", format_time(pipeline.record.created_at)},
           {"updated_at", format_time(pipeline.record.updated_at)},
           {"flows", array_of(pipeline.flows)},
           {"jobs", array_of(pipeline.jobs)},
           {"topics", std::move(topics)}};
  if (with_definition)
    out["definition"] = pipeline.definition ? pipeline.definition->document : json(nullptr);
  return out;
}

json to_json(const scheduler::pipeline_record& revision) {
  return {{"revision", revision.revision},
          {"etag", revision.etag},
          {"origin", revision.origin},
          {"media_type", revision.media_type},
          {"updated_at", format_time(revision.updated_at)}};
}

json to_json(const scheduler::broken_file& file) {
  json errors = json::array();
  for (const problem& p : file.problems) {
    errors.push_back({{"pointer", p.pointer}, {"line", p.line}, {"column", p.column}, {"detail", p.detail}});
  }
  return {{"file", file.file}, {"errors", std::move(errors)}};
}

json to_json(const scheduler::backup_view& backup) {
  constexpr std::array states{"none", "running", "done", "failed", "cancelled"};
  return {{"state", states.at(static_cast<std::size_t>(backup.state))},
          {"to", text_or_null(backup.to)},
          {"reason", text_or_null(backup.reason)},
          {"as_of", time_or_null(backup.as_of)},
          {"started_at", time_or_null(backup.started_at)},
          {"ended_at", time_or_null(backup.ended_at)},
          {"bytes", backup.bytes},
          {"bytes_done", backup.bytes_done},
          {"files", backup.files},
          {"files_done", backup.files_done}};
}

json to_json(const config::pipeline_diff& diff) {
  return {{"topics", changes_json(diff.topics)},
          {"flows", changes_json(diff.flows)},
          {"jobs", changes_json(diff.jobs)},
          {"settings_changed", diff.settings_changed}};
}

json to_json(const runtime::topic_status& status, const std::vector<scheduler::consumer_view>& consumers) {
  json readers = json::array();
  for (const auto& c : consumers)
    readers.push_back({{"consumer", c.consumer}, {"cursor", c.cursor}, {"lag", c.lag}});
  return {{"name", status.name},
          {"events", status.events},
          {"first_offset", offset_or_null(status.first_offset)},
          {"last_offset", offset_or_null(status.last_offset)},
          {"bytes", status.bytes},
          {"duplicates", status.duplicates},
          {"consumers", std::move(readers)}};
}

std::string to_json_text(const scheduler::dead_letter_view& view) {
  const runtime::dead_letter& letter = view.letter;
  std::string text = to_text(json{{"id", letter.id},
                                  {"kind", view.kind},
                                  {"pipeline", letter.pipeline},
                                  {"consumer", letter.consumer},
                                  {"step", letter.step},
                                  {"reason", letter.reason},
                                  {"attempts", letter.attempts},
                                  {"at", format_time(letter.at)},
                                  {"events", view.events}});
  text.back() = ',';
  text += "\"event\":";
  if (view.kind == "run") return text + "null}";
  runtime::batch memory;  // gives the payload the padding that reading it needs
  const runtime::event event = memory.copy({.id = letter.event_id,
                                            .source = letter.source,
                                            .type = letter.type,
                                            .subject = letter.subject,
                                            .datacontenttype = letter.datacontenttype,
                                            .key = letter.key,
                                            .data = letter.data,
                                            .topic = letter.topic,
                                            .fault = {},
                                            .time = letter.event_time,
                                            .position = letter.position});
  runtime::append_cloudevent(text, event);
  text += '}';
  return text;
}

std::string list_text(const std::vector<std::string>& items, const std::string& next_cursor) {
  std::string text = "{\"items\":[";
  for (const std::string& item : items) {
    if (text.back() != '[') text += ',';
    text += item;
  }
  text += "],\"next_cursor\":";
  text += next_cursor.empty() ? "null" : '"' + next_cursor + '"';
  return text + "}\n";
}

}  // namespace penstock::api
