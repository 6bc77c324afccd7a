// W3C Trace Context (www.w3.org/TR/trace-context): which distributed trace a run belongs to, and under which name its tasks
// hand it on. Pure functions, no state.
//
// A request that starts a run may carry `traceparent` and `tracestate`: the run is then a span of that trace. A run without
// them begins a trace of its own, whose id is the 128 bits of the run's ULID; so nothing has to be remembered for it, and
// who knows the run knows the trace. The id of a span is a hash of what it is of: an attempt that is looked at twice has one
// name.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace penstock::scheduler {

struct run_record;

// The span that asked for a run. Empty texts: nobody did.
struct trace_context {
  std::string traceparent{};  // valid, version 00: 55 characters
  std::string tracestate{};   // of vendors, handed on as it is; at most `longest_tracestate` characters

  bool operator==(const trace_context&) const = default;
};

constexpr std::size_t longest_tracestate = 512;  // what section 3.3.1.5 asks everybody to hand on

// Of a request's two headers. Empty when `traceparent` is missing or not valid, as section 3.2 and 4.3 want it; a later
// version is read as far as version 00 goes. A `tracestate` that is too long or not printable is left out.
trace_context read_trace_context(std::string_view traceparent, std::string_view tracestate);

// 32 hexadecimal digits.
std::string trace_id(const run_record& run);
// What a task of the run's current attempt finds as TRACEPARENT; its parent is the run's own span.
std::string traceparent_of_task(const run_record& run, std::string_view task);
// What a run that this one starts is a child of.
trace_context child_context(const run_record& run);

}  // namespace penstock::scheduler
