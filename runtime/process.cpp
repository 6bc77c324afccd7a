#include "runtime/process.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <poll.h>
#include <set>
#include <shared_mutex>
#include <signal.h>
#include <stdexcept>
#include <string.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <unordered_set>

#include <spdlog/spdlog.h>

#include "runtime/launch.hpp"
#include "runtime/spawn.hpp"
#include "runtime/start_permit.hpp"
#include "runtime/text.hpp"

namespace penstock::runtime {

using std::chrono::steady_clock;

namespace {

// Leaders that their owners have not reaped yet, so that reap_strays() leaves them alone. Starting holds
// `starting` shared, because between its start and the entry here a short-lived leader looks like a stray.
struct leader_list {
  std::shared_mutex starting;
  std::mutex mutex;
  std::unordered_set<pid_t> pids;

  void add(pid_t pid) {
    std::lock_guard lock(mutex);
    pids.insert(pid);
  }
  void remove(pid_t pid) {
    std::lock_guard lock(mutex);
    pids.erase(pid);
  }
  bool holds(pid_t pid) {
    std::lock_guard lock(mutex);
    return pids.contains(pid);
  }
};

leader_list& leaders() {
  static leader_list list;
  return list;
}

// The char* arrays that execve wants; views of strings that outlive it.
class string_vector {
 public:
  explicit string_vector(const std::vector<std::string>& texts) {
    pointers_.reserve(texts.size() + 1);
    for (const auto& text : texts) pointers_.push_back(const_cast<char*>(text.c_str()));
    pointers_.push_back(nullptr);
  }
  char* const* data() { return pointers_.data(); }

 private:
  std::vector<char*> pointers_;
};

std::vector<std::string> join_pairs(const std::map<std::string, std::string>& variables) {
  std::vector<std::string> pairs;
  pairs.reserve(variables.size());
  for (const auto& [name, value] : variables) pairs.push_back(name + '=' + value);
  return pairs;
}

// ioprio_set(2): the class, and its level, of which best effort has 0 to 7 and 4 is what nobody asked for.
int io_priority_of(config::io_class io) {
  constexpr int class_shift = 13;
  if (io == config::io_class::best_effort) return (2 << class_shift) | 4;
  return io == config::io_class::idle ? 3 << class_shift : 0;
}

// glibc 2.36 declares its wrappers of these without C linkage.
int pidfd_open(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }
int pidfd_send_signal(int pidfd, int signal) {
  return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

}  // namespace

result<pipe_ends> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return error{errc::unavailable, "cannot make a pipe: " + error_words(errno)};
  return pipe_ends{unique_fd(ends[0]), unique_fd(ends[1])};
}

int null_device() {
  static const int fd = [] {
    const int opened = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (opened < 0) throw std::runtime_error("cannot open /dev/null: " + error_words(errno));
    return opened;
  }();
  return fd;
}

namespace {

spawn_plan plan_of(const process_start& how) {
  spawn_plan plan{};
  plan.folder = how.folder.c_str();
  plan.in = how.in;
  plan.out = how.out;
  plan.err = how.err;
  plan.cgroup = how.cgroup;
  plan.nice = how.nice;
  plan.io_priority = io_priority_of(how.io);
  plan.umask = how.umask.value_or(-1);
  if (!how.as || how.as->is_ours) return plan;
  plan.changes_user = true;
  plan.uid = how.as->uid;
  plan.gid = how.as->gid;
  if (how.as->groups) {
    plan.groups = how.as->groups->data();
    plan.group_count = how.as->groups->size();
  }
  return plan;
}

}  // namespace

struct process_launch::state {
  explicit state(const process_start& start) : how(start), pairs(join_pairs(how.environment)), arguments(how.arguments), environment(pairs) {
    for (const auto& limit : how.limits) limits.push_back({limit.resource, limit.soft, limit.hard});
  }

