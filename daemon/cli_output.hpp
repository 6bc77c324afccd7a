// What the daemon answers, as text for people. Pure functions of the REST documents; main thread.
// A field that is missing or null shows as "-", so an older or newer daemon never makes the client fail.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "config/error.hpp"
#include "daemon/cli_client.hpp"

namespace penstock::cli {

using document = nlohmann::ordered_json;

void show_runs(std::ostream& out, const document& list);
void show_run(std::ostream& out, const document& run);
void show_topics(std::ostream& out, const document& list);
void show_topic(std::ostream& out, const document& topic);
void show_dead_letters(std::ostream& out, const document& list);
// What PUT /v1/pipelines/NAME answered: revision, and what it changed or would change.
void show_applied(std::ostream& out, const document& applied, bool created, bool dry_run);

// A refusal (problem+json, RFC 9457): its detail, or one line for each error with its position. `file`:
// where the positions point to; empty: the request's body.
void show_problem(std::ostream& out, const answer& refusal, const std::string& file);

// What is wrong with a definition: a line for each problem, with its position.
void show_error(std::ostream& out, const error& wrong, const std::string& file);
// The same for scripts: [{pointer, line, column, detail}].
document as_json(const std::vector<problem>& problems);
document as_json(const error& wrong);

void show_pipelines(std::ostream& out, const document& list);
void show_pipeline(std::ostream& out, const document& pipeline);
void show_revisions(std::ostream& out, const document& list);
void show_flow(std::ostream& out, const document& flow);

// In cli_output_pipelines.cpp.
void show_flows(std::ostream& out, const document& pipelines);  // of a list of pipelines
void show_change(std::ostream& out, const document& change);  // one line
// The document that status() has put together.
void show_status(std::ostream& out, const document& all);
// What a dry run answered; `firings`: how many of each schedule.
void show_plan(std::ostream& out, const document& plan, int firings);

// The items of a list, and a member; an empty one and null when it is missing.
const document& items_of(const document& list);
const document& member_of(const document& object, const char* name);
// 2018-02-07T00:00:00.123456Z as 2018-02-07T00:00:00Z: enough for a table.
std::string to_the_second(std::string time);

// A member as one word: strings as they are, numbers and booleans in JSON, "-" when it is missing, null or
// empty.
std::string word(const document& object, const char* member);

}  // namespace penstock::cli
