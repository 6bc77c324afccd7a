// Prometheus text exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats). Pure, any
// thread, but for read_process.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/server.hpp"
#include "runtime/topic.hpp"
#include "scheduler/supervisor.hpp"

namespace penstock::api {

// Builds the text: begin() a metric, then its samples, metric by metric. One without samples leaves nothing.
class metrics_text {
 public:
  using labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  void begin(std::string_view name, std::string_view type, std::string_view help);
  void sample(labels with, std::int64_t value);
  void sample(labels with, double value);
  // A summary without quantiles.
  void sum(labels with, double sum, std::int64_t count);
  std::string take() { return std::move(text_); }

 private:
  void start_sample(labels with, std::string_view suffix = {});
  std::string text_;
  std::string name_;
  std::string head_;  // HELP and TYPE, until the first sample
};

struct process_figures {
  std::int64_t resident_bytes = 0;
  std::int64_t open_fds = 0;
  std::int64_t threads = 0;
  double cpu_seconds = 0;
  timestamp started_at{};
};

// Of this process, from /proc; all but started_at.
process_figures read_process();

struct topic_figures {
  runtime::topic_status status;
  std::vector<scheduler::consumer_view> consumers;
};

struct figures {
  std::vector<scheduler::pipeline_view> pipelines;
  std::vector<topic_figures> topics;
  std::int64_t dead_letters = 0;
  std::int64_t broken_files = 0;
  std::vector<request_count> requests;
  std::int64_t connections = 0;
  std::int64_t refused_connections = 0;
  process_figures process;
};

std::string to_metrics(const figures& all);

}  // namespace penstock::api
