// The verbs about pipelines and their flows: get, delete, pause, resume, rollback, flows, flow, tap, changes.
#include <unistd.h>

#include <functional>
#include <iostream>
#include <utility>

#include <nlohmann/json.hpp>

#include "daemon/cli_ask.hpp"

namespace penstock::cli {
namespace {

// The definition as written. The daemon is asked for YAML; a definition that was given in JSON comes as that.
int show_text(const surroundings& with, const std::string& path) {
  const answer said = with.daemon.send({.path = path, .headers = {"Accept: application/yaml"}});
  if (!said.ok()) return refused(with, said);
  with.out << said.body;
  if (!said.body.ends_with('\n')) with.out << '\n';
  return exit_ok;
}

std::string flow_path(const std::string& pipeline, const std::string& flow) {
  return pipeline_path(pipeline) + "/flows/" + encode(flow);
}

// Only a person at a terminal is asked.
bool confirmed(const surroundings& with, const std::string& name) {
  if (::isatty(STDIN_FILENO) != 1) {
    throw usage_error("deleting " + name + " takes its flows, its jobs and the topics that only it declares away; say --yes");
  }
  with.err << "Delete pipeline " << name << ", with the topics that only it declares and what they hold? [y/N] " << std::flush;
  std::string reply;
  std::getline(std::cin, reply);
  return reply == "y" || reply == "Y" || reply == "yes";
}

// Shows what is followed, until `limit` events have come (0: without end). `other`: hears of what is no event, by its name.
int follow_up_to(const surroundings& with, const std::string& path, const char* what, std::int64_t limit,
                 const std::function<void(std::string_view)>& other) {
  std::int64_t shown = 0;
  try {
    return follow_stream(with, path, what, [&](std::string_view event, std::string_view data) {
      if (!event.empty()) return other(event);
      with.out << data << '\n';
      if (limit > 0 && ++shown >= limit) throw enough();
    });
  } catch (const enough&) {
    with.out.flush();
    return exit_ok;
  }
}

int follow_events(const surroundings& with, const events_options& which) {
  const std::string path = "/v1/topics/" + encode(which.topic) + "/events" + query({{"after", which.after}, {"follow", "true"}});
  return follow_up_to(with, path, "the stream of events", which.limit, [](std::string_view) {});
}

}  // namespace

int get_pipelines(const surroundings& with) {
  return guarded(with, [&] {
    const document list = ask_all(with, "/v1/pipelines");
    with.json ? print_json(with.out, list) : show_pipelines(with.out, list);
    return exit_ok;
  });
}

int get_pipeline(const surroundings& with, const std::string& name, const std::string& format) {
  if (format == "yaml") return show_text(with, pipeline_path(name));
  return guarded(with, [&] {
    const document pipeline = ask(with, {.path = pipeline_path(name)});
    with.json || format == "json" ? print_json(with.out, pipeline) : show_pipeline(with.out, pipeline);
    return exit_ok;
  });
}

int get_revisions(const surroundings& with, const std::string& name, int number) {
  if (number > 0) {
    const std::string path = pipeline_path(name) + "/revisions/" + std::to_string(number);
    if (!with.json) return show_text(with, path);
    return guarded(with, [&] {
      print_json(with.out, ask(with, {.path = path}));
      return exit_ok;
    });
  }
  return guarded(with, [&] {
    const document list = ask_all(with, pipeline_path(name) + "/revisions");
    with.json ? print_json(with.out, list) : show_revisions(with.out, list);
    return exit_ok;
  });
}

int delete_pipeline(const surroundings& with, const std::string& name, bool yes) {
  return guarded(with, [&] {
    const document pipeline = ask(with, {.path = pipeline_path(name)});
    if (!yes && !confirmed(with, name)) {
      with.err << "nothing was deleted\n";
      return exit_no;
    }
    // What was looked at, and nothing that came after it.
    ask(with, {.method = "DELETE", .path = pipeline_path(name), .headers = {"If-Match: " + word(pipeline, "etag")}});
    if (!with.json) with.out << name << ": deleted\n";
    return exit_ok;
  });
}

int pause_or_resume(const surroundings& with, const std::string& name, bool pause) {
  return guarded(with, [&] {
    const document pipeline = ask(with, {.method = "POST", .path = pipeline_path(name) + (pause ? "/pause" : "/resume")});
    if (with.json) {
      print_json(with.out, pipeline);
    } else {
      with.out << name << (pause ? ": paused\n" : ": goes on\n");
    }
    return exit_ok;
  });
}

int rollback(const surroundings& with, const std::string& name, int revision, bool dry_run) {
  return guarded(with, [&] {
    const std::string path = pipeline_path(name) + "/rollback" +
                             query({{"revision", revision > 0 ? std::to_string(revision) : ""}, {"dry_run", dry_run ? "true" : ""}});
    const document said = ask(with, {.method = "POST", .path = path});
    if (with.json) {
      print_json(with.out, said);
    } else if (dry_run) {
      show_plan(with.out, said, 0);
    } else {
      show_applied(with.out, said, false, false);
    }
    return exit_ok;
  });
}

int flows(const surroundings& with, const std::string& pipeline) {
  return guarded(with, [&] {
    document list;
    if (pipeline.empty()) {
      list = ask_all(with, "/v1/pipelines");
    } else {
      list = {{"items", document::array({ask(with, {.path = pipeline_path(pipeline)})})}};
    }
    if (!with.json) {
      show_flows(with.out, list);
      return exit_ok;
    }
    document all = document::array();
    for (const document& one : list["items"]) {
      for (document flow : one.value("flows", document::array())) {
        flow["pipeline"] = one["name"];
        all.push_back(std::move(flow));
      }
    }
    print_json(with.out, {{"items", std::move(all)}});
    return exit_ok;
  });
}

int flow_verb(const surroundings& with, const flow_options& which) {
  return guarded(with, [&] {
    const bool look = which.verb == "show";
    const document flow = ask(with, {.method = look ? "GET" : "POST",
                                     .path = flow_path(which.pipeline, which.flow) + (look ? "" : "/" + which.verb) +
                                             (which.emit ? "?emit=true" : "")});
    with.json ? print_json(with.out, flow) : show_flow(with.out, flow);
    return exit_ok;
  });
}

int tap(const surroundings& with, const tap_options& which) {
  int lost_at = 0;
  const std::string path = flow_path(which.pipeline, which.flow) + "/tap" +
                           query({{"after", which.after}, {"where", which.where}, {"rate", which.rate > 0 ? std::to_string(which.rate) : ""}});
  return follow_up_to(with, path, "the tap", which.limit, [&](std::string_view event) {
    if (event == "lost" && lost_at++ == 0) with.err << "penstock: more events than are shown pass here; see --rate\n";
  });
}

int changes(const surroundings& with, const changes_options& which) {
  const std::string path =
      "/v1/changes" + query({{"pipeline", which.pipeline}, {"kind", which.kind}, {"after", which.after}});
  int shown = 0;
  try {
    if (!which.pipeline.empty()) ask(with, {.path = pipeline_path(which.pipeline)});  // of one that is not there none would come
    return follow_stream(with, path, "the stream of changes", [&](std::string_view event, std::string_view data) {
      if (event == "gap") {
        with.err << "penstock: some changes are missing here: " << reason_in(data) << '\n';
        return;
      }
      if (with.json) {
        with.out << data << '\n';
      } else {
        const document one = document::parse(data, nullptr, false);
        if (one.is_object()) show_change(with.out, one);
      }
      with.out.flush();
      if (which.limit > 0 && ++shown >= which.limit) throw enough();
    });
  } catch (const enough&) {
    return exit_ok;
  } catch (const refusal& no) {
    return refused(with, no.said);
  }
}

int get_events(const surroundings& with, const events_options& which) {
  if (which.follow) return follow_events(with, which);
  constexpr int usual_page = 100;
  return guarded(with, [&] {
    const int limit = which.limit > 0 ? which.limit : usual_page;
    const document page = ask(with, {.path = "/v1/topics/" + encode(which.topic) + "/events" +
                                             query({{"after", which.after}, {"limit", std::to_string(limit)}})});
    std::string last;
    for (const document& event : items_of(page)) {
      with.out << event.dump(-1, ' ', false, document::error_handler_t::replace) << '\n';
      last = word(event, "offset");
    }
    if (word(page, "next_cursor") != "-") with.err << "(there are more: --limit, or --after " << last << ")\n";
    return exit_ok;
  });
}

}  // namespace penstock::cli
