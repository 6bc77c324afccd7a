// Pipelines and their flows: register, read, pause, remove.
#include <algorithm>
#include <charconv>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/admission.hpp"
#include "api/gzip.hpp"
#include "api/conditional.hpp"
#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/media.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "config/in_quotes.hpp"
#include "scheduler/plan.hpp"

namespace penstock::api {

namespace {

// What the body is. A type that says nothing (absent, curl's form type) is decided by the first character.
result<std::string_view> definition_type(const request& r) {
  const std::string type = bare_type(r.header_value("content-type"));
  if (is_yaml(type)) return yaml_type;
  if (type == json_type || type == "text/json") return json_type;
  if (!says_nothing(type)) {
    return error{errc::unsupported_media, "content type " + config::in_quotes(type) +
                                              " is not read here; known: application/yaml, application/json"};
  }
  const std::size_t first = r.body.find_first_not_of(" \t\r\n");
  return first != std::string::npos && r.body[first] == '{' ? json_type : yaml_type;
}

std::optional<std::int64_t> positive_number(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = failure == std::errc() && end == text.data() + text.size();
  return whole && number > 0 ? std::optional(number) : std::nullopt;
}

bool prefers_yaml(const request& r) {
  const std::string_view offers[] = {json_type, yaml_type, text_type};
  return best_offer(r.header_list("accept"), offers) == yaml_type;
}

// A definition that was written as JSON is JSON.
response as_written(const request& r, const scheduler::pipeline_record& record) {
  return unless_known(r, {.content_type = record.media_type == json_type ? json_type : yaml_type, .body = record.text}, record.etag);
}

response pipeline_response(int status, const scheduler::pipeline_view& pipeline) {
  response r{.status = status, .body = to_text(to_json(pipeline)) + "\n"};
  r.headers.emplace_back("ETag", pipeline.record.etag);
  return r;
}

json warnings_of(const scheduler::apply_answer& answer) {
  json all = json::array();
  for (const problem& one : answer.warnings) all.push_back(to_json(one));
  return all;
}

// What became of a definition: the pipeline as it is now, and what the change did.
response applied_response(context& c, const scheduler::apply_answer& answer) {
  const std::string& name = answer.record.name;
  const auto live = c.supervisor.pipeline(name);
  if (!live) return problem_response(live.error());  // removed meanwhile
  json document = to_json(*live);
  document["unchanged"] = answer.unchanged;
  document["changes"] = to_json(answer.changes);
  document["warnings"] = warnings_of(answer);
  response r{.status = answer.created ? 201 : 200, .body = to_text(document) + "\n"};
  r.note = answer.unchanged ? "unchanged" : "revision " + std::to_string(answer.record.revision);
  r.subject = name;
  r.headers.emplace_back("ETag", answer.record.etag);
  if (answer.created) r.headers.emplace_back("Location", "/v1/pipelines/" + percent_encode(name));
  return r;
}

response dry_run_response(const scheduler::apply_answer& answer) {
  json schedules = json::array();
  for (const auto& schedule : answer.planned->schedules) schedules.push_back(to_json(schedule));
  const json document{{"name", answer.record.name},
                      {"dry_run", true},
                      {"created", answer.created},
                      {"unchanged", answer.unchanged},
                      {"changes", to_json(answer.changes)},
                      {"plan", to_json(*answer.planned)},
                      {"diff", answer.planned->diff},
                      {"schedules", std::move(schedules)},
                      {"warnings", warnings_of(answer)}};
  return {.body = to_text(document) + "\n", .note = "dry run", .subject = answer.record.name};
}

asio::awaitable<response> apply(request& r, context& c, scheduler::apply_request wanted) {
  const auto dry_run = read_flag(r, "dry_run");
  if (!dry_run) co_return problem_response(dry_run.error());
  const auto type = definition_type(r);
  if (!type) co_return problem_response(type.error());
  wanted.dry_run = *dry_run;
  wanted.media_type = *type;
  wanted.text = std::move(r.body);
  const auto answer = co_await c.supervisor.apply(std::move(wanted));
  if (!answer) co_return problem_response(answer.error());
  if (*dry_run) co_return dry_run_response(*answer);
  co_return applied_response(c, *answer);
}

asio::awaitable<response> changed_response(context& c, std::string name, result<void> done) {
  if (!done) co_return problem_response(done.error());
  const auto pipeline = c.supervisor.pipeline(name);
  if (!pipeline) co_return problem_response(pipeline.error());
  co_return pipeline_response(200, *pipeline);
}

}  // namespace

asio::awaitable<response> list_pipelines(request& r, context& c) {
  const auto wanted = read_page(r, "pipelines");
  if (!wanted) co_return problem_response(wanted.error());
  auto all = c.supervisor.pipelines();
  std::erase_if(all, [&r](const auto& one) { return !reaches(r, one.record.name); });
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.record.name < b.record.name; });
  json items = json::array();
  std::string next;
  for (const auto& pipeline : all) {
    if (!wanted->after.empty() && pipeline.record.name <= wanted->after) continue;
    if (items.size() == wanted->limit) {
      next = make_cursor("pipelines", items.back()["name"].get<std::string>());
      break;
    }
    items.push_back(to_json(pipeline, false));
  }
  json broken = json::array();
  for (const auto& file : c.supervisor.broken_files()) {
    if (!is_scoped(r)) broken.push_back(to_json(file));  // whose a broken file is, nobody knows
  }
  co_return response{.body = to_text({{"items", std::move(items)},
                                      {"next_cursor", next.empty() ? json(nullptr) : json(next)},
                                      {"broken_files", std::move(broken)}}) +
                             "\n"};
}

