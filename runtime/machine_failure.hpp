// Tells a failure of the machine from one of what was asked: the disk is full or fails, memory or file descriptors have run
// out. Whoever gets such an exception may say "later" instead of "never". Pure; any thread.
#pragma once

#include <exception>
#include <string>

namespace penstock::runtime {

// What has failed, in words that name no file ("the disk is full"). Empty: it was something else, or no exception.
std::string machine_failure(const std::exception_ptr& failure);

}  // namespace penstock::runtime
