// What happened to a run, as the text that state.db keeps: the lines of the column `timeline` and the words in them.
//
// A line is MICROSECONDS TAB WHAT TAB DETAIL NEWLINE; a backslash, tab, newline or zero byte in the detail is escaped
// with a backslash. Lines are only ever appended, in the statement that makes the change they tell of. Bounded: a
// detail is cut at detail_limit, and once the text has timeline_limit bytes only the end of the run is still appended.
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/model.hpp"
#include "scheduler/store.hpp"

namespace penstock::scheduler::rows {

constexpr std::size_t timeline_limit = 16384;  // about 200 entries of 80 bytes
constexpr std::size_t detail_limit = 1000;     // bytes; the whole reason stands in the run itself

std::string timeline_line(const timeline_entry& entry);
// Throws when the text holds anything but such lines: the file is damaged.
std::vector<timeline_entry> timeline_from(std::string_view text);

// SQL: the timeline with the line in parameter `number` behind it, unless it has reached its limit.
std::string grown_timeline(int number);

// The entry of a run that is made now: its state, what made it and why it waits or was skipped.
timeline_entry made_entry(const new_run& made);

}  // namespace penstock::scheduler::rows
