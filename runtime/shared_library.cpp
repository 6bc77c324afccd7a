#include "runtime/shared_library.hpp"

#include <stdexcept>

#include <dlfcn.h>

namespace penstock::runtime {

shared_library::shared_library(const std::string& file, const std::string& package)
    : file_(file), handle_(::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr)
    throw std::runtime_error("the library of the package " + package + " cannot be loaded: " + ::dlerror());
}

void* shared_library::find(const char* name) const {
  void* const found = ::dlsym(handle_, name);
  if (found == nullptr) throw std::runtime_error(file_ + " has no function " + name);
  return found;
}

}  // namespace penstock::runtime
