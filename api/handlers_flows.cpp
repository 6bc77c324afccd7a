// One flow: what it does now, its start and stop, and taps on what passes through it.
#include <utility>

#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "api/tap_stream.hpp"
#include "config/field.hpp"
#include "runtime/lua.hpp"

namespace penstock::api {

namespace {

constexpr std::int64_t usual_rate = 100;  // samples a second

// The flow as it is after a change, or what went wrong.
response flow_response(request& r, context& c, const result<void>& done) {
  if (!done) return problem_response(done.error());
  const auto flow = c.supervisor.flow(r.parameter("name"), r.parameter("flow"));
  if (!flow) return problem_response(flow.error());
  return {.body = to_text(to_json(*flow)) + "\n"};
}

}  // namespace

asio::awaitable<response> get_flow(request& r, context& c) { co_return flow_response(r, c, result<void>{}); }

asio::awaitable<response> start_flow(request& r, context& c) {
  const auto done = co_await c.supervisor.start_flow(r.parameter("name"), r.parameter("flow"));
  co_return flow_response(r, c, done);
}

asio::awaitable<response> stop_flow(request& r, context& c) {
  const auto emit = read_flag(r, "emit");
  if (!emit) co_return problem_response(emit.error());
  const auto done = co_await c.supervisor.stop_flow(r.parameter("name"), r.parameter("flow"), *emit);
  co_return flow_response(r, c, done);
}

asio::awaitable<response> restart_flow(request& r, context& c) {
  const auto done = co_await c.supervisor.restart_flow(r.parameter("name"), r.parameter("flow"));
  co_return flow_response(r, c, done);
}

asio::awaitable<response> tap_flow(request& r, context& c) {
  runtime::tap_options options;
  options.after = r.query_value("after").value_or("to");
  options.where = r.query_value("where").value_or("");
  const auto rate = read_integer(r, rules_of("rate"));
  if (!rate) co_return problem_response(rate.error());
  options.rate = rate->value_or(usual_rate);
  if (!options.where.empty()) {
    if (const auto wrong = runtime::check_lua(options.where, false)) {
      co_return problem_response(error{errc::malformed, "query parameter where: " + *wrong});
    }
  }
  auto tap = c.supervisor.listen(r.parameter("name"), r.parameter("flow"), std::move(options));
  if (!tap) co_return problem_response(tap.error());
  response reply{.content_type = "text/event-stream"};
  reply.headers.emplace_back("Cache-Control", "no-store");
  reply.stream = std::make_unique<tap_stream>(std::move(*tap), r.interrupted);
  co_return reply;
}

}  // namespace penstock::api
