#include "runtime/cgroup.hpp"

#include <algorithm>
#include <cerrno>
#include <cctype>
#include <cmath>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <poll.h>
#include <set>
#include <signal.h>
#include <sstream>
#include <stdexcept>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <system_error>
#include <unistd.h>

#include <spdlog/spdlog.h>

#include "runtime/text.hpp"

namespace penstock::runtime {

namespace fs = std::filesystem;

namespace {

constexpr long long period_us = 100'000;     // of cpu.max, the kernel's usual one
constexpr long long least_quota_us = 1'000;  // which it accepts
constexpr std::size_t longest_label = 100;
constexpr const char* leaf = "daemon";
constexpr const char* prefix = "run-";

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// One write, as these files want it; 0 or why not. (Where the kernel keeps the files O_CREAT adds none.)
int write_file(const fs::path& file, const std::string& text) {
  const unique_fd out(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (out.get() < 0) return errno;
  return ::write(out.get(), text.data(), text.size()) < 0 ? errno : 0;
}

// The number behind `name` in a file of "name number" lines; 0 when it is not there.
std::int64_t number_of(const fs::path& file, const std::string& name) {
  std::istringstream lines(read_file(file));
  std::string key;
  for (std::int64_t number; lines >> key >> number;)
    if (key == name) return number;
  return 0;
}

void add_pids(const fs::path& folder, std::set<pid_t>& pids) {
  std::istringstream lines(read_file(folder / "cgroup.procs"));
  for (pid_t pid; lines >> pid;)
    if (pid > 0) pids.insert(pid);
}

// Of it and of the groups that its programs made in it.
std::set<pid_t> pids_below(const fs::path& folder) {
  std::set<pid_t> pids;
  add_pids(folder, pids);
  std::error_code failure;
  for (fs::recursive_directory_iterator at(folder, failure), end; !failure && at != end; at.increment(failure))
    if (at->is_directory(failure)) add_pids(at->path(), pids);
  return pids;
}

bool is_populated(const fs::path& folder) { return number_of(folder / "cgroup.events", "populated") != 0; }

void kill_all(const fs::path& folder) {
  if (write_file(folder / "cgroup.kill", "1") == 0) return;
  for (const pid_t pid : pids_below(folder)) ::kill(pid, SIGKILL);  // before Linux 5.14
}

// The groups in it first. Fails while the kernel has not let go of its processes.
bool remove_folder(const fs::path& folder) {
  if (::rmdir(folder.c_str()) == 0 || errno == ENOENT) return true;
  std::error_code failure;
  for (const auto& inside : fs::directory_iterator(folder, failure))
    if (inside.is_directory(failure)) remove_folder(inside.path());
  return ::rmdir(folder.c_str()) == 0 || errno == ENOENT;
}

// Waits until nobody runs in it, for a second at most; poll(2) tells of changes to cgroup.events.
void wait_until_empty(const fs::path& folder) {
  const unique_fd events(::open((folder / "cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
  for (int turn = 0; turn < 10 && is_populated(folder); ++turn) {
    pollfd one{events.get(), POLLPRI, 0};
    ::poll(&one, 1, 100);
  }
}

// Whether somebody else (systemd) keeps this group in order. It marks those that it has handed over.
bool is_ours_to_use(const fs::path& folder) {
  struct stat status {};
  if (::geteuid() != 0 && ::stat(folder.c_str(), &status) == 0 && status.st_uid == ::geteuid()) return true;
  for (const char* mark : {"user.delegate", "trusted.delegate"}) {
    char value = 0;
    if (::getxattr(folder.c_str(), mark, &value, 1) == 1 && value == '1') return true;
  }
  return !fs::exists("/run/systemd/system");  // sd_booted(3)
}

std::string file_name_for(const std::string& label, std::int64_t number) {
  std::string name = prefix + label.substr(0, longest_label);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-') c = '-';
  return name + '-' + std::to_string(number);
}

// What failed, or nothing.
std::string set_limits(const fs::path& folder, const cgroup_limits& limits) {
  int failure = 0;
  if (limits.memory) {
    failure = write_file(folder / "memory.max", std::to_string(*limits.memory));
    if (failure != 0) return "memory.max: " + error_words(failure);
    write_file(folder / "memory.swap.max", "0");   // where swap is counted
    write_file(folder / "memory.oom.group", "1");  // all of it ends, not just one process
  }
  if (limits.processes) {
    failure = write_file(folder / "pids.max", std::to_string(*limits.processes));
    if (failure != 0) return "pids.max: " + error_words(failure);
  }
  if (limits.cpus) {
    const auto quota = std::max(least_quota_us, std::llround(*limits.cpus * static_cast<double>(period_us)));
    failure = write_file(folder / "cpu.max", std::to_string(quota) + ' ' + std::to_string(period_us));
    if (failure != 0) return "cpu.max: " + error_words(failure);
  }
  if (limits.niceness != 0) {
    failure = write_file(folder / "cpu.weight.nice", std::to_string(std::clamp(limits.niceness, -20, 19)));
    if (failure != 0) spdlog::debug("{}: cpu.weight.nice: {}", folder.string(), error_words(failure));
  }
  return {};
}

error unavailable(std::string why) { return {errc::unavailable, std::move(why)}; }

}  // namespace

// ---- one group ----------------------------------------------------------------------------------

cgroup::cgroup(cgroup_tree& tree, fs::path folder, unique_fd procs)
    : tree_(tree), folder_(std::move(folder)), procs_(std::move(procs)) {}

cgroup::~cgroup() {
  if (is_populated(folder_)) kill();
  tree_.remove(folder_);
}

std::vector<process> cgroup::members(std::size_t most) const {
  std::vector<process> found;
  if (!is_populated(folder_)) return found;
  for (const pid_t pid : pids_below(folder_)) {
    if (found.size() >= most) break;
    process one{pid, unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)))};
    if (one.exit.get() < 0 && errno != ESRCH)
      throw std::runtime_error("cannot watch a process: " + error_words(errno));
    if (one.exit.get() >= 0) found.push_back(std::move(one));
  }
  // Looked at again, now that the pidfds hold on to them: an id may have changed hands in between.
  const auto now = pids_below(folder_);
  std::erase_if(found, [&](const process& one) { return !now.contains(one.pid); });
  return found;
}

void cgroup::kill() { kill_all(folder_); }

std::int64_t cgroup::memory_kills() const { return number_of(folder_ / "memory.events", "oom_kill"); }

std::int64_t cgroup::refused_processes() const { return number_of(folder_ / "pids.events", "max"); }

// ---- the tree -----------------------------------------------------------------------------------

std::optional<std::string> own_cgroup(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("0::/")) return line.substr(3);
  return std::nullopt;
}

result<std::unique_ptr<cgroup_tree>> cgroup_tree::of_this_process(const fs::path& mount, const fs::path& own) {
  const auto path = own_cgroup(read_file(own));
  std::error_code ignored;
  if (!path || !fs::exists(mount / "cgroup.controllers", ignored))
    return unavailable("there is no cgroup v2 at " + mount.string());
  fs::path base = mount / path->substr(1);
  if (base.filename().empty()) base = base.parent_path();
  if (base.filename() == leaf) base = base.parent_path();  // systemd's DelegateSubgroup= has put us there
  if (!is_ours_to_use(base)) return unavailable(base.string() + " was not delegated to this program");
  return make(base);
}

result<std::unique_ptr<cgroup_tree>> cgroup_tree::make(const fs::path& base) {
  std::unique_ptr<cgroup_tree> tree(new cgroup_tree(base));
  if (auto settled = tree->settle(); !settled) return settled.error();
  return tree;
}

result<void> cgroup_tree::settle() {
  std::error_code failure;
  for (const auto& inside : fs::directory_iterator(base_, failure)) {
    if (!inside.path().filename().string().starts_with(prefix)) continue;
    kill_all(inside.path());
    wait_until_empty(inside.path());
    remove(inside.path());
  }
  if (::mkdir((base_ / leaf).c_str(), 0755) != 0 && errno != EEXIST)
    return unavailable("no group can be made in " + base_.string() + ": " + error_words(errno));
  std::set<pid_t> here;
  add_pids(base_, here);
  if (here.contains(::getpid())) {
    if (const int why = write_file(base_ / leaf / "cgroup.procs", std::to_string(::getpid())); why != 0)
      return unavailable("this program cannot move to " + (base_ / leaf).string() + ": " + error_words(why));
    moved_ = true;
  }
  std::istringstream offered(read_file(base_ / "cgroup.controllers"));
  for (std::string name; offered >> name;) {
    bool* const has = name == "memory" ? &memory_ : name == "cpu" ? &cpus_ : name == "pids" ? &processes_ : nullptr;
    if (!has) continue;
    const int why = write_file(base_ / "cgroup.subtree_control", '+' + name);
    *has = why == 0;
    if (why == EBUSY)
      spdlog::warn("{} cannot be limited by control groups: other programs are in {}", name, base_.string());
    else if (why != 0)
      spdlog::warn("{} cannot be limited by control groups: {}", name, error_words(why));
  }
  return {};
}

cgroup_tree::~cgroup_tree() {
  for (const auto& folder : not_removed_) {
    wait_until_empty(folder);
    remove_folder(folder);
  }
  for (const auto& [has, name] : {std::pair(memory_, "-memory"), {cpus_, "-cpu"}, {processes_, "-pids"}})
    if (has) write_file(base_ / "cgroup.subtree_control", name);
  if (moved_) write_file(base_ / "cgroup.procs", std::to_string(::getpid()));
  ::rmdir((base_ / leaf).c_str());
}

result<std::unique_ptr<cgroup>> cgroup_tree::make_group(const std::string& label, const cgroup_limits& limits) {
  std::vector<fs::path> before;
  {
    std::lock_guard lock(mutex_);
    before.swap(not_removed_);
  }
  for (const auto& folder : before) remove(folder);

  const fs::path folder = base_ / file_name_for(label, ++made_);
  if (::mkdir(folder.c_str(), 0755) != 0) return unavailable("no control group can be made: " + error_words(errno));
  std::string trouble = set_limits(folder, limits);
  unique_fd procs(::open((folder / "cgroup.procs").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (trouble.empty() && procs.get() < 0) trouble = "cgroup.procs: " + error_words(errno);
  if (trouble.empty()) return std::make_unique<cgroup>(*this, folder, std::move(procs));
  remove(folder);
  return unavailable("no control group can be made: " + trouble);
}

void cgroup_tree::remove(const fs::path& folder) {
  if (remove_folder(folder)) return;
  std::lock_guard lock(mutex_);
  not_removed_.push_back(folder);
}

}  // namespace penstock::runtime
