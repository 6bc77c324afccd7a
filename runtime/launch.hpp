// Which file a command's name means, and why a program did not start, in words. Internal to process.cpp.
// Pure but for looks at the file system; any thread.
#pragma once

#include <string>

#include "config/error.hpp"
#include "runtime/process.hpp"
#include "runtime/spawn.hpp"

namespace penstock::runtime {

// What to execute, seen from the start folder. A name without '/' is looked up in the PATH of the program's
// own environment. Errors as start_process() has them.
result<std::string> find_program(const process_start& how);

// Why `program` could not be started. execve's error number does not say which of several files is at fault,
// so they are looked at again.
error explain(const spawned& failure, const process_start& how, const std::string& program);

}  // namespace penstock::runtime
