// Runs: trigger, list, read, cancel, try again, logs.
#include <algorithm>
#include <iterator>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/admission.hpp"
#include "api/event_body.hpp"
#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/log_stream.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "api/run_end.hpp"
#include "config/in_quotes.hpp"
#include "runtime/sha256.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::api {

namespace {

constexpr std::size_t longest_key = 255;

// So that a key that comes again with other content is noticed.
std::string fingerprint_of(std::string_view body) {
  const auto digest = runtime::sha256(body);
  return base64url(runtime::bytes_of(digest));
}

scheduler::trace_context trace_of(const request& r) {
  return scheduler::read_trace_context(r.header_value("traceparent"), r.header_value("tracestate"));
}

// The same text in quotes (a structured field, as the draft of the header has it) is the same key. An empty one is a mistake of
// whoever believes to be safe (a script's variable that is not set); of two it is not known which is meant. Empty: there is none.
result<std::string> read_key(const request& r) {
  const auto is_key = [](const header& h) { return same_letters(h.name, "idempotency-key"); };
  const auto first = std::find_if(r.headers.begin(), r.headers.end(), is_key);
  if (first == r.headers.end()) return std::string();
  if (std::any_of(std::next(first), r.headers.end(), is_key)) return error{errc::malformed, "there is more than one Idempotency-Key"};
  std::string_view key = first->value;
  if (key.size() >= 2 && key.front() == '"' && key.back() == '"') key = key.substr(1, key.size() - 2);
  if (key.empty()) return error{errc::malformed, "Idempotency-Key is empty"};
  if (key.size() > longest_key) return error{errc::malformed, "Idempotency-Key has more than 255 characters"};
  return std::string(key);
}

response run_response(int status, const scheduler::run_record& run, const std::vector<scheduler::timeline_entry>& timeline) {
  json document = to_json(run);
  document["timeline"] = to_json(timeline);
  response r{.status = status, .body = to_text(document) + "\n"};
  if (status == 202) r.headers.emplace_back("Location", "/v1/runs/" + run.id);
  return r;
}

// Returns when the run has ended, `limit` is over, the client has left, or the server stops.
asio::awaitable<void> wait_for_end(request& r, context& c, std::string run, std::chrono::nanoseconds limit) {
  const auto wake = std::make_shared<runtime::wakeup>(c.control);
  const run_end end(c, std::move(run), limit, wake);
  r.interrupted.listen([wake] { wake->notify(); });
  while (!end.over() && !r.interrupted.raised()) co_await wake->wait();
}

// The run that a trigger or retry made, after the `wait` that was asked for: 200 when it has ended within,
// else 202.
asio::awaitable<response> made_run(request& r, context& c, scheduler::trigger_answer made,
                                   std::optional<std::chrono::nanoseconds> wait) {
  if (wait) co_await wait_for_end(r, c, made.run_id, *wait);
  const auto run = c.supervisor.run(made.run_id);
  if (!run) co_return problem_response(run.error());
  if (wait || made.timeline.empty()) made.timeline = c.supervisor.timeline(made.run_id);
  auto reply = run_response(wait && scheduler::is_final(run->state) ? 200 : 202, *run, made.timeline);
  reply.note = "run " + made.run_id;
  co_return reply;
}

result<std::vector<scheduler::run_state>> read_states(const request& r) {
  const auto words = read_words(r, rules_of("state"));
  if (!words) return words.error();
  std::vector<scheduler::run_state> states;
  for (const std::string& word : *words) states.push_back(scheduler::parse_run_state(word).value());
  return states;
}

result<scheduler::run_filter> read_filter(const request& r) {
  const auto wanted = read_page(r, "runs");
  if (!wanted) return wanted.error();
  auto states = read_states(r);
  if (!states) return states.error();
  const auto since = read_time(r, "since");
  if (!since) return since.error();
  const auto until = read_time(r, "until");
  if (!until) return until.error();
  return scheduler::run_filter{.pipeline = std::string(r.query_value("pipeline").value_or("")),
                               .job = std::string(r.query_value("job").value_or("")),
                               .states = std::move(*states),
                               .since = *since,
                               .until = *until,
                               .before_id = wanted->after,
                               .limit = wanted->limit};
}

result<timestamp> time_member(const json& body, const char* name) {
  const auto found = body.find(name);
  const auto at = found != body.end() && found->is_string() ? parse_time(found->get<std::string>()) : std::nullopt;
  if (at) return *at;
  return error{errc::invalid, std::string(name) + " must be an RFC 3339 time, e.g. 2026-11-01T00:00:00Z",
               {{std::string("/") + name, 0, 0, "must be an RFC 3339 time"}}};
}

// {"from": …, "to": …, "params": {…}, "again": false}
result<scheduler::backfill_request> read_backfill(std::string_view text) {
  const auto body = parse_json(text);
  if (!body) return body.error();
  if (!body->is_object()) return error{errc::malformed, "the body must be an object with from and to"};
  const std::vector<std::string> known{"from", "to", "params", "again"};
  for (const auto& [name, value] : body->items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    return error{errc::invalid, config::in_quotes(name) + " is not known here; " + config::suggestion(name, known)};
  }
  const auto from = time_member(*body, "from");
  if (!from) return from.error();
  const auto until = time_member(*body, "to");
  if (!until) return until.error();
  if (*from >= *until) return error{errc::invalid, "from must be before to"};
  const auto again = body->find("again");
  if (again != body->end() && !again->is_boolean()) return error{errc::invalid, "again must be true or false"};
  scheduler::backfill_request wanted{.from = *from, .until = *until};
  wanted.again = again != body->end() && again->get<bool>();
  if (const auto params = body->find("params"); params != body->end()) wanted.params = to_text(*params);
  return wanted;
}

std::vector<std::string> task_names(const scheduler::run_record& run) {
  std::vector<std::string> names;
  for (const auto& task : run.tasks) names.push_back(task.name);
  return names;
}

// Of a caller that is limited to some pipelines: theirs, merged, newest first.
std::vector<scheduler::run_record> visible_runs(const request& r, context& c, scheduler::run_filter filter) {
  if (!is_scoped(r)) return c.supervisor.runs(filter);
  std::vector<scheduler::run_record> all;
  const std::string wanted = filter.pipeline;
  for (const std::string& name : scope_of(r)) {
    if (!wanted.empty() && wanted != name) continue;
    filter.pipeline = name;
    auto some = c.supervisor.runs(filter);
    all.insert(all.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.id > b.id; });
  if (all.size() > filter.limit) all.resize(filter.limit);
  return all;
}

}  // namespace

