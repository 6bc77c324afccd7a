#include "runtime/process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <memory>
#include <mutex>
#include <poll.h>
#include <set>
#include <shared_mutex>
#include <signal.h>
#include <spawn.h>
#include <stdexcept>
#include <string.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <unordered_set>

#include <spdlog/spdlog.h>

namespace penstock::runtime {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

unique_fd::~unique_fd() {
  if (fd_ >= 0) ::close(fd_);
}

namespace {

std::string words(int error_number) { return std::generic_category().message(error_number); }

// Leaders that their owners have not reaped yet, so that reap_strays() leaves them alone. Starting holds
// `starting` shared, because between posix_spawn and the entry here a short-lived leader looks like a stray.
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

// glibc 2.36 declares its wrappers of these without C linkage.
int pidfd_open(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }
int pidfd_send_signal(int pidfd, int signal) {
  return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

// ---- finding the program ------------------------------------------------------------------------

bool is_executable_file(const fs::path& file) {
  struct stat status {};
  return ::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         ::faccessat(AT_FDCWD, file.c_str(), X_OK, AT_EACCESS) == 0;
}

// What to execute, seen from the start folder. A name without '/' is looked up in the PATH of the program's
// own environment (posix_spawnp would take ours).
result<std::string> find_program(const process_start& how) {
  const std::string& name = how.arguments.front();
  if (name.find('/') != std::string::npos) return name;
  const auto set = how.environment.find("PATH");
  std::string_view folders = "/usr/local/bin:/usr/bin:/bin";
  if (set != how.environment.end()) folders = set->second;
  std::string unusable;
  while (!name.empty()) {
    const auto colon = folders.find(':');
    // POSIX: an empty part of PATH is the working directory.
    const fs::path candidate = fs::path(folders.substr(0, colon)) / name;
    if (is_executable_file(how.folder / candidate))
      return candidate.has_parent_path() ? candidate.string() : "./" + name;
    if (unusable.empty() && fs::is_regular_file(how.folder / candidate)) unusable = candidate.string();
    if (colon == std::string_view::npos) break;
    folders.remove_prefix(colon + 1);
  }
  if (!unusable.empty()) return error{errc::invalid, "not executable: " + unusable};
  return error{errc::not_found, "command not found: '" + name + "' is in no folder of PATH"};
}

// The interpreter that a script's first line names, or nothing when the file is not a script.
std::string interpreter_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string line(256, '\0');
  in.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<std::size_t>(in.gcount()));
  line = line.substr(0, line.find('\n'));
  if (!line.starts_with("#!")) return {};
  const auto first = line.find_first_not_of(" \t", 2);
  if (first == std::string::npos) return {};
  return line.substr(first, line.find_first_of(" \t\r", first) - first);
}

// posix_spawn's error number does not say which of its steps failed, so the files are looked at again.
error explain(int error_number, const process_start& how, const std::string& program) {
  std::error_code ignored;
  const auto folder = fs::status(how.folder, ignored);
  if (!fs::exists(folder))
    return {errc::not_found, "the working directory " + how.folder.string() + " does not exist"};
  if (!fs::is_directory(folder))
    return {errc::invalid, "the working directory " + how.folder.string() + " is not a folder"};
  if (::faccessat(AT_FDCWD, how.folder.c_str(), X_OK, AT_EACCESS) != 0)
    return {errc::invalid, "the working directory " + how.folder.string() + " may not be entered"};

  const fs::path file = how.folder / program;
  const auto status = fs::status(file, ignored);
  if (!fs::exists(status)) return {errc::not_found, "command not found: " + program};
  if (fs::is_directory(status)) return {errc::invalid, "not executable: " + program + " is a folder"};
  if (!is_executable_file(file))
    return {errc::invalid, "not executable: " + program + " lacks the permission"};

  const std::string interpreter = interpreter_of(file);
  if (error_number == ENOENT)
    return {errc::not_found, program + ": its interpreter " + (interpreter.empty() ? "" : interpreter + " ") +
                                 "does not exist"};
  if (error_number == EACCES && !interpreter.empty())
    return {errc::invalid, program + ": its interpreter " + interpreter + " is not executable"};
  if (error_number == ENOEXEC)
    return {errc::invalid,
            "not executable: " + program + " has no #! line and is not a program of this machine"};
  if (error_number == E2BIG) return {errc::invalid, "its arguments and environment are too long"};
  return {errc::unavailable, "cannot start " + program + ": " + words(error_number)};
}

// ---- spawning -----------------------------------------------------------------------------------

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

std::vector<std::string> join_pairs(const std::map<std::string, std::string>& environment) {
  std::vector<std::string> pairs;
  pairs.reserve(environment.size());
  for (const auto& [name, value] : environment) pairs.push_back(name + '=' + value);
  return pairs;
}

class spawn_attributes {
 public:
  spawn_attributes() {
    ::posix_spawnattr_init(&value);
    sigset_t all, none;
    ::sigfillset(&all);
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigdefault(&value, &all);
    ::posix_spawnattr_setsigmask(&value, &none);
    ::posix_spawnattr_setpgroup(&value, 0);
    ::posix_spawnattr_setflags(&value,
                               POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  }
  ~spawn_attributes() { ::posix_spawnattr_destroy(&value); }
  spawn_attributes(const spawn_attributes&) = delete;
  spawn_attributes& operator=(const spawn_attributes&) = delete;
  posix_spawnattr_t value;
};

class spawn_actions {
 public:
  explicit spawn_actions(const process_start& how) {
    ::posix_spawn_file_actions_init(&value);
    ::posix_spawn_file_actions_addchdir_np(&value, how.folder.c_str());
    ::posix_spawn_file_actions_adddup2(&value, how.in, STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&value, how.out, STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&value, how.err, STDERR_FILENO);
    // Libraries (Asio's sockets among them) open descriptors without close-on-exec.
    ::posix_spawn_file_actions_addclosefrom_np(&value, STDERR_FILENO + 1);
  }
  ~spawn_actions() { ::posix_spawn_file_actions_destroy(&value); }
  spawn_actions(const spawn_actions&) = delete;
  spawn_actions& operator=(const spawn_actions&) = delete;
  posix_spawn_file_actions_t value;
};

}  // namespace

result<pipe_ends> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return error{errc::unavailable, "cannot make a pipe: " + words(errno)};
  return pipe_ends{unique_fd(ends[0]), unique_fd(ends[1])};
}

