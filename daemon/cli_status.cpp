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

std::string counted(std::int64_t count, const std::string& one, const std::string& more) {
  return std::to_string(count) + " " + (count == 1 ? one : more);
}

// What somebody has to look after, in words. A paused pipeline and a flow whose input has ended are as somebody wants them.
document troubles_of(const document& all) {
  document troubles = document::array();
  if (!all["ready"]) troubles.push_back("the daemon is not ready: " + word(all, "reason"));
  for (const document& file : all["broken_files"]) troubles.push_back("the definition in " + word(file, "file") + " is broken");
  for (const document& pipeline : all["pipelines"]) {
    for (const document& flow : member_of(pipeline, "flows")) {
      const std::string state = word(flow, "state"), reason = word(flow, "reason");
      const bool by_hand = state == "stopped" && reason == "-" && member_of(pipeline, "paused") != true;
      const bool kept_from = state == "running" && reason != "-";
      if (state != "failed" && state != "backing_off" && !by_hand && !kept_from) continue;
      troubles.push_back("flow " + word(pipeline, "name") + "/" + word(flow, "name") + (kept_from ? " does not get on" : " is " + state) +
                         (by_hand ? " since " + to_the_second(word(flow, "since")) + ", until it is started" : ": " + reason));
    }
    for (const document& job : member_of(pipeline, "jobs")) {
      for (const document& trouble : member_of(job, "troubles"))
        troubles.push_back("job " + word(pipeline, "name") + "/" + word(job, "name") + ", trigger " + trouble.get<std::string>());
    }
  }
  for (const auto& [name, count] : all["dead_letters"]["by_pipeline"].items()) {
    troubles.push_back(counted(count.get<std::int64_t>(), "dead letter", "dead letters") + " of " + name +
                       (all["dead_letters"]["more"] == true ? ", and more" : ""));
  }
  return troubles;
}

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
  all["troubles"] = troubles_of(all);
  return all;
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
    if (!options.watch) return all["troubles"].empty() ? exit_ok : exit_no;
    if (!pause_for(std::chrono::milliseconds(static_cast<std::int64_t>(options.every * 1000)))) throw interruption();
  }
}

}  // namespace penstock::cli
