// Dead letters: what failed and why; again, or away.
#include <algorithm>
#include <iterator>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/admission.hpp"
#include "api/handlers.hpp"
#include "api/json.hpp"
#include "api/parameters.hpp"
#include "api/problem.hpp"
#include "config/in_quotes.hpp"

namespace penstock::api {

namespace {

constexpr std::size_t ids_at_once = 1000;

// Which dead letters a request means: by id, all of a pipeline, or all.
struct selection {
  std::vector<std::string> ids{};
  std::string pipeline{};
  bool all = false;
};

error wrong_selection(const std::string& why) {
  return {errc::invalid, why + "; send {\"ids\": [...]}, {\"pipeline\": \"NAME\"} or {\"all\": true}"};
}

result<selection> read_selection(std::string_view body) {
  const auto document = parse_json(body);
  if (!document) return document.error();
  if (!document->is_object() || document->size() != 1) return wrong_selection("exactly one choice is needed");
  const std::string& key = document->begin().key();
  const json& value = document->begin().value();
  selection out;
  if (key == "ids" && value.is_array()) {
    for (const json& id : value) {
      if (!id.is_string()) return wrong_selection("an id is a string");
      out.ids.push_back(id.get<std::string>());
    }
    return out;
  }
  if (key == "pipeline" && value.is_string()) {
    out.pipeline = value.get<std::string>();
    if (out.pipeline.empty()) return wrong_selection("the pipeline's name is empty");
    return out;
  }
  if (key == "all" && value == true) {
    out.all = true;
    return out;
  }
  return wrong_selection(config::in_quotes(key) + " is not a choice, or has a wrong value");
}

// Of all pipelines, of one, or of a caller's: merged, oldest first.
std::vector<scheduler::dead_letter_view> visible_letters(const request& r, context& c, const std::string& pipeline,
                                                         const std::string& after, std::size_t limit) {
  if (!is_scoped(r)) return c.supervisor.dead_letters(pipeline, after, limit);
  std::vector<scheduler::dead_letter_view> all;
  for (const std::string& name : scope_of(r)) {
    if (!pipeline.empty() && pipeline != name) continue;
    auto some = c.supervisor.dead_letters(name, after, limit);
    all.insert(all.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.letter.id < b.letter.id; });
  if (all.size() > limit) all.resize(limit);
  return all;
}

std::vector<std::string> all_ids(const request& r, context& c, const std::string& pipeline) {
  std::vector<std::string> ids;
  for (;;) {
    const auto letters = visible_letters(r, c, pipeline, ids.empty() ? "" : ids.back(), ids_at_once);
    for (const auto& l : letters) ids.push_back(l.letter.id);
    if (letters.size() < ids_at_once) return ids;
  }
}

// The ids as they are now: what a replay fails with again is a new dead letter and not tried twice. not_found: one of them is
// out of the caller's reach.
result<std::vector<std::string>> chosen_ids(const request& r, context& c, selection from) {
  if (from.all || !from.pipeline.empty()) return all_ids(r, c, from.pipeline);
  if (!is_scoped(r)) return std::move(from.ids);
  const auto own = all_ids(r, c, "");
  for (const std::string& id : from.ids) {
    if (!std::binary_search(own.begin(), own.end(), id)) return error{errc::not_found, "no dead letter " + config::in_quotes(id)};
  }
  return std::move(from.ids);
}

using settle = asio::awaitable<result<scheduler::settled>> (scheduler::supervisor::*)(
    std::vector<std::string>);

asio::awaitable<response> settle_chosen(request& r, context& c, settle how) {
  auto chosen = read_selection(r.body);
  if (!chosen) co_return problem_response(chosen.error());
  auto ids = chosen_ids(r, c, std::move(*chosen));
  if (!ids) co_return problem_response(ids.error());
  const auto done = co_await (c.supervisor.*how)(std::move(*ids));
  if (!done) co_return problem_response(done.error());
  response reply{.body = to_text({{"done", done->done}, {"failed", done->failed}, {"dead_again", done->dead_again}}) + "\n"};
  reply.note = std::to_string(done->done) + " done, " + std::to_string(done->failed.size()) + " failed" +
               (done->dead_again > 0 ? ", " + std::to_string(done->dead_again) + " are dead letters again" : "");
  co_return reply;
}

}  // namespace

asio::awaitable<response> list_dead_letters(request& r, context& c) {
  const auto wanted = read_page(r, "dead-letters");
  if (!wanted) co_return problem_response(wanted.error());
  const std::string pipeline(r.query_value("pipeline").value_or(""));
  auto letters = visible_letters(r, c, pipeline, wanted->after, wanted->limit + 1);
  const bool more = letters.size() > wanted->limit;
  if (more) letters.resize(wanted->limit);
  std::vector<std::string> items;
  for (const auto& l : letters) items.push_back(to_json_text(l));
  co_return response{.body =
                         list_text(items, more ? make_cursor("dead-letters", letters.back().letter.id) : "")};
}

asio::awaitable<response> replay_dead_letters(request& r, context& c) {
  co_return co_await settle_chosen(r, c, &scheduler::supervisor::replay_dead_letters);
}

asio::awaitable<response> discard_dead_letters(request& r, context& c) {
  co_return co_await settle_chosen(r, c, &scheduler::supervisor::discard_dead_letters);
}

}  // namespace penstock::api
