// The rules of a definition that span several values and so stand in no field record: what a flow, job or
// task is made of, the order of tasks, pools, alerts; and, each in its own file, commands, triggers, bounds,
// parameters and what expressions speak of. Reads the document itself, so it finds its problems even when the records found others.
// Pure, any thread (the time zone list is read from the system once).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/field.hpp"
#include "config/place.hpp"

namespace penstock::config {

void check_pipeline(const place& document, const catalog& components, problem_list& problems);

// What a step is called when the writer gave no name: its component and its 1-based position, "filter_1".
std::string default_step_name(std::string_view component, std::size_t index);

// "load" or "orders.load"; `pipeline` is empty when none is named.
struct job_reference {
  std::string pipeline, job;
};
job_reference parse_job_reference(std::string_view text);

// Who waits for whom, by name; names that are no keys count for nothing.
using waits_for = std::map<std::string, std::vector<std::string>>;
// Every group of names that wait for each other, as a path that ends where it begins (a, b, a).
std::vector<std::vector<std::string>> find_cycles(const waits_for& graph);

// The names that a group of things wait for, and where each is written.
struct dependencies {
  waits_for graph;
  std::map<std::pair<std::string, std::string>, problem> written_at;

  void add(const std::string& waiter, const std::string& need, const place& where);
};

// One problem for each cycle: `what` and the way around it.
void report_cycles(const dependencies& all, const std::string& what, problem_list& problems);

}  // namespace penstock::config