  const process_start how;
  const std::vector<std::string> pairs;
  string_vector arguments, environment;
  std::vector<spawn_limit> limits;
  result<std::string> program = error{};
  spawn_plan plan{};
  std::optional<child_start> child;  // none: `program` is the reason, or it was taken over
};

bool process_launch::may_wait(const process_start& how) {
  return children_can_wait && (!how.as || how.as->is_ours) && how.cgroup < 0;
}

process_launch::process_launch(const process_start& how, const start_permit* permit) : state_(std::make_unique<state>(how)) {
  state_->program = find_program(state_->how);
  if (!state_->program) return;
  spawn_plan& plan = state_->plan;
  plan = plan_of(state_->how);
  plan.program = state_->program->c_str();
  plan.arguments = state_->arguments.data();
  plan.environment = state_->environment.data();
  plan.limits = state_->limits.data();
  plan.limit_count = state_->limits.size();
  if (permit) plan.leave = permit->word();

  const std::shared_lock starting(leaders().starting);
  state_->child.emplace(plan);
  if (const pid_t pid = state_->child->pid()) leaders().add(pid);
}

process_launch::~process_launch() {
  if (!state_->child) return;
  const pid_t pid = state_->child->pid();
  state_->child.reset();
  if (pid != 0) reap_killed_group(pid);
  leaders().remove(pid);
}

result<process> process_launch::finish() {
  if (!state_->program) return state_->program.error();
  spawned made = state_->child->finish();
  state_->child.reset();
  if (made.failed_step == spawn_step::none) return process{made.pid, std::move(made.exit)};
  leaders().remove(made.pid);
  return explain(made, state_->how, *state_->program);
}

result<process> start_process(const process_start& how) { return process_launch(how).finish(); }

std::optional<process_end> reap(pid_t leader) {
  siginfo_t info{};
  rusage usage{};
  long outcome = 0;
  do {  // glibc's waitid() does not hand on what was used
    outcome = ::syscall(SYS_waitid, P_PID, leader, &info, WEXITED, &usage);
  } while (outcome != 0 && errno == EINTR);
  leaders().remove(leader);
  if (outcome != 0) return std::nullopt;
  process_end end{info.si_code != CLD_EXITED, info.si_status};
  end.peak_memory = static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
  for (const timeval& part : {usage.ru_utime, usage.ru_stime})
    end.cpu_time += std::chrono::seconds{part.tv_sec} + std::chrono::microseconds{part.tv_usec};
  return end;
}

void kill_and_reap(pid_t leader) {
  ::kill(-leader, SIGKILL);
  reap(leader);
  reap_killed_group(leader);
}

void reap_killed_group(pid_t group) {
  siginfo_t ignored{};
  while (::waitid(P_PGID, static_cast<id_t>(group), &ignored, WEXITED) == 0 || errno == EINTR) {
  }
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? "SIG" + std::string(name) : "signal " + std::to_string(signal);
}

// ---- groups -------------------------------------------------------------------------------------

namespace {

struct process_status {
  char state = 0;
  pid_t group = 0;

  bool runs() const { return state != 'Z' && state != 'X'; }
};

// Nothing: there is no such process. Throws when the machine is out of descriptors: not seeing is not
// knowing. Fields 3 and 5 of /proc/PID/stat (proc(5)); the name before them may hold anything, so it is
// skipped from behind.
std::optional<process_status> status_of(pid_t pid) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/stat", pid);
  const unique_fd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
    throw std::runtime_error("cannot read /proc: " + error_words(errno));
  if (file.get() < 0) return std::nullopt;
  std::array<char, 512> text{};
  const auto size = ::read(file.get(), text.data(), text.size() - 1);
  if (size <= 0) return std::nullopt;
  const char* name_end = ::strrchr(text.data(), ')');
  process_status status;
  if (!name_end || std::sscanf(name_end + 1, " %c %*d %d", &status.state, &status.group) != 2)
    return std::nullopt;
  return status;
}

template <class Visit>
void for_each_process(Visit visit) {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), &::closedir);
  if (!folder) throw std::runtime_error("cannot read /proc: " + error_words(errno));
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (failure == std::errc{} && end == name.data() + name.size()) visit(pid);
  }
}

bool runs_in(pid_t pid, pid_t group) {
  const auto status = status_of(pid);
  return status && status->group == group && status->runs();
}

void reap_group(pid_t group) {
  siginfo_t info{};
  while (::waitid(P_PGID, static_cast<id_t>(group), &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0)
    info = {};
}

}  // namespace