int null_device() {
  static const int fd = [] {
    const int opened = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (opened < 0) throw std::runtime_error("cannot open /dev/null: " + words(errno));
    return opened;
  }();
  return fd;
}

result<process> start_process(const process_start& how) {
  auto program = find_program(how);
  if (!program) {
    // A missing folder explains a program that is looked up in it, too.
    std::error_code ignored;
    if (!fs::is_directory(how.folder, ignored)) return explain(ENOENT, how, how.arguments.front());
    return program.error();
  }
  const spawn_attributes attributes;
  const spawn_actions actions(how);
  const auto pairs = join_pairs(how.environment);
  string_vector arguments(how.arguments), environment(pairs);

  std::shared_lock starting(leaders().starting);
  process started;
  const int failure = ::posix_spawn(&started.pid, program->c_str(), &actions.value, &attributes.value,
                                    arguments.data(), environment.data());
  if (failure != 0) return explain(failure, how, *program);
  started.exit = unique_fd(pidfd_open(started.pid));
  if (started.exit.get() < 0) {
    const int why = errno;
    kill_and_reap(started.pid);
    return error{errc::unavailable, "cannot watch the program: " + words(why)};
  }
  leaders().add(started.pid);
  return started;
}

std::optional<process_end> reap(pid_t leader) {
  siginfo_t info{};
  int outcome = 0;
  do {
    outcome = ::waitid(P_PID, static_cast<id_t>(leader), &info, WEXITED);
  } while (outcome != 0 && errno == EINTR);
  leaders().remove(leader);
  if (outcome != 0) return std::nullopt;
  return process_end{info.si_code != CLD_EXITED, info.si_status};
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
    throw std::runtime_error("cannot read /proc: " + words(errno));
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
  if (!folder) throw std::runtime_error("cannot read /proc: " + words(errno));
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
        throw std::runtime_error("cannot watch a process: " + words(errno));
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
    throw std::runtime_error("cannot become the reaper of descendants: " + words(errno));
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

// ---- orphans of a killed daemon -----------------------------------------------------------------

namespace {

bool environment_holds(pid_t pid, std::string_view entry) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/environ", std::ios::binary);
  std::string one;
  while (std::getline(file, one, '\0'))
    if (one == entry) return true;
  return false;
}

// Those that carry the mark, and whoever else is in their groups; never ourselves or our own group.
std::vector<process> find_orphans(const std::string& mark) {
  std::vector<process> found;
  std::set<pid_t> groups;
  for_each_process([&](pid_t pid) {
    if (pid == ::getpid() || !environment_holds(pid, mark)) return;
    process orphan{pid, unique_fd(pidfd_open(pid))};
    if (orphan.exit.get() < 0 || !environment_holds(pid, mark)) return;
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
  const std::string mark = "PENSTOCK_INSTANCE=" + instance;
  const auto deadline = steady_clock::now() + std::chrono::seconds{10};
  std::set<pid_t> killed;
  // Again and again, because a process may have forked between the look at /proc and the kill.
  for (auto orphans = find_orphans(mark); !orphans.empty(); orphans = find_orphans(mark)) {
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
