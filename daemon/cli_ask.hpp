// What the verbs of the client share: asking the daemon, and what becomes of a refusal or of Ctrl-C. Main thread.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "daemon/cli_commands.hpp"
#include "daemon/cli_output.hpp"

namespace penstock::cli {

// Thrown by ask(): what the daemon refused, to be shown by refused().
struct refusal {
  answer said;
};

document parse_answer(const answer& said);
// The detail of a refusal; its status when it has none.
std::string reason_of(const answer& refusal);
// The body of the answer; throws refusal.
document ask(const surroundings& with, const request& what);
// Every item of a paged list, as {"items": [...]} with what else its first page has.
document ask_all(const surroundings& with, const std::string& path, std::vector<std::pair<std::string, std::string>> parameters = {});
// Shows it and returns the exit code. `file`: where positions in it point to.
int refused(const surroundings& with, const answer& said, const std::string& file = {});

// Runs a command's body; a refusal in it becomes its text and exit code.
template <class Body>
int guarded(const surroundings& with, Body body, const std::string& file = {}) {
  try {
    return body();
  } catch (const refusal& no) {
    return refused(with, no.said, file);
  }
}

// As the daemon refuses a name that it does not know.
refusal not_found(const std::string& detail);

void print_json(std::ostream& out, const document& body);

std::string pipeline_path(const std::string& name);
std::string run_path(const std::string& id);
request post_json(std::string path, const document& body);

// Hands over the data of each server-sent event (and its name, "" when it has none) until the stream ends, which nobody has
// asked for: then it says why. exit_unreachable: the daemon stops or is gone; exit_no: what was followed is. `what`: "the tap".
int follow_stream(const surroundings& with, const std::string& path, const std::string& what,
                  const std::function<void(std::string_view event, std::string_view data)>& take);
// The reason in the data of an event about the stream itself.
std::string reason_in(std::string_view data);

// Waits; false: Ctrl-C was pressed meanwhile.
bool pause_for(std::chrono::milliseconds time);

// A line on the terminal that is written over: "replaying  [=====>    ]  1200 of 4000". Nothing at all when stderr is no
// terminal, or with --json.
class progress_bar {
 public:
  progress_bar(const surroundings& with, std::string what);
  ~progress_bar();  // wipes the line
  progress_bar(const progress_bar&) = delete;
  progress_bar& operator=(const progress_bar&) = delete;
  // `figures`: what stands behind the bar.
  void show(std::int64_t done, std::int64_t all, const std::string& figures);
  bool shown() const { return shown_; }

 private:
  std::ostream& err_;
  const std::string what_;
  const bool shown_;
};

}  // namespace penstock::cli