bool signal_group(pid_t group, int signal) { return ::kill(-group, signal) == 0 || errno != ESRCH; }

bool group_exists(pid_t group) { return signal_group(group, 0); }

std::vector<process> rest_of_group(pid_t group, std::size_t most) {
  std::vector<process> found;
  bool seen = false;
  // Once more when a reading of /proc has missed them: a process may fork to behind the place that was just
  // read, and end.
  while (!seen && group_exists(group)) {
    for_each_process([&](pid_t pid) {
      const auto status = status_of(pid);
      if (!status || status->group != group) return;
      seen = true;
      if (found.size() >= most || !status->runs()) return;
      process member{pid, unique_fd(pidfd_open(pid))};
      if (member.exit.get() < 0 && errno != ESRCH)
        throw std::runtime_error("cannot watch a process: " + error_words(errno));
      // Looked at again, now that the pidfd holds on to it: the id may have changed hands in between.
      if (member.exit.get() >= 0 && runs_in(pid, group)) found.push_back(std::move(member));
    });
    reap_group(group);
  }
  return found;
}

int count_group(pid_t group) {
  int count = 0;
  for_each_process([&](pid_t pid) { count += runs_in(pid, group) ? 1 : 0; });
  return count;
}

void adopt_orphans() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
    throw std::runtime_error("cannot become the reaper of descendants: " + error_words(errno));
  ::signal(SIGCHLD, SIG_DFL);
}

void reap_strays() {
  auto& known = leaders();
  std::unique_lock nobody_starts(known.starting, std::try_to_lock);
  if (!nobody_starts) return;
  for (;;) {
    siginfo_t first{};
    if (::waitid(P_ALL, 0, &first, WEXITED | WNOHANG | WNOWAIT) != 0 || first.si_pid == 0) return;
    // A child in our own group was started by other means than start_process(), and is not ours to reap.
    if (known.holds(first.si_pid) || ::getpgid(first.si_pid) == ::getpgrp()) return;
    ::waitid(P_PID, static_cast<id_t>(first.si_pid), &first, WEXITED | WNOHANG);
  }
}

// ---- processes known by their environment -------------------------------------------------------

namespace {

// The whole of a file of /proc, whose size is not known beforehand. `fd` is read from its beginning.
std::string read_from_start(int fd) {
  std::string text;
  std::array<char, 4096> piece{};
  for (ssize_t got; (got = ::pread(fd, piece.data(), piece.size(), static_cast<off_t>(text.size()))) > 0;)
    text.append(piece.data(), static_cast<std::size_t>(got));
  return text;
}

std::string read_of_process(pid_t pid, const char* name) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/%s", pid, name);
  const unique_fd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
  return file.get() < 0 ? std::string() : read_from_start(file.get());
}

// Does its environment have all of these entries ("NAME=value")? `no` also when it may not be looked at.
// `not_yet`: it is in the middle of execve(2), where for a moment there is neither an environment nor a command
// line.
enum class match { no, yes, not_yet };
match environment_holds(pid_t pid, std::span<const std::string> entries) {
  const std::string text = read_of_process(pid, "environ");
  if (text.empty()) {
    const auto status = status_of(pid);
    return status && status->runs() && read_of_process(pid, "cmdline").empty() ? match::not_yet : match::no;
  }
  const std::string all = '\0' + text + '\0';
  const bool holds = std::all_of(entries.begin(), entries.end(), [&](const std::string& entry) {
    return all.find('\0' + entry + '\0') != std::string::npos;
  });
  return holds ? match::yes : match::no;
}

// The kernel gives orphans to the first thread of their subreaper, while those that start programs are others:
// so the children of that thread are the adopted ones, and mostly there are none. proc(5): the list may miss one
// while others end, so whoever must be sure asks again. Empty where the kernel keeps no such list
// (CONFIG_PROC_CHILDREN).
std::vector<pid_t> adopted_children() {
  static std::atomic<int> kept{-1};  // open for good, because it is asked at each run's end
  int list = kept;
  if (list < 0) {
    const std::string self = std::to_string(::getpid());
    unique_fd opened(::open(("/proc/" + self + "/task/" + self + "/children").c_str(), O_RDONLY | O_CLOEXEC));
    list = opened.get();
    int none = -1;
    if (list >= 0 && kept.compare_exchange_strong(none, list)) opened.release();
    else list = kept;
  }
  std::vector<pid_t> found;
  const std::string text = read_from_start(list);
  for (const char *at = text.data(), *end = at + text.size(); at < end; ++at) {
    pid_t pid = 0;
    at = std::from_chars(at, end, pid).ptr;
    if (pid > 0) found.push_back(pid);
  }
  return found;
}

}  // namespace

