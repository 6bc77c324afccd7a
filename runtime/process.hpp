// Child processes, each the leader of a group of its own: start, signals to the group, and who is left of it.
//
// Thin over spawn.hpp, pidfds, waitid and /proc; knows no events, logs or timeouts (command_run does).
// Functions may be called from any thread; one process belongs to one caller. What always holds: a leader
// that was started stays a child of ours until its owner calls reap(), so its id, and with it the id of its
// group, cannot be given to another process. Once it is reaped, the group's id stays taken as long as one
// process of the group exists.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

#include "config/definition.hpp"
#include "config/error.hpp"
#include "runtime/identity.hpp"
#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

class start_permit;

struct pipe_ends {
  unique_fd read, write;  // both close-on-exec
};

// errc::unavailable: no descriptors are left.
result<pipe_ends> make_pipe();

// /dev/null, open for reading and writing as long as the program runs; one for all.
int null_device();

// One of setrlimit(2)'s.
struct process_limit {
  int resource;              // RLIMIT_...
  std::uint64_t soft, hard;  // of each process
  std::string what;          // "open files to 256"
};

struct process_start {
  const std::vector<std::string>& arguments;              // never empty; no shell is involved
  const std::map<std::string, std::string>& environment;  // all of it; its PATH finds the program
  const std::filesystem::path& folder;                    // where it starts
  int in, out, err;  // become its descriptors 0, 1 and 2; it gets no others
  const identity* as = nullptr;   // null: as we are
  std::optional<int> umask{};     // absent: ours
  int nice = 0;                   // added to the calling thread's
  config::io_class io = config::io_class::inherit;
  std::span<const process_limit> limits{};
  int cgroup = -1;  // an open cgroup.procs that it joins; -1: ours
};

struct process {
  pid_t pid = 0;   // also the id of its group
  unique_fd exit;  // pidfd, readable once the leader has exited
};

// errc::not_found: no such program, interpreter or folder; errc::invalid: it is there, but cannot be
// executed; errc::forbidden: we may not do that to it; errc::unavailable: a limit of the machine. The text is
// for the run's record and names what failed. Signals are as a fresh login would have them: none ignored or
// blocked. Stands still until the program runs.
result<process> start_process(const process_start& how);

// The same in two steps: its process is made, and waits for leave to become the program.
class process_launch {
 public:
  // Whether it can be: not as another user, who would see our memory meanwhile; not in a control group, for which the kernel
  // could have to kill it, and then kills all who share its memory; nor on every machine.
  static bool may_wait(const process_start& how);

  // `how`, what it refers to and `permit` stay until this is gone. Null: it does not wait.
  explicit process_launch(const process_start& how, const start_permit* permit = nullptr);
  ~process_launch();  // ends a process that was not taken over; blocks until it is gone
  process_launch(const process_launch&) = delete;
  process_launch& operator=(const process_launch&) = delete;

  // Once, after the permit was granted. As start_process().
  result<process> finish();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

struct process_end {
  bool by_signal = false;
  int number = 0;  // exit code or signal
  // Of it and those of its descendants that it waited for: what they used, and the most that one of them had in
  // memory (bytes; at least what this program had when it started it, because the kernel begins with that).
  std::chrono::nanoseconds cpu_time{0};
  std::int64_t peak_memory = 0;
};

// How the leader ended, and away with it. Waits for it: to be called when `exit` has become readable.
// Nothing: the status was lost, because this program ignores SIGCHLD.
std::optional<process_end> reap(pid_t leader);
// For one that cannot be looked after: it and its group are gone when this returns. Blocks meanwhile.
void kill_and_reap(pid_t leader);
// Blocks until the children of ours in this group, to which SIGKILL was sent, have ended. Only after the
// leader was reaped.
void reap_killed_group(pid_t group);

// "SIGTERM"
std::string signal_name(int signal);

// All of these take a group's id. signal_group: false when nobody is left in it.
bool signal_group(pid_t group, int signal);
bool group_exists(pid_t group);
// Those that still run (zombies do not), at most `most`; those of the group that are zombies of ours are
// reaped. Reads all of /proc, so it is for groups that outlive their leader. Only after the leader was
// reaped. Throws when the machine is out of descriptors.
std::vector<process> rest_of_group(pid_t group, std::size_t most);
// How many still run. Throws likewise.
int count_group(pid_t group);

// Called once by main: descendants whose parents end become children of this program
// (PR_SET_CHILD_SUBREAPER), so that none of them is out of reach; exit statuses are kept even if whoever
// started us ignored SIGCHLD.
void adopt_orphans();

// Reaps adopted processes that nobody waits for: those that left their group, and those that ended before
// their group's leader. Never waits.
void reap_strays();

struct adopted_processes {
  std::vector<process> known{};
  bool unsure = false;  // another one cannot be told yet, because it is just becoming another program: ask again
};
// Adopted processes whose environment has all of `entries` ("NAME=value"), at most `most`: what left the group
// of the program that they come from, and outlived its parent. Costs a system call when nothing is adopted;
// never reads all of /proc. One may be missed while others end: ask until there is none. Throws when the
// machine is out of descriptors.
adopted_processes adopted_with(std::span<const std::string> entries, std::size_t most);
// False: we may not signal it.
bool signal_process(const process& one, int signal);

// Kills, by process group, every process whose environment holds PENSTOCK_INSTANCE=`instance`: what a killed
// daemon left behind. Waits until they are gone (at most about 10 s, then it logs). Returns how many
// processes there were. Called once at start, before the first run.
int kill_orphans(const std::string& instance);

}  // namespace penstock::runtime
