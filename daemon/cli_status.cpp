// penstock status: all that an operator looks at first, on one screen. Made of five REST calls.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>

#include "daemon/cli_ask.hpp"

namespace penstock::cli {
namespace {

// What the daemon says, all in one document: what --json prints.
document look(const surroundings& with) {
  const answer ready = with.daemon.send({.path = "/readyz"});
  document all{{"url", with.daemon.base()}, {"ready", ready.ok()}};
  if (!ready.ok()) {
    const document body = document::parse(ready.body, nullptr, false);
    all["reason"] = body.is_object() ? body.value("detail", document()) : document();
  }
  const document pipelines = ask_all(with, "/v1/pipelines");
  all["pipelines"] = pipelines["items"];
  all["broken_files"] = pipelines.value("broken_files", document::array());
  all["runs"] = ask(with, {.path = "/v1/runs?state=queued,running,retrying&limit=1000"})["items"];
  all["topics"] = ask_all(with, "/v1/topics")["items"];
  const document letters = ask(with, {.path = "/v1/dead-letters?limit=1000"});
  std::map<std::string, std::int64_t> dead;
  for (const document& one : letters["items"]) ++dead[word(one, "pipeline")];
  all["dead_letters"] = {{"by_pipeline", dead}, {"more", word(letters, "next_cursor") != "-"}};
  return all;
}

// Does anybody have to look after something?
bool is_well(const document& all) {
  if (!all["ready"] || !all["broken_files"].empty()) return false;
  for (const document& pipeline : all["pipelines"]) {
    for (const document& flow : pipeline.value("flows", document::array())) {
      const std::string state = word(flow, "state");
      if (state == "failed" || state == "backing_off") return false;
    }
  }
  return true;
}

}  // namespace

int status(const surroundings& with, const status_options& options) {
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  for (bool first = true;; first = false) {
    document all;
    try {
      all = look(with);
    } catch (const refusal& no) {
      return refused(with, no.said);
    }
    std::ostringstream screen;
    with.json ? print_json(screen, all) : show_status(screen, all);
    if (options.watch && terminal) with.out << "\033[H\033[2J";
    if (options.watch && !terminal && !first && !with.json) with.out << '\n';
    with.out << screen.str() << std::flush;
    if (!options.watch) return is_well(all) ? exit_ok : exit_no;
    if (!pause_for(std::chrono::milliseconds(static_cast<std::int64_t>(options.every * 1000)))) throw interruption();
  }
}

}  // namespace penstock::cli