adopted_processes adopted_with(std::span<const std::string> entries, std::size_t most) {
  adopted_processes found;
  for (const pid_t pid : adopted_children()) {
    if (found.known.size() >= most) break;
    if (leaders().holds(pid)) continue;
    match is = environment_holds(pid, entries);
    if (is == match::yes) {
      process one{pid, unique_fd(pidfd_open(pid))};
      if (one.exit.get() < 0 && errno != ESRCH)
        throw std::runtime_error("cannot watch a process: " + error_words(errno));
      // Looked at again, now that the pidfd holds on to it: the id may have changed hands in between.
      is = one.exit.get() < 0 ? match::no : environment_holds(pid, entries);
      if (is == match::yes) found.known.push_back(std::move(one));
    }
    found.unsure = found.unsure || is == match::not_yet;
  }
  return found;
}

bool signal_process(const process& one, int signal) {
  return pidfd_send_signal(one.exit.get(), signal) == 0 || errno == ESRCH;
}

// ---- orphans of a killed daemon -----------------------------------------------------------------

namespace {

// Those that carry the mark, and whoever else is in their groups; never ourselves or our own group.
std::vector<process> find_orphans(const std::string& instance) {
  const std::array mark{"PENSTOCK_INSTANCE=" + instance};
  std::vector<process> found;
  std::set<pid_t> groups;
  for_each_process([&](pid_t pid) {
    if (pid == ::getpid() || environment_holds(pid, mark) != match::yes) return;
    process orphan{pid, unique_fd(pidfd_open(pid))};
    if (orphan.exit.get() < 0 || environment_holds(pid, mark) != match::yes) return;
    const pid_t group = ::getpgid(pid);
    if (group > 1 && group != ::getpgrp()) groups.insert(group);
    found.push_back(std::move(orphan));
  });
  for (const pid_t group : groups)
    for (auto& member : rest_of_group(group, SIZE_MAX)) {
      const auto same = [&](const process& p) { return p.pid == member.pid; };
      if (std::none_of(found.begin(), found.end(), same)) found.push_back(std::move(member));
    }
  return found;
}

void wait_until(steady_clock::time_point deadline, const process& ending) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
    pollfd one{ending.exit.get(), POLLIN, 0};
    if (::poll(&one, 1, static_cast<int>(std::max<std::int64_t>(left, 0))) >= 0 || errno != EINTR) break;
  }
  // A child of ours only if we are its subreaper; then nobody else would reap it.
  siginfo_t ignored{};
  ::waitid(P_PIDFD, static_cast<id_t>(ending.exit.get()), &ignored, WEXITED | WNOHANG);
}

}  // namespace

int kill_orphans(const std::string& instance) {
  const auto deadline = steady_clock::now() + std::chrono::seconds{10};
  std::set<pid_t> killed;
  // Again and again, because a process may have forked between the look at /proc and the kill.
  for (auto orphans = find_orphans(instance); !orphans.empty(); orphans = find_orphans(instance)) {
    if (steady_clock::now() >= deadline) {
      spdlog::error("{} processes of an earlier daemon do not end, the first is {}", orphans.size(),
                    orphans.front().pid);
      break;
    }
    for (const auto& orphan : orphans) {
      killed.insert(orphan.pid);
      const pid_t group = ::getpgid(orphan.pid);
      if (group > 1 && group != ::getpgrp()) ::kill(-group, SIGKILL);
      pidfd_send_signal(orphan.exit.get(), SIGKILL);
    }
    for (const auto& orphan : orphans) wait_until(deadline, orphan);
  }
  return static_cast<int>(killed.size());
}

}  // namespace penstock::runtime
