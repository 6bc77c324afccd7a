// A library that is loaded when it is needed first: what nobody uses costs an idle daemon neither memory nor time to
// start (libcurl alone brings 25 others). Once loaded it stays. Safe from any thread; to load reads files, so it takes
// milliseconds, and descriptors.
#pragma once

#include <string>

namespace penstock::runtime {

class shared_library {
 public:
  // `file`: as the linker knows it, "libcurl.so.4". Throws std::runtime_error, which names `package`, Debian's, when it is
  // not there.
  shared_library(const std::string& file, const std::string& package);

  // The function of this name. Throws std::runtime_error when the library has none.
  template <class Function>
  Function* function(const char* name) const {
    return reinterpret_cast<Function*>(find(name));
  }

 private:
  void* find(const char* name) const;

  const std::string file_;
  void* const handle_;
};

}  // namespace penstock::runtime
