// A full disk without one: while it lives, no file of this process grows beyond the limit. Writes fail with
// EFBIG, which SQLite reports as an I/O error.
#pragma once

#include <cstddef>
#include <signal.h>
#include <sys/resource.h>

namespace penstock::testing {

class file_size_limit {
 public:
  explicit file_size_limit(std::size_t bytes) {
    ignored_before_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit lowered{static_cast<rlim_t>(bytes), before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &lowered);
  }
  ~file_size_limit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, ignored_before_);
  }
  file_size_limit(const file_size_limit&) = delete;
  file_size_limit& operator=(const file_size_limit&) = delete;

 private:
  rlimit before_{};
  sighandler_t ignored_before_ = nullptr;
};

}  // namespace penstock::testing
