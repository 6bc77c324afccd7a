#include "api/openapi.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/json.hpp"
#include "api/media.hpp"
#include "api/query_rules.hpp"
#include "api/schemas.hpp"

namespace penstock::api {

namespace {

struct known_problem {
  int status;
  const char* name;  // of its component
  const char* meaning;
};

constexpr known_problem known_problems[] = {
    {400, "BadRequest", "the request, a parameter or the body is not what it should be"},
    {401, "Unauthorized", "a token or signature is missing or wrong"},
    {403, "Forbidden", "the caller may not do this"},
    {404, "NotFound", "there is no such thing; the nearest name is told"},
    {405, "MethodNotAllowed", "this path takes other methods, which Allow lists"},
    {406, "NotAcceptable", "no form of the answer is what Accept asks for; the forms are told"},
    {408, "RequestTimeout", "the request came too slowly"},
    {409, "Conflict", "it is not in a state in which this can be done"},
    {411, "LengthRequired", "a body is needed, with Content-Length or in chunks"},
    {412, "PreconditionFailed", "If-Match or If-None-Match does not hold"},
    {413, "ContentTooLarge", "the body is larger than the limit"},
    {414, "UriTooLong", "the address is too long"},
    {415, "UnsupportedMediaType", "a body of this type or coding is not read here; what is read is told"},
    {417, "ExpectationFailed", "the only expectation known is 100-continue"},
    {422, "Invalid", "the body is well-formed and says something that cannot be; each fault is listed"},
    {426, "UpgradeRequired", "the WebSocket version is not spoken here"},
    {429, "TooManyRequests", "a limit is reached; Retry-After says when to come again"},
    {431, "HeaderTooLarge", "the header is larger than the limit"},
    {500, "Internal", "it failed inside; the daemon's log says why"},
    {501, "NotSupported", "this transfer coding is not spoken here"},
    {503, "Unavailable", "the daemon starts, stops, has too much to do, or the machine fails (a full disk, say); Retry-After says when to come again"},
    {505, "VersionNotSupported", "HTTP/1.1 and HTTP/1.0 are spoken here"},
};

json reference(const char* kind, std::string_view name) { return {{"$ref", std::string("#/components/") + kind + "/" + std::string(name)}}; }
json schema_named(std::string_view name) { return reference("schemas", name); }

// ---- schemas ----

// {"$extends": NAME, ...}: the members of that one and these, in one closed object. {"$page": NAME}: a page of those.
json resolved(const json& all, const std::string& name) {
  if (!all.contains(name)) throw std::logic_error("schemas.json has no " + name);
  const json& given = all.at(name);
  if (given.contains("$page")) {
    return {{"type", "object"},
            {"additionalProperties", false},
            {"required", {"items", "next_cursor"}},
            {"properties",
             {{"items", {{"type", "array"}, {"items", schema_named(given.at("$page").get<std::string>())}}},
              {"next_cursor", schema_named("NextCursor")}}}};
  }
  if (!given.contains("$extends")) return given;
  json whole = resolved(all, given.at("$extends").get<std::string>());
  for (const json& member : given.at("required")) whole["required"].push_back(member);
  whole["properties"].update(given.at("properties"));
  if (given.contains("description")) whole["description"] = given.at("description");
  return whole;
}

json all_schemas() {
  const json given = json::parse(schemas_json);
  json schemas = json::object();
  for (const auto& [name, _] : given.items()) schemas[name] = resolved(given, name);
  return schemas;
}

void check_schemas(const endpoint_rules& rules, const json& schemas) {
  std::vector<std::string> named{rules.body};
  for (const answer_rules& answer : rules.answers) named.push_back(answer.schema);
  for (const std::string& name : named) {
    if (!name.empty() && !schemas.contains(name)) throw std::logic_error("schemas.json has no " + name + " of " + rules.path);
  }
}

// ---- parameters ----

json schema_of(const parameter_rules& rules) {
  switch (rules.kind) {
    case value_kind::text:
      return {{"type", "string"}};
    case value_kind::flag:
      return {{"type", "boolean"}};
    case value_kind::integer: {
      json schema{{"type", "integer"}, {"format", "int64"}, {"minimum", rules.least}};
      if (rules.most < INT64_MAX) schema["maximum"] = rules.most;
      return schema;
    }
    case value_kind::time:
      return {{"type", "string"}, {"format", "date-time"}};
    case value_kind::duration:
      return {{"type", "string"}, {"pattern", "^([0-9]+(\\.[0-9]+)?(d|h|m|s|ms|us|ns))+$"}, {"examples", {"30s"}}};
    case value_kind::word:
      return {{"type", "string"}, {"enum", rules.known}};
    case value_kind::words:
      return {{"type", "array"}, {"minItems", 1}, {"items", {{"type", "string"}, {"enum", rules.known}}}};
  }
  return json::object();
}

json parameter(const std::string& name, place in, const std::string& path) {
  const parameter_rules* rules = find_rules(name, path, in);
  if (!rules) throw std::logic_error("query_rules.cpp has no " + name + " of " + path);
  json out{{"name", name},
           {"in", in == place::path ? "path" : "query"},
           {"required", in == place::path},
           {"description", rules->meaning},
           {"schema", schema_of(*rules)}};
  if (rules->kind == value_kind::words) {
    out["style"] = "form";
    out["explode"] = false;
  }
  return out;
}

json header_parameter(const std::string& name) {
  static const std::map<std::string, std::string> meanings{
      {"Idempotency-Key", "a name for this request, at most 255 characters: sent again with the same key and body, it is answered with "
                          "the run that it made the first time, also while that request is still being worked on"},
      {"If-Match", "*, or ETags with commas between them: done only when the current one is among them; weak ones never are"},
      {"If-None-Match", "reading: ETags of what the client has, for a 304; writing: *, done only when there is none yet"},
      {"Last-Event-ID", "the id of the last event seen: go on behind it"}};
  return {{"name", name}, {"in", "header"}, {"required", false}, {"description", meanings.at(name)}, {"schema", {{"type", "string"}}}};
}

std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  for (std::size_t at = path.find('{'); at != path.npos; at = path.find('{', at + 1)) {
    std::string name = path.substr(at + 1, path.find('}', at) - at - 1);
    if (name.ends_with("...")) name.resize(name.size() - 3);
    names.push_back(std::move(name));
  }
  return names;
}

json parameters_of(const endpoint_rules& rules) {
  json all = json::array();
  for (const std::string& name : names_in(rules.path)) all.push_back(parameter(name, place::path, rules.path));
  for (const std::string& name : rules.query) all.push_back(parameter(name, place::query, rules.path));
  for (const std::string& name : rules.headers) all.push_back(header_parameter(name));
  return all;
}

// ---- bodies and answers ----

json content_of(const std::vector<std::string_view>& media, const std::string& schema) {
  json content = json::object();
  for (const std::string_view type : media) {
    const bool holds_it = is_json(bare_type(type)) && !schema.empty();
    const json text{{"type", "string"}};
    content[std::string(type.substr(0, type.find(';')))] = {{"schema", holds_it ? schema_named(schema) : text}};
  }
  return content;
}

json body_of(const endpoint_rules& rules) {
  json content;
  if (rules.body == "PipelineDefinition") {
    content = content_of({yaml_type, json_type}, rules.body);
  } else if (rules.body == "Events") {
    content = content_of({json_type, ndjson_type}, rules.body);
    content[std::string(cloudevent_type)] = {{"schema", schema_named("GivenCloudEvent")}};
    content[std::string(cloudevents_batch_type)] = {{"schema", {{"type", "array"}, {"minItems", 1}, {"items", schema_named("GivenCloudEvent")}}}};
  } else if (rules.body == "Delivery") {
    content = {{"*/*", {{"schema", json::object()}}}};
  } else {
    content = content_of({json_type}, rules.body);
  }
  return {{"required", rules.body_required}, {"content", std::move(content)}};
}

json header_references(const std::vector<std::string>& names) {
  json headers = json::object();
  for (const std::string& name : names) headers[name] = reference("headers", name);
  headers["X-Request-Id"] = reference("headers", "X-Request-Id");
  return headers;
}

std::string meaning_of(const answer_rules& answer) {
  switch (answer.status) {
    case 101:
      return "the connection is a WebSocket now";
    case 201:
      return "made";
    case 202:
      return "accepted, and kept";
    case 204:
      return "done";
    case 304:
      return "what the client has is still right";
    default:
      return "done";
  }
}

std::set<int> problems_of(const endpoint_rules& rules) {
  std::set<int> all(rules.problems.begin(), rules.problems.end());
  all.insert({400, 408, 413, 414, 415, 417, 431, 500, 501, 503, 505});
  const bool by_role = rules.needs != access::open && rules.needs != access::signed_body;
  if (rules.needs != access::open) all.insert({401, 403, 429});
  if (by_role) all.insert(406);
  if (rules.path.find('{') != rules.path.npos) all.insert(404);
  if (rules.body_required) all.insert(411);
  if (!rules.body.empty()) all.insert(422);
  return all;
}

json answers_of(const endpoint_rules& rules) {
  json all = json::object();
  for (const answer_rules& answer : rules.answers) {
    json one{{"description", meaning_of(answer)}, {"headers", header_references(answer.headers)}};
    if (!answer.media.empty()) one["content"] = content_of(answer.media, answer.schema);
    all[std::to_string(answer.status)] = std::move(one);
  }
  const std::set<int> statuses = problems_of(rules);
  for (const known_problem& one : known_problems) {
    if (statuses.contains(one.status)) all[std::to_string(one.status)] = reference("responses", one.name);
  }
  return all;
}

json all_problems() {
  json all = json::object();
  for (const known_problem& one : known_problems) {
    std::vector<std::string> headers;
    if (one.status == 429 || one.status == 503) headers = {"Retry-After"};
    if (one.status == 405) headers = {"Allow"};
    if (one.status == 401) headers = {"WWW-Authenticate"};
    all[one.name] = {{"description", one.meaning},
                     {"headers", header_references(headers)},
                     {"content", content_of({problem_type}, "Problem")}};
  }
  return all;
}

json all_headers() {
  const auto header = [](bool always, const char* meaning, json schema) {
    return json{{"description", meaning}, {"required", always}, {"schema", std::move(schema)}};
  };
  const json text{{"type", "string"}};
  return {{"ETag", header(false, "names what is sent, or the revision that it shows", text)},
          {"Location", header(true, "where it is", {{"type", "string"}, {"format", "uri-reference"}})},
          {"Retry-After", header(true, "seconds to wait before trying again", {{"type", "integer"}, {"minimum", 1}})},
          {"Allow", header(true, "the methods of this path", text)},
          {"WWW-Authenticate", header(true, "how to show who one is", text)},
          {"X-Request-Id", header(false, "the client's, or one made here; the log has it", text)}};
}

// ---- operations ----

std::string tag_of(const endpoint_rules& rules) {
  const std::string& path = rules.path;
  if (path.find("/flows/") != path.npos) return "flows";
  if (path.find("/jobs/") != path.npos) return "runs";
  if (path.starts_with("/hooks/")) return "hooks";
  if (path.starts_with("/v1/token") || path.starts_with("/v1/audit")) return "security";
  for (const char* tag : {"pipelines", "runs", "topics", "streams", "dead-letters"}) {
    if (path.starts_with(std::string("/v1/") + tag)) return tag;
  }
  return "operation";
}

json operation_of(const endpoint_rules& rules) {
  json out{{"operationId", rules.operation}, {"tags", {tag_of(rules)}}, {"summary", rules.summary}, {"x-penstock-role", token(rules.needs)}};
  const bool open = rules.needs == access::open || rules.needs == access::signed_body;
  if (open) out["security"] = json::array();
  if (json parameters = parameters_of(rules); !parameters.empty()) out["parameters"] = std::move(parameters);
  if (!rules.body.empty()) out["requestBody"] = body_of(rules);
  out["responses"] = answers_of(rules);
  return out;
}

// Its templates know no rest of a path: a {path...} is {path} there.
std::string openapi_path(std::string path) {
  if (const auto dots = path.find("...}"); dots != path.npos) path.erase(dots, 3);
  return path;
}

}  // namespace

