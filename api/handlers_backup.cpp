// Backups of the data folder: make one, watch it, cancel it.
#include <chrono>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "api/query_rules.hpp"
#include "config/in_quotes.hpp"
#include "runtime/wakeup.hpp"

namespace penstock::api {

namespace {

error wrong_member(const std::string& name, const std::string& why) {
  return {errc::invalid, name + " " + why, {{"/" + name, 0, 0, why}}};
}

// {"to": "/absolute/new/folder", "logs": false}
result<scheduler::backup_request> read_backup(std::string_view text) {
  const auto body = parse_json(text);
  if (!body) return body.error();
  if (!body->is_object() || !body->contains("to")) {
    return error{errc::invalid, "the body must be {\"to\": \"/absolute/new/folder\"}"};
  }
  scheduler::backup_request wanted;
  for (const auto& [key, value] : body->items()) {
    if (key == "to" && value.is_string() && value.get_ref<const std::string&>().find('\0') == std::string::npos) {
      wanted.to = value.get<std::string>();
    } else if (key == "logs" && value.is_boolean()) {
      wanted.logs = value.get<bool>();
    } else if (key == "to") {
      return wrong_member("to", "must be the absolute path of a folder that does not exist yet");
    } else if (key == "logs") {
      return wrong_member("logs", "must be true or false");
    } else {
      return error{errc::invalid, config::in_quotes(key) + " is not known here; there are to and logs"};
    }
  }
  return wanted;
}

response view_response(const scheduler::backup_view& view, int running_status) {
  const bool running = view.state == scheduler::backup_state::running;
  response r{.status = running ? running_status : 200, .body = to_text(to_json(view)) + "\n"};
  if (running && running_status == 202) r.headers.emplace_back("Location", "/v1/backup");
  return r;
}

// Returns when none is being made, `limit` is over, the client has left, or the server stops.
asio::awaitable<void> wait_for_backup(request& r, context& c, std::chrono::nanoseconds limit) {
  const auto wake = std::make_shared<runtime::wakeup>(c.control);
  c.supervisor.follow_backup(wake);
  r.interrupted.listen([wake] { wake->notify(); });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(limit);
  while (c.supervisor.backup().state == scheduler::backup_state::running && !r.interrupted.raised()) {
    if (!co_await wake->wait_until(deadline)) break;
  }
}

}  // namespace

asio::awaitable<response> post_backup(request& r, context& c) {
  const auto wait = read_duration(r, "wait", most_wait);
  if (!wait) co_return problem_response(wait.error());
  auto wanted = read_backup(r.body);
  if (!wanted) co_return problem_response(wanted.error());
  const auto started = c.supervisor.start_backup(std::move(*wanted));
  if (!started) co_return problem_response(started.error());
  if (*wait) co_await wait_for_backup(r, c, **wait);
  co_return view_response(c.supervisor.backup(), 202);
}

asio::awaitable<response> get_backup(request& r, context& c) {
  const auto wait = read_duration(r, "wait", most_wait);
  if (!wait) co_return problem_response(wait.error());
  if (*wait) co_await wait_for_backup(r, c, **wait);
  co_return view_response(c.supervisor.backup(), 200);
}

asio::awaitable<response> cancel_backup(request& r, context& c) {
  const auto done = c.supervisor.cancel_backup();
  if (!done) co_return problem_response(done.error());
  co_await wait_for_backup(r, c, most_wait);
  co_return view_response(c.supervisor.backup(), 200);
}

}  // namespace penstock::api
