#include "daemon/cli_ask.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include <nlohmann/json.hpp>

namespace penstock::cli {
namespace {

// Server-sent events out of pieces of text (WHATWG HTML, "event stream"): only what the daemon sends.
class event_reader {
 public:
  explicit event_reader(const std::function<void(std::string_view, std::string_view)>& take) : take_(take) {}

  void feed(std::string_view piece) {
    for (const char c : piece) {
      if (c == '\n') {
        line();
        line_.clear();
      } else {
        line_ += c;
      }
    }
  }

 private:
  void line() {
    if (line_.empty()) {
      if (data_) take_(event_, *data_);
      event_.clear();
      data_.reset();
    } else if (line_.starts_with("event: ")) {
      event_ = line_.substr(7);
    } else if (line_.starts_with("data: ")) {
      data_ = data_ ? *data_ + "\n" + line_.substr(6) : line_.substr(6);
    }
  }

  const std::function<void(std::string_view, std::string_view)>& take_;
  std::string line_, event_;
  std::optional<std::string> data_;
};

constexpr int bar_width = 30;

}  // namespace

document parse_answer(const answer& said) {
  document body = document::parse(said.body, nullptr, false);
  if (body.is_discarded()) throw unreachable("what answers there is no Penstock daemon: the answer is not JSON: " + said.body.substr(0, 200));
  return body;
}

std::string reason_of(const answer& refusal) {
  const document body = document::parse(refusal.body, nullptr, false);
  const std::string detail = body.is_object() ? word(body, "detail") : "-";
  return detail == "-" ? "HTTP status " + std::to_string(refusal.status) : detail;
}

document ask(const surroundings& with, const request& what) {
  answer said = with.daemon.send(what);
  if (!said.ok()) throw refusal{std::move(said)};
  return said.body.empty() ? document::object() : parse_answer(said);
}

document ask_all(const surroundings& with, const std::string& path, std::vector<std::pair<std::string, std::string>> parameters) {
  parameters.emplace_back("limit", "1000");
  document all = ask(with, {.path = path + query(parameters)});
  std::string cursor = word(all, "next_cursor");
  parameters.emplace_back("cursor", "");
  while (cursor != "-") {
    parameters.back().second = cursor;
    document page = ask(with, {.path = path + query(parameters)});
    for (document& item : page["items"]) all["items"].push_back(std::move(item));
    cursor = word(page, "next_cursor");
  }
  all["next_cursor"] = nullptr;
  return all;
}

int refused(const surroundings& with, const answer& said, const std::string& file) {
  if (with.json) {
    with.out << said.body << '\n';
  } else {
    show_problem(with.err, said, file);
  }
  return exit_refused;
}

void print_json(std::ostream& out, const document& body) { out << body.dump(2) << '\n'; }

std::string pipeline_path(const std::string& name) { return "/v1/pipelines/" + encode(name); }

std::string run_path(const std::string& id) { return "/v1/runs/" + encode(id); }

request post_json(std::string path, const document& body) {
  return {.method = "POST", .path = std::move(path), .body = body.dump(), .headers = {"Content-Type: application/json"}};
}

refusal not_found(const std::string& detail) {
  const document problem{{"type", "/problems/not_found"}, {"title", "Not found"}, {"status", 404}, {"detail", detail}};
  return {{.status = 404, .content_type = "application/problem+json", .body = problem.dump()}};
}

std::string reason_in(std::string_view data) {
  const document said = document::parse(data, nullptr, false);
  return said.is_object() ? word(said, "reason") : std::string(data);
}

int follow_stream(const surroundings& with, const std::string& path, const std::string& what,
                  const std::function<void(std::string_view, std::string_view)>& take) {
  std::string why = "the daemon has stopped";  // one that says nothing more
  bool gone = true;
  const std::function<void(std::string_view, std::string_view)> watch = [&](std::string_view event, std::string_view data) {
    if (event != "end") return take(event, data);
    why = reason_in(data);
    gone = why == "the daemon stops";
  };
  event_reader reader(watch);
  const answer said = with.daemon.stream({.path = path, .headers = {"Accept: text/event-stream"}}, [&](std::string_view piece) {
    reader.feed(piece);
    with.out.flush();
  });
  if (!said.ok()) return refused(with, said);
  with.err << "penstock: " << what << " has ended: " << why << '\n';
  return gone ? exit_unreachable : exit_no;
}

bool pause_for(std::chrono::milliseconds time) {
  ::poll(nullptr, 0, static_cast<int>(time.count()));
  return !client::interrupted();
}

progress_bar::progress_bar(const surroundings& with, std::string what)
    : err_(with.err), what_(std::move(what)), shown_(!with.json && ::isatty(STDERR_FILENO) == 1) {}

progress_bar::~progress_bar() {
  if (shown_) err_ << "\r\033[K" << std::flush;
}

void progress_bar::show(std::int64_t done, std::int64_t all, const std::string& figures) {
  if (!shown_) return;
  const double part = all > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(all), 0.0, 1.0) : 0.0;
  const int filled = static_cast<int>(part * bar_width);
  const std::string head = filled > 0 && filled < bar_width ? ">" : "";
  const std::string bar = std::string(static_cast<std::size_t>(std::max(0, filled - (head.empty() ? 0 : 1))), '=') + head;
  err_ << "\r\033[K" << what_ << "  [" << bar << std::string(static_cast<std::size_t>(bar_width) - bar.size(), ' ') << "]  " << figures
       << std::flush;
}

}  // namespace penstock::cli