asio::awaitable<response> trigger_run(request& r, context& c) {
  const auto wait = read_duration(r, "wait", most_wait);
  if (!wait) co_return problem_response(wait.error());
  const auto key = read_key(r);
  if (!key) co_return problem_response(key.error());
  const runtime::buffer body(std::move(r.body));
  auto wanted = read_trigger(body, wall_now());
  if (!wanted) co_return problem_response(wanted.error());
  wanted->trace = trace_of(r);
  wanted->idempotency_key = *key;
  if (!key->empty()) wanted->fingerprint = fingerprint_of(body.text());
  const auto made =
      co_await c.supervisor.trigger(r.parameter("name"), r.parameter("job"), std::move(*wanted));
  if (!made) co_return problem_response(made.error());
  co_return co_await made_run(r, c, *made, *wait);
}

asio::awaitable<response> list_runs(request& r, context& c) {
  auto filter = read_filter(r);
  if (!filter) co_return problem_response(filter.error());
  const std::size_t limit = filter->limit++;  // one more tells whether there is a next page
  auto runs = visible_runs(r, c, *filter);
  const bool more = runs.size() > limit;
  if (more) runs.resize(limit);
  json items = json::array();
  for (const auto& run : runs) items.push_back(to_json(run, false));
  const json next = more ? json(make_cursor("runs", runs.back().id)) : json(nullptr);
  co_return response{.body = to_text({{"items", std::move(items)}, {"next_cursor", next}}) + "\n"};
}

asio::awaitable<response> get_run(request& r, context& c) {
  const std::string& id = r.parameter("id");
  const auto wait = read_duration(r, "wait", most_wait);
  if (!wait) co_return problem_response(wait.error());
  auto run = c.supervisor.run(id);
  if (run && *wait && !scheduler::is_final(run->state)) {
    co_await wait_for_end(r, c, id, **wait);
    run = c.supervisor.run(id);
  }
  if (!run) co_return problem_response(run.error());
  co_return run_response(200, *run, c.supervisor.timeline(id));
}

asio::awaitable<response> cancel_run(request& r, context& c) {
  const std::string& id = r.parameter("id");
  const auto done = co_await c.supervisor.cancel(id);
  if (!done) co_return problem_response(done.error());
  const auto run = c.supervisor.run(id);
  if (!run) co_return problem_response(run.error());
  co_return run_response(202, *run, c.supervisor.timeline(id));
}

asio::awaitable<response> retry_run(request& r, context& c) {
  const auto wait = read_duration(r, "wait", most_wait);
  if (!wait) co_return problem_response(wait.error());
  const auto from = read_word(r, rules_of("from"));
  if (!from) co_return problem_response(from.error());
  const auto key = read_key(r);
  if (!key) co_return problem_response(key.error());
  const auto trace = trace_of(r);
  const auto made = co_await c.supervisor.retry(r.parameter("id"), *from == "start", trace, *key);
  if (!made) co_return problem_response(made.error());
  co_return co_await made_run(r, c, *made, *wait);
}

asio::awaitable<response> backfill_job(request& r, context& c) {
  const auto dry_run = read_flag(r, "dry_run");
  if (!dry_run) co_return problem_response(dry_run.error());
  auto wanted = read_backfill(r.body);
  if (!wanted) co_return problem_response(wanted.error());
  wanted->dry_run = *dry_run;
  const auto answer = co_await c.supervisor.backfill(r.parameter("name"), r.parameter("job"), std::move(*wanted));
  if (!answer) co_return problem_response(answer.error());
  co_return response{.status = *dry_run ? 200 : 202, .body = to_text(to_json(*answer)) + "\n"};
}

asio::awaitable<response> get_run_logs(request& r, context& c) {
  const auto follow = read_flag(r, "follow");
  if (!follow) co_return problem_response(follow.error());
  const auto timestamps = read_flag(r, "timestamps");
  if (!timestamps) co_return problem_response(timestamps.error());
  const auto run = c.supervisor.run(r.parameter("id"));
  if (!run) co_return problem_response(run.error());
  std::vector<std::string> tasks = task_names(*run);
  if (const auto task = r.query_value("task")) {
    if (std::find(tasks.begin(), tasks.end(), *task) == tasks.end()) {
      co_return problem_response(error{errc::not_found, "the run has no task " + config::in_quotes(*task) +
                                                            "; " + config::suggestion(*task, tasks)});
    }
    tasks = {std::string(*task)};
  }
  const log_stream::options how{.follow = *follow && !scheduler::is_final(run->state),
                                .timestamps = *timestamps};
  response reply{.content_type = "text/plain; charset=utf-8"};
  reply.stream = std::make_unique<log_stream>(c, run->id, tasks, how, r.interrupted);
  co_return reply;
}

}  // namespace penstock::api
