// Domain to JSON and JSON text to values: the shape of every document that REST shows. Pure, any thread.
//
// Names are snake_case, times RFC 3339 with microseconds, and what is absent is null, so that a reader finds
// every member always. Events are not here: their text is made without a document (runtime/json.hpp).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "config/diff.hpp"
#include "config/error.hpp"
#include "config/time.hpp"
#include "runtime/topic.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::scheduler {
struct planned_schedule;
}

namespace penstock::api {

using json = nlohmann::ordered_json;

json text_or_null(const std::string& text);  // null when it is empty
json time_or_null(const std::optional<timestamp>& time);

// Bytes that are not UTF-8 (a program's output may be anything) are replaced by U+FFFD.
std::string to_text(const json& document);

// A whole document. errc::malformed with line and column of the first wrong byte, or when it nests deeper
// than 64.
result<json> parse_json(std::string_view text);

json to_json(const scheduler::run_record& run, bool with_tasks = true);
json to_json(const std::vector<scheduler::timeline_entry>& timeline);
json to_json(const scheduler::backfill_answer& answer);
// One entry of `errors` or `warnings`: pointer, line and column where they are known, detail.
json to_json(const problem& p);
json to_json(const scheduler::step_view& step);
json to_json(const scheduler::flow_view& flow);
json to_json(const scheduler::job_view& job);
json to_json(const scheduler::pipeline_view& pipeline, bool with_definition = true);
json to_json(const scheduler::broken_file& file);
// A revision, without its text.
json to_json(const scheduler::pipeline_record& revision);
json to_json(const config::pipeline_diff& diff);
// Of a dry run (plan_json.cpp).
json to_json(const scheduler::plan& plan);
json to_json(const scheduler::planned_schedule& schedule);
json to_json(const scheduler::backup_view& backup);
json to_json(const runtime::topic_status& status, const std::vector<scheduler::consumer_view>& consumers);

// Text, not a document: an event's payload is shown byte for byte.
std::string to_json_text(const scheduler::dead_letter_view& letter);

// {"items": [...], "next_cursor": "..." or null}, from items that are JSON text already.
std::string list_text(const std::vector<std::string>& items, const std::string& next_cursor);

}  // namespace penstock::api
