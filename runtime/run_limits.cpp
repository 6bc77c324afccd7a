#include "runtime/run_limits.hpp"

#include <algorithm>
#include <csignal>
#include <sstream>
#include <sys/resource.h>

#include "config/time.hpp"

namespace penstock::runtime {

namespace {

constexpr int shell_offset = 128;  // POSIX shells exit with 128 + the signal that ended their command

// Of this thread's programs (0 is the thread, on Linux), against the group of the daemon, which has the usual weight.
int niceness_beside_the_daemon() { return ::getpriority(PRIO_PROCESS, 0) - ::getpriority(PRIO_PROCESS, static_cast<id_t>(::getpid())); }

std::int64_t own_peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

std::int64_t whole_seconds(std::chrono::nanoseconds time) {
  return std::max<std::int64_t>(std::chrono::ceil<std::chrono::seconds>(time).count(), 1);
}

std::string in_whole_mebibytes(std::int64_t bytes) {
  constexpr std::int64_t mib = 1 << 20;
  return format_size(std::max<std::int64_t>((bytes + mib / 2) / mib, 1) * mib);
}

std::string number(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

}  // namespace

run_limits::run_limits(const config::resource_limits& wanted, int nice, cgroup_tree* tree, const std::string& label)
    : wanted_(wanted) {
  if (wanted_.memory || wanted_.cpus || wanted_.processes) make_group(nice, tree, label);
  limit_each_process();
}

void run_limits::make_group(int nice, cgroup_tree* tree, const std::string& label) {
  std::string why = "this daemon may not make control groups";
  cgroup_limits limits;
  if (tree) {
    if (tree->limits_memory()) limits.memory = wanted_.memory;
    if (tree->limits_cpus()) {
      limits.cpus = wanted_.cpus;
      limits.niceness = niceness_beside_the_daemon() + nice;
    }
    if (tree->limits_processes()) limits.processes = wanted_.processes;
    auto made = tree->make_group(label, limits);
    if (made) {
      group_ = std::move(*made);
      why = "this daemon was not given that controller";
    } else {
      why = made.error().detail;
      limits = {};
    }
  }
  memory_by_group_ = limits.memory.has_value();
  processes_by_group_ = limits.processes.has_value();
  if (wanted_.cpus && !limits.cpus)
    notes_.push_back("it is not limited to " + number(*wanted_.cpus) + " cpus: " + why);
}

void run_limits::limit_each_process() {
  if (wanted_.memory && !memory_by_group_) {
    own_memory_ = own_peak_memory();
    limit(RLIMIT_AS, *wanted_.memory, "memory to " + format_size(*wanted_.memory));
  }
  if (wanted_.processes && !processes_by_group_)
    limit(RLIMIT_NPROC, *wanted_.processes, "processes to " + std::to_string(*wanted_.processes));
  if (wanted_.open_files)
    limit(RLIMIT_NOFILE, *wanted_.open_files, "open files to " + std::to_string(*wanted_.open_files));
  if (wanted_.file_size) limit(RLIMIT_FSIZE, *wanted_.file_size, "file size to " + format_size(*wanted_.file_size));
  if (wanted_.cpu_time) {
    limit(RLIMIT_CPU, whole_seconds(*wanted_.cpu_time), "CPU time to " + format_duration(*wanted_.cpu_time));
    ++each_.back().hard;  // SIGXCPU at the limit, SIGKILL a second later
  }
}

void run_limits::limit(int resource, std::int64_t most, const std::string& what) {
  const auto value = static_cast<std::uint64_t>(most);
  each_.push_back({resource, value, value, what});
}

std::string run_limits::cause_of(const process_end& end, bool by_itself) const {
  if (memory_by_group_ && group_->memory_kills() > 0)
    return "killed: over its memory limit of " + format_size(*wanted_.memory);
  const bool shell_says = !end.by_signal && end.number > shell_offset;
  const int signal = end.by_signal ? end.number : shell_says ? end.number - shell_offset : 0;
  const std::string how =
      shell_says ? "exit code " + std::to_string(end.number) + ": a process of it was " : "killed: ";
  if (wanted_.cpu_time) {
    const bool used_up = end.cpu_time >= std::chrono::seconds{whole_seconds(*wanted_.cpu_time)};
    if (signal == SIGXCPU || (signal == SIGKILL && by_itself && used_up))
      return how + "over its cpu_time of " + format_duration(*wanted_.cpu_time);
  }
  if (wanted_.file_size && signal == SIGXFSZ)
    return how + "over its file_size of " + format_size(*wanted_.file_size);
  return {};
}

std::string run_limits::remark_on(const process_end& end) const {
  if (wanted_.memory && !memory_by_group_) {
    // The kernel counts from what its parent had; below that the peak is not known.
    const std::string peak =
        end.peak_memory > own_memory_ ? ": its peak was " + in_whole_mebibytes(end.peak_memory) : "";
    return "memory limited to " + format_size(*wanted_.memory) + " for each process (no cgroup)" + peak;
  }
  if (processes_by_group_ && group_->refused_processes() > 0)
    return "its limit of " + std::to_string(*wanted_.processes) + " processes was reached";
  return {};
}

}  // namespace penstock::runtime