std::string openapi_text(const std::vector<endpoint_rules>& endpoints) {
  const json schemas = all_schemas();
  json paths = json::object();
  for (const endpoint_rules& rules : endpoints) check_schemas(rules, schemas);
  for (const endpoint_rules& rules : endpoints) paths[openapi_path(rules.path)][lower(token(rules.method))] = operation_of(rules);
  const json document{
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "Penstock"},
        {"version", PENSTOCK_VERSION},
        {"summary", "real-time flows and batch jobs in one daemon"},
        {"description", "HEAD is answered wherever GET is. Every refusal is a problem document (RFC 9457)."},
        {"license", {{"name", "Apache 2.0"}, {"identifier", "Apache-2.0"}}}}},
      {"servers", {{{"url", "/"}}}},
      {"security", {{{"bearer", json::array()}}}},
      {"paths", std::move(paths)},
      {"components",
       {{"schemas", schemas},
        {"responses", all_problems()},
        {"headers", all_headers()},
        {"securitySchemes",
         {{"bearer",
           {{"type", "http"},
            {"scheme", "bearer"},
            {"description", "a token whose role includes the x-penstock-role of the operation; not asked for where the daemon listens on "
                            "the loopback interface only and has none"}}}}}}}};
  return to_text(document) + "\n";
}

}  // namespace penstock::api