asio::awaitable<response> post_pipeline(request& r, context& c) {
  scheduler::apply_request wanted{.must_be_new = true};
  co_return co_await apply(r, c, std::move(wanted));
}

asio::awaitable<response> put_pipeline(request& r, context& c) {
  const std::string& name = r.parameter("name");
  scheduler::apply_request wanted{.name = name, .if_match = plain_etag(r.header_list("if-match"))};
  if (const std::string_view none = r.header_value("if-none-match"); !none.empty()) {
    if (none != "*") co_return problem_response(error{errc::malformed, "If-None-Match takes only * here"});
    // RFC 9110 section 13.1.2: 412 when it exists, where POST answers 409.
    if (c.supervisor.pipeline(name)) {
      co_return problem_response(
          error{errc::precondition_failed, "the pipeline " + config::in_quotes(name) + " exists already"});
    }
    wanted.must_be_new = true;
  }
  co_return co_await apply(r, c, std::move(wanted));
}

asio::awaitable<response> get_pipeline(request& r, context& c) {
  const auto pipeline = c.supervisor.pipeline(r.parameter("name"));
  if (!pipeline) co_return problem_response(pipeline.error());
  response reply = pipeline_response(200, *pipeline);
  if (!prefers_yaml(r)) co_return reply;
  // Only this form is what the ETag names; the others also show what changes all the time, so they are always sent.
  co_return as_written(r, pipeline->record);
}

asio::awaitable<response> list_revisions(request& r, context& c) {
  const auto wanted = read_page(r, "revisions");
  if (!wanted) co_return problem_response(wanted.error());
  const auto all = c.supervisor.revisions(r.parameter("name"));
  if (!all) co_return problem_response(all.error());
  const auto below = wanted->after.empty() ? INT64_MAX : std::strtoll(wanted->after.c_str(), nullptr, 10);
  json items = json::array();
  std::string next;
  for (const auto& record : *all) {
    if (record.revision >= below) continue;
    if (items.size() == wanted->limit) {
      next = make_cursor("revisions", std::to_string(items.back()["revision"].get<std::int64_t>()));
      break;
    }
    items.push_back(to_json(record));
    items.back()["current"] = record.revision == all->front().revision;
  }
  co_return response{.body = to_text({{"items", std::move(items)}, {"next_cursor", next.empty() ? json(nullptr) : json(next)}}) + "\n"};
}

asio::awaitable<response> get_revision(request& r, context& c) {
  const auto number = positive_number(r.parameter("revision"));
  if (!number) co_return problem_response(error{errc::not_found, "a revision is a number, from 1"});
  const auto found = c.supervisor.revision(r.parameter("name"), *number);
  if (!found) co_return problem_response(found.error());
  if (prefers_yaml(r)) co_return as_written(r, *found);
  json document = to_json(*found);
  document["text"] = found->text;
  co_return unless_known(r, {.body = to_text(document) + "\n"}, found->etag);
}

asio::awaitable<response> rollback_pipeline(request& r, context& c) {
  const auto dry_run = read_flag(r, "dry_run");
  if (!dry_run) co_return problem_response(dry_run.error());
  const auto revision = read_integer(r, rules_of("revision"));
  if (!revision) co_return problem_response(revision.error());
  scheduler::rollback_request wanted{.name = r.parameter("name"),
                                     .revision = *revision,
                                     .if_match = plain_etag(r.header_list("if-match")),
                                     .dry_run = *dry_run};
  const auto answer = co_await c.supervisor.rollback(std::move(wanted));
  if (!answer) co_return problem_response(answer.error());
  co_return *dry_run ? dry_run_response(*answer) : applied_response(c, *answer);
}

asio::awaitable<response> delete_pipeline(request& r, context& c) {
  auto if_match = plain_etag(r.header_list("if-match"));
  const auto done = co_await c.supervisor.remove(r.parameter("name"), std::move(if_match));
  if (!done) co_return problem_response(done.error());
  co_return response{.status = 204};
}

asio::awaitable<response> pause_pipeline(request& r, context& c) {
  const auto done = co_await c.supervisor.pause(r.parameter("name"));
  co_return co_await changed_response(c, r.parameter("name"), done);
}

asio::awaitable<response> resume_pipeline(request& r, context& c) {
  const auto done = co_await c.supervisor.resume(r.parameter("name"));
  co_return co_await changed_response(c, r.parameter("name"), done);
}

}  // namespace penstock::api
