// The folder that a path leads to, and when it may be another one.
//
// Looks at each part of the path: folders that could be moved or deleted, symbolic links that could be replaced,
// parts that are missing. After any such change `changed` is called and the owner follows the path again. Each part
// is watched before it is looked at, so no change falls in between. Executor and thread as inotify's; ends with the
// object.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/inotify.hpp"

namespace penstock::runtime {

class path_watch {
 public:
  // `path`: absolute. `changed` is called from inside a listener of `kernel`, perhaps several times.
  path_watch(std::shared_ptr<inotify> kernel, std::filesystem::path path, std::function<void()> changed);
  path_watch(const path_watch&) = delete;
  path_watch& operator=(const path_watch&) = delete;

  struct place {
    std::optional<std::filesystem::path> folder{};  // without symbolic links; nothing: there is none now
    std::string failure{};                          // why nobody will tell of a change; else empty
  };
  // Follows the path from its beginning and watches it anew.
  place follow();

 private:
  struct walk;
  void watch_name(walk& w, const std::filesystem::path& folder, const std::string& name);
  bool enter(walk& w, const std::string& name);
  bool enter_folder(walk& w, const std::filesystem::path& folder, bool named);

  const std::shared_ptr<inotify> kernel_;
  const std::filesystem::path path_;
  const std::function<void()> changed_;
  std::vector<std::shared_ptr<void>> watches_;
};

}  // namespace penstock::runtime
