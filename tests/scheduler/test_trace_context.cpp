#include <catch2/catch.hpp>

#include "runtime/ulid.hpp"
#include "scheduler/model.hpp"
#include "scheduler/trace_context.hpp"

using namespace penstock;
using namespace penstock::scheduler;

namespace {

constexpr auto parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";  // the standard's own example

run_record run_with(trace_context trace) {
  run_record run;
  run.id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  run.attempt = 1;
  run.trace = std::move(trace);
  return run;
}

}  // namespace

TEST_CASE("only what the standard calls a traceparent is one", "[trace]") {
  CHECK(read_trace_context(parent, "").traceparent == parent);
  // A later version may have more behind what is known.
  CHECK(read_trace_context("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", "").traceparent == parent);
  CHECK(read_trace_context("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "").traceparent == parent);
  for (const char* bad : {
           "", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
           "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
           "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
           "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
           "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
       }) {
    INFO(bad);
    CHECK(read_trace_context(bad, "a=b") == trace_context{});
  }
}

TEST_CASE("tracestate is handed on as it is, or not at all", "[trace]") {
  CHECK(read_trace_context(parent, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE").tracestate == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
  CHECK(read_trace_context(parent, std::string(longest_tracestate, 'a')).tracestate.size() == longest_tracestate);
  CHECK(read_trace_context(parent, std::string(longest_tracestate + 1, 'a')) == trace_context{parent, ""});
  CHECK(read_trace_context(parent, "a=\x01") == trace_context{parent, ""});
}

TEST_CASE("a run without a trace begins one that is named after it", "[trace]") {
  const run_record run = run_with({});
  CHECK(runtime::ulid_as_hex(run.id) == "01563e3ab5d3d6764c61efb99302bd5b");  // its UUID form
  CHECK(trace_id(run) == "01563e3ab5d3d6764c61efb99302bd5b");
  CHECK(runtime::ulid_as_hex("no ulid") == std::string(32, '0'));
  const std::string of_task = traceparent_of_task(run, "main");
  CHECK(read_trace_context(of_task, "").traceparent == of_task);
  CHECK(of_task.starts_with("00-" + trace_id(run) + "-"));
  CHECK(of_task.ends_with("-01"));
}

TEST_CASE("a run's tasks, and runs that it starts, stay in its trace as spans of their own", "[trace]") {
  std::string unsampled = parent;
  unsampled.back() = '0';
  run_record run = run_with({unsampled, "a=b"});
  CHECK(trace_id(run) == "4bf92f3577b34da6a3ce929d0e0e4736");
  const std::string one = traceparent_of_task(run, "one");
  CHECK(one != traceparent_of_task(run, "two"));
  CHECK(one == traceparent_of_task(run, "one"));
  const trace_context next = child_context(run);
  CHECK(next.traceparent != one);
  CHECK(next.tracestate == "a=b");
  run.attempt = 2;
  CHECK(one != traceparent_of_task(run, "one"));
  for (const std::string& made : {one, next.traceparent}) {
    CHECK(made.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    CHECK(made.ends_with("-00"));  // who asked does not record it, so nobody is told to
    CHECK(made != unsampled);
  }
}
