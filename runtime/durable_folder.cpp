#include "runtime/durable_folder.hpp"

#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "runtime/unique_fd.hpp"

namespace penstock::runtime {

namespace fs = std::filesystem;

void make_names_durable(const fs::path& folder) {
  const unique_fd open(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (open.get() >= 0) static_cast<void>(::fsync(open.get()));
}

bool make_durable_folder(const fs::path& folder) {
  const fs::path whole = fs::absolute(folder).lexically_normal();
  std::vector<fs::path> parents;  // of those that are missing, deepest first
  std::error_code unknown;
  for (fs::path at = whole; !fs::exists(at, unknown) && at.has_relative_path(); at = at.parent_path())
    parents.push_back(at.parent_path());
  const bool made = fs::create_directories(folder);
  for (const fs::path& parent : parents) make_names_durable(parent);
  return made;
}

}  // namespace penstock::runtime
