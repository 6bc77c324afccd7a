// What REST shows as JSON, as text for a terminal: a table for a list, labelled lines and tables for one thing. Used by the server
// for Accept: text/plain and by the operator's client. Pure, any thread.
//
// Each takes the JSON document of its resource as json.hpp makes it. Absent values show as -; times in lists go to the second.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace penstock::api {

using shown_json = nlohmann::ordered_json;

// How the rest of a list is asked for: in the query of a URL, or with options of the client.
enum class asked_by { query, option };

std::string pipelines_text(const shown_json& list);
std::string pipeline_text(const shown_json& pipeline);
std::string revisions_text(const shown_json& list);
std::string flow_text(const shown_json& flow);
std::string runs_text(const shown_json& list);
std::string runs_text(const shown_json& list, asked_by whom);
std::string run_text(const shown_json& run);
std::string topics_text(const shown_json& list);
std::string topic_text(const shown_json& topic);
std::string streams_text(const shown_json& list);
std::string dead_letters_text(const shown_json& list);
std::string dead_letters_text(const shown_json& list, asked_by whom);
std::string tokens_text(const shown_json& list);
std::string audit_text(const shown_json& list);

// "3 running, 1 failed" of the flows of a pipeline.
std::string flow_states(const shown_json& flows);
std::string audit_text(const shown_json& list, asked_by whom);

}  // namespace penstock::api
