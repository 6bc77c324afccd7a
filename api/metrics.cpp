#include "api/metrics.hpp"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

namespace penstock::api {

namespace {

void append_escaped(std::string& out, std::string_view value) {
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
}

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
}

using count_of_flow = std::int64_t scheduler::flow_view::*;

struct flow_metric {
  std::string_view name, help;
  count_of_flow value;
};

constexpr flow_metric flow_counts[] = {
    {"penstock_flow_events_received_total", "Events a flow has taken in.", &scheduler::flow_view::received},
    {"penstock_flow_events_emitted_total", "Events a flow has delivered.", &scheduler::flow_view::emitted},
    {"penstock_flow_events_filtered_total", "Events a flow's steps have dropped.",
     &scheduler::flow_view::filtered},
    {"penstock_flow_events_dead_total", "Events of a flow that became dead letters.",
     &scheduler::flow_view::dead},
    {"penstock_flow_events_duplicates_total", "Events a flow has recognised as seen before.",
     &scheduler::flow_view::duplicates},
    {"penstock_flow_events_late_total", "Events that came too late for what a step of a flow works out.",
     &scheduler::flow_view::late},
    {"penstock_flow_redeliveries_total", "Further attempts of a flow at a sink that had not taken a batch.",
     &scheduler::flow_view::redelivered},
};

struct step_metric {
  std::string_view name, help;
  std::int64_t scheduler::step_view::*value;
};

constexpr step_metric step_counts[] = {
    {"penstock_step_events_received_total", "Events that came to a step.", &scheduler::step_view::received},
    {"penstock_step_events_emitted_total", "Events that a step passed on.", &scheduler::step_view::emitted},
    {"penstock_step_events_filtered_total", "Events that a step dropped.", &scheduler::step_view::filtered},
    {"penstock_step_events_dead_total", "Events that became dead letters in a step.", &scheduler::step_view::dead},
};

// Calls `then` with the labels of each step.
template <class Then>
void for_each_step(const std::vector<scheduler::pipeline_view>& pipelines, Then then) {
  for (const auto& p : pipelines) {
    for (const auto& f : p.flows) {
      for (const auto& step : f.steps) then(metrics_text::labels{{"pipeline", p.record.name}, {"flow", f.name}, {"step", step.name}}, step);
    }
  }
}

void add_steps(metrics_text& out, const std::vector<scheduler::pipeline_view>& pipelines) {
  for (const step_metric& metric : step_counts) {
    out.begin(metric.name, "counter", metric.help);
    for_each_step(pipelines, [&](const metrics_text::labels& of, const scheduler::step_view& step) { out.sample(of, step.*metric.value); });
  }
  out.begin("penstock_step_busy_seconds_total", "counter", "How long a step has worked.");
  for_each_step(pipelines, [&](const metrics_text::labels& of, const scheduler::step_view& step) {
    out.sample(of, std::chrono::duration<double>(step.busy).count());
  });
}

void add_flows(metrics_text& out, const std::vector<scheduler::pipeline_view>& pipelines) {
  for (const flow_metric& metric : flow_counts) {
    out.begin(metric.name, "counter", metric.help);
    for (const auto& p : pipelines) {
      for (const auto& f : p.flows)
        out.sample({{"pipeline", p.record.name}, {"flow", f.name}}, f.*metric.value);
    }
  }
  out.begin("penstock_flow_restarts_total", "counter", "Restarts of a flow after a failure.");
  for (const auto& p : pipelines) {
    for (const auto& f : p.flows) {
      out.sample({{"pipeline", p.record.name}, {"flow", f.name}}, std::int64_t{f.restarts});
    }
  }
  out.begin("penstock_flow_state", "gauge", "1 for the state that a flow is in.");
  for (const auto& p : pipelines) {
    for (const auto& f : p.flows) {
      out.sample({{"pipeline", p.record.name}, {"flow", f.name}, {"state", token(f.state)}}, std::int64_t{1});
    }
  }
  out.begin("penstock_flow_troubled", "gauge", "1 while a flow that runs cannot reach what it reads or writes.");
  for (const auto& p : pipelines) {
    for (const auto& f : p.flows) {
      const bool troubled = f.state == scheduler::flow_state::running && !f.reason.empty();
      out.sample({{"pipeline", p.record.name}, {"flow", f.name}}, std::int64_t{troubled});
    }
  }
}

void add_jobs(metrics_text& out, const std::vector<scheduler::pipeline_view>& pipelines) {
  out.begin("penstock_job_runs", "gauge", "Runs of a job that are kept, by state.");
  for (const auto& p : pipelines) {
    for (const auto& j : p.jobs) {
      for (const auto& [state, n] : j.runs) {
        out.sample({{"pipeline", p.record.name}, {"job", j.name}, {"state", state}}, n);
      }
    }
  }
  out.begin("penstock_job_runs_queued", "gauge", "Runs of a job that wait.");
  for (const auto& p : pipelines) {
    for (const auto& j : p.jobs) out.sample({{"pipeline", p.record.name}, {"job", j.name}}, j.queued);
  }
  out.begin("penstock_job_runs_running", "gauge", "Runs of a job that are executed or will be tried again.");
  for (const auto& p : pipelines) {
    for (const auto& j : p.jobs) out.sample({{"pipeline", p.record.name}, {"job", j.name}}, j.running);
  }
}

void add_ended_runs(metrics_text& out, const std::vector<scheduler::pipeline_view>& pipelines) {
  out.begin("penstock_job_runs_ended_total", "counter", "Runs of a job that have ended since the daemon started, by state.");
  for (const auto& p : pipelines) {
    for (const auto& j : p.jobs) {
      for (const auto& [state, n] : j.since_start.ended) {
        out.sample({{"pipeline", p.record.name}, {"job", j.name}, {"state", token(state)}}, n);
      }
    }
  }
  const auto times = [&](std::string_view name, std::string_view help, std::chrono::microseconds scheduler::run_tally::*time) {
    out.begin(name, "summary", help);
    for (const auto& p : pipelines) {
      for (const auto& j : p.jobs) {
        if (j.since_start.started == 0) continue;
        out.sum({{"pipeline", p.record.name}, {"job", j.name}}, std::chrono::duration<double>(j.since_start.*time).count(),
                j.since_start.started);
      }
    }
  };
  times("penstock_job_run_wait_seconds", "From a run's being made to its first start.", &scheduler::run_tally::waited);
  times("penstock_job_run_seconds", "From a run's first start to its end.", &scheduler::run_tally::lasted);
}

using figure_of_topic = std::int64_t runtime::topic_status::*;

struct topic_metric {
  std::string_view name, type, help;
  figure_of_topic value;
};

constexpr topic_metric topic_values[] = {
    {"penstock_topic_events", "gauge", "Events kept in a topic.", &runtime::topic_status::events},
    {"penstock_topic_last_offset", "gauge", "Offset of a topic's newest event.",
     &runtime::topic_status::last_offset},
    {"penstock_topic_size_bytes", "gauge", "Size of a topic on disk.", &runtime::topic_status::bytes},
    {"penstock_topic_duplicates_total", "counter", "Events refused by a topic's dedupe rule.",
     &runtime::topic_status::duplicates},
};

void add_topics(metrics_text& out, const std::vector<topic_figures>& topics) {
  for (const topic_metric& metric : topic_values) {
    out.begin(metric.name, metric.type, metric.help);
    for (const auto& t : topics) out.sample({{"topic", t.status.name}}, t.status.*metric.value);
  }
  out.begin("penstock_topic_consumer_lag", "gauge", "Events that a consumer of a topic has not read yet.");
  for (const auto& t : topics) {
    for (const auto& c : t.consumers) out.sample({{"topic", t.status.name}, {"consumer", c.consumer}}, c.lag);
  }
}

void add_http(metrics_text& out, const figures& all) {
  out.begin("penstock_http_requests_total", "counter", "Requests answered, by route and status.");
  for (const request_count& r : all.requests) {
    out.sample({{"method", token(r.method)}, {"route", r.path}, {"status", std::to_string(r.status)}},
               r.requests);
  }
  out.begin("penstock_http_connections", "gauge", "Connections open now.");
  out.sample({}, all.connections);
  out.begin("penstock_http_connections_refused_total", "counter", "Connections beyond the limit.");
  out.sample({}, all.refused_connections);
}

void add_process(metrics_text& out, const process_figures& p) {
  out.begin("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
  out.sample({}, p.resident_bytes);
  out.begin("process_open_fds", "gauge", "Number of open file descriptors.");
  out.sample({}, p.open_fds);
  out.begin("process_threads", "gauge", "Number of threads.");
  out.sample({}, p.threads);
  out.begin("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
  out.sample({}, p.cpu_seconds);
  out.begin("process_start_time_seconds", "gauge", "When the daemon was started, in seconds since 1970.");
  out.sample({}, std::chrono::duration<double>(p.started_at.time_since_epoch()).count());
}

}  // namespace

void metrics_text::begin(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  head_ = fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

void metrics_text::start_sample(labels with, std::string_view suffix) {
  text_ += std::exchange(head_, {});
  text_.append(name_).append(suffix);
  char open = '{';
  for (const auto& [name, value] : with) {
    text_ += open;
    text_.append(name).append("=\"");
    append_escaped(text_, value);
    text_ += '"';
    open = ',';
  }
  if (open == ',') text_ += '}';
  text_ += ' ';
}

void metrics_text::sample(labels with, std::int64_t value) {
  start_sample(with);
  text_.append(std::to_string(value)).append("\n");
}

void metrics_text::sample(labels with, double value) {
  start_sample(with);
  text_.append(fmt::format("{}", value)).append("\n");
}

void metrics_text::sum(labels with, double sum, std::int64_t count) {
  start_sample(with, "_sum");
  text_.append(fmt::format("{}", sum)).append("\n");
  start_sample(with, "_count");
  text_.append(std::to_string(count)).append("\n");
}

process_figures read_process() {
  process_figures out;
  std::ifstream memory("/proc/self/statm");
  std::int64_t total_pages = 0, resident_pages = 0;
  memory >> total_pages >> resident_pages;
  out.resident_bytes = resident_pages * ::sysconf(_SC_PAGESIZE);
  std::error_code ignored;
  const auto entries = [&](const char* folder) {
    const std::filesystem::directory_iterator begin(folder, ignored);
    return static_cast<std::int64_t>(std::distance(begin, std::filesystem::directory_iterator{}));
  };
  out.open_fds = entries("/proc/self/fd") - 1;  // but for the one that reads the folder
  out.threads = entries("/proc/self/task");
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  out.cpu_seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  return out;
}

std::string to_metrics(const figures& all) {
  metrics_text out;
  out.begin("penstock_build_info", "gauge", "1, labelled with the version of this daemon.");
  out.sample({{"version", PENSTOCK_VERSION}}, std::int64_t{1});
  out.begin("penstock_pipelines", "gauge", "Registered pipelines.");
  out.sample({}, static_cast<std::int64_t>(all.pipelines.size()));
  out.begin("penstock_broken_files", "gauge", "Definition files that could not be applied.");
  out.sample({}, all.broken_files);
  add_flows(out, all.pipelines);
  add_steps(out, all.pipelines);
  add_jobs(out, all.pipelines);
  add_ended_runs(out, all.pipelines);
  add_topics(out, all.topics);
  out.begin("penstock_dead_letters", "gauge", "Dead letters that wait to be replayed or discarded.");
  out.sample({}, all.dead_letters);
  add_http(out, all);
  add_process(out, all.process);
  return out.take();
}

}  // namespace penstock::api
