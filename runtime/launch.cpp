#include "runtime/launch.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <sys/resource.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "runtime/text.hpp"

namespace penstock::runtime {

namespace fs = std::filesystem;

namespace {

// ---- finding the program ------------------------------------------------------------------------

bool is_executable_file(const fs::path& file) {
  struct stat status {};
  return ::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         ::faccessat(AT_FDCWD, file.c_str(), X_OK, AT_EACCESS) == 0;
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

// ---- what went wrong ----------------------------------------------------------------------------

// "user 'x'"
std::string name_of(const identity& who) {
  return who.user.empty() ? "group '" + who.group + "'" : "user '" + who.user + "'";
}

bool is_someone_else(const process_start& how) { return how.as && !how.as->is_ours; }

errc code_of(int error_number) { return error_number == EPERM ? errc::forbidden : errc::unavailable; }

error explain_folder(int error_number, const process_start& how) {
  const std::string folder = "the working directory " + how.folder.string();
  if (error_number == ENOENT) return {errc::not_found, folder + " does not exist"};
  if (error_number == ENOTDIR) return {errc::invalid, folder + " is not a folder"};
  if (error_number == EACCES)
    return {errc::invalid, folder + " may not be entered" + (is_someone_else(how) ? " by " + name_of(*how.as) : "")};
  return {errc::unavailable, folder + " cannot be entered: " + error_words(error_number)};
}

error explain_missing(const fs::path& file, const std::string& program) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {errc::not_found, "command not found: " + program};
  const std::string interpreter = interpreter_of(file);
  return {errc::not_found,
          program + ": its interpreter " + (interpreter.empty() ? "" : interpreter + " ") + "does not exist"};
}

error explain_refused(const fs::path& file, const process_start& how, const std::string& program) {
  std::error_code ignored;
  if (fs::is_directory(file, ignored)) return {errc::invalid, "not executable: " + program + " is a folder"};
  if (!is_executable_file(file))
    return {errc::invalid, "not executable: " + program + " lacks the permission"};
  const std::string interpreter = interpreter_of(file);
  if (!interpreter.empty() && !is_executable_file(interpreter))
    return {errc::invalid, program + ": its interpreter " + interpreter + " is not executable"};
  if (is_someone_else(how))
    return {errc::invalid, "not executable: " + program + " may not be used by " + name_of(*how.as)};
  return {errc::invalid, "not executable: " + program + ": " + error_words(EACCES)};
}

error explain_execute(int error_number, const process_start& how, const std::string& program) {
  const fs::path file = how.folder / program;
  switch (error_number) {
    case ENOENT:
    case ENOTDIR: return explain_missing(file, program);
    case EACCES: return explain_refused(file, how, program);
    case ENOEXEC:
      return {errc::invalid,
              "not executable: " + program + " has no #! line and is not a program of this machine"};
    case E2BIG: return {errc::invalid, "its arguments and environment are too long"};
    case EAGAIN:  // execve(2): over RLIMIT_NPROC since it became that user
      return {errc::unavailable, "cannot start " + program + ": its user has too many processes already"};
    default: return {errc::unavailable, "cannot start " + program + ": " + error_words(error_number)};
  }
}

}  // namespace

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
    std::error_code ignored;
    if (unusable.empty() && fs::is_regular_file(how.folder / candidate, ignored)) unusable = candidate.string();
    if (colon == std::string_view::npos) break;
    folders.remove_prefix(colon + 1);
  }
  // A missing folder explains a program that is looked up in it, too.
  std::error_code ignored;
  const auto folder = fs::status(how.folder, ignored);
  if (!fs::exists(folder)) return explain_folder(ENOENT, how);
  if (!fs::is_directory(folder)) return explain_folder(ENOTDIR, how);
  if (!unusable.empty()) return error{errc::invalid, "not executable: " + unusable};
  return error{errc::not_found, "command not found: '" + name + "' is in no folder of PATH"};
}

error explain(const spawned& failure, const process_start& how, const std::string& program) {
  const int number = failure.error_number;
  const auto cannot = [number](const std::string& what) {
    return error{code_of(number), "cannot " + what + ": " + error_words(number)};
  };
  switch (failure.failed_step) {
    case spawn_step::process_group: return cannot("make its process group");
    case spawn_step::cgroup: return cannot("join its control group");
    case spawn_step::priority: return cannot("change its niceness by " + std::to_string(how.nice));
    case spawn_step::io_priority: return cannot("set its I/O priority");
    case spawn_step::descriptors: return cannot("hand over its input and output");
    case spawn_step::limit: return cannot("limit " + how.limits[failure.failed_limit].what);
    case spawn_step::groups:
    case spawn_step::gid:
    case spawn_step::uid: return cannot("become " + name_of(*how.as));
    case spawn_step::folder: return explain_folder(number, how);
    case spawn_step::execute: return explain_execute(number, how, program);
    default: return cannot("start " + program);
  }
}

}  // namespace penstock::runtime
