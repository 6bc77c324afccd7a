// The verbs about dead letters: list, replay, discard.
#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "daemon/cli_ask.hpp"

namespace penstock::cli {
namespace {

constexpr std::size_t at_once = 100;  // ids in one request, where the progress is shown

// The body of a replay or discard: these, all of a pipeline, or all.
document selection(const settle_options& which) {
  if (!which.ids.empty()) return {{"ids", which.ids}};
  if (!which.pipeline.empty()) return {{"pipeline", which.pipeline}};
  return {{"all", true}};
}

std::string settle_path(settle how) { return how == settle::replay ? "/v1/dead-letters/replay" : "/v1/dead-letters/discard"; }

// Some at a time, those that are there now, so that the bar moves. Returns what the daemon would have answered to one
// request for all.
document settle_in_portions(const surroundings& with, settle how, const settle_options& which, progress_bar& bar) {
  std::vector<std::string> ids = which.ids;
  if (ids.empty()) {
    const document list = ask_all(with, "/v1/dead-letters", {{"pipeline", which.pipeline}});
    for (const document& letter : items_of(list)) ids.push_back(word(letter, "id"));
  }
  std::int64_t done = 0, dead_again = 0;
  document failed = document::array();
  const auto count = [](std::size_t n) { return static_cast<std::int64_t>(n); };
  for (std::size_t at = 0; at < ids.size(); at += at_once) {
    bar.show(count(at), count(ids.size()), std::to_string(at) + " of " + std::to_string(ids.size()));
    const auto first = ids.begin() + static_cast<std::ptrdiff_t>(at);
    const std::vector<std::string> some(first, first + static_cast<std::ptrdiff_t>(std::min(at_once, ids.size() - at)));
    const document said = ask(with, post_json(settle_path(how), {{"ids", some}}));
    done += said.value("done", std::int64_t{0});
    dead_again += said.value("dead_again", std::int64_t{0});
    for (const document& reason : said.value("failed", document::array())) failed.push_back(reason);
  }
  return {{"done", done}, {"failed", failed}, {"dead_again", dead_again}};
}

// A pipeline of which nothing is listed may not be there at all: then the refusal says so.
void check_pipeline(const surroundings& with, const std::string& name) {
  if (!name.empty()) ask(with, {.path = pipeline_path(name)});
}

}  // namespace

int dead_letters(const surroundings& with, const std::string& pipeline, int limit, const std::string& cursor) {
  return guarded(with, [&] {
    const document list =
        ask(with,
            {.path = "/v1/dead-letters" + query({{"pipeline", pipeline}, {"cursor", cursor}, {"limit", std::to_string(limit)}})});
    if (list["items"].empty()) check_pipeline(with, pipeline);
    with.json ? print_json(with.out, list) : show_dead_letters(with.out, list);
    return exit_ok;
  });
}

int settle_dead_letters(const surroundings& with, settle how, const settle_options& which) {
  const bool replay = how == settle::replay;
  return guarded(with, [&] {
    document body;
    {
      progress_bar bar(with, replay ? "replaying" : "discarding");
      body = bar.shown() ? settle_in_portions(with, how, which, bar) : ask(with, post_json(settle_path(how), selection(which)));
    }
    if (word(body, "done") == "0" && which.ids.empty()) check_pipeline(with, which.pipeline);
    const auto failed = body.find("failed");
    const std::int64_t dead_again = body.value("dead_again", std::int64_t{0});
    const bool all_done = failed == body.end() || !failed->is_array() || failed->empty();
    if (with.json) {
      print_json(with.out, body);
    } else {
      with.out << word(body, "done") << (replay ? " replayed" : " discarded");
      if (dead_again > 0) with.out << ", " << dead_again << " of them failed again and are dead letters anew";
      with.out << '\n';
      if (!all_done) {
        for (const document& reason : *failed) {
          with.err << (reason.is_string() ? reason.get<std::string>() : reason.dump()) << '\n';
        }
      }
    }
    return all_done && dead_again == 0 ? exit_ok : exit_no;
  });
}

}  // namespace penstock::cli
